"""Normalisation layers, and the choice among them by name.

Axes are (batch, height, width, channels) throughout.
"""

from typing import Any

import keras
from keras import ops

NORMALISATIONS = ("batch", "instance", "none")


@keras.saving.register_keras_serializable(package="ct_segmentation")
class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # Keras is untyped
    """Keras batch normalisation, computed by TensorFlow's fused kernel where there is one.

    Keras composes the layer of a dozen elementary operations and, under mixed precision, of two
    casts; in a small U-Net on a CPU that takes longer than the convolutions. TensorFlow's fused
    kernel makes one pass, reads bfloat16 and keeps the statistics in float32. It is also what
    makes a run repeatable: with Keras' own layer the same seed gave other weights (see
    :class:`InstanceNormalization` for why). The weights, their names and the results (within
    rounding) are those of `keras.layers.BatchNormalization`.

    The fused kernel is used on the TensorFlow backend for a float32, float16 or bfloat16 input of
    four axes with the channels last and no mask; everything else goes to Keras.

    Args:
        axis: The axis of the channels.
        momentum: Weight of the past in the moving mean and variance. Keras' 0.99 needs several
            hundred steps to forget the initial values: a short run on a small data set would be
            validated with statistics that are not its own. Hence 0.9.
        **kwargs: Further arguments of `keras.layers.BatchNormalization`.

    Source: Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1 (training), 2 (inference).
    """

    def __init__(self, axis: int = -1, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(axis=axis, momentum=momentum, **kwargs)

    def call(
        self,
        inputs: keras.KerasTensor,
        training: bool | None = None,
        mask: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
        """Normalise over batch, height and width.

        Args:
            inputs: (B, H, W, C), float.
            training: Whether to use (and learn) the statistics of this batch. A frozen layer
                (`trainable = False`) uses the moving ones in either case.
            mask: (B, H, W), bool, or None: the positions that count.

        Returns:
            (B, H, W, C) in the layer's compute dtype.
        """
        if not self._is_fusable(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        return self._fused(inputs, training=bool(training) and self.trainable)

    def _is_fusable(self, inputs: keras.KerasTensor, mask: keras.KerasTensor | None) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "float16", "bfloat16")
            and mask is None
            and not self.renorm
            and not self.synchronized
        )

    def _fused(self, inputs: keras.KerasTensor, *, training: bool) -> keras.KerasTensor:
        # keras.ops offers no fused kernel; without it a float32 step takes 1.2 times as long.
        import tensorflow as tf

        mean = tf.convert_to_tensor(self.moving_mean)
        variance = tf.convert_to_tensor(self.moving_variance)
        outputs, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma) if self.scale else tf.ones_like(mean),
            offset=tf.convert_to_tensor(self.beta) if self.center else tf.zeros_like(mean),
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            # The kernel reports the unbiased variance, n / (n - 1) times the one that it
            # normalises with (of a single value, which has none: that one itself, 0). Keras
            # keeps the biased one.
            count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], mean.dtype)
            batch_variance *= tf.maximum(count - 1.0, 1.0) / count
            past, present = self.momentum, 1.0 - self.momentum
            self.moving_mean.assign(mean * past + batch_mean * present)
            self.moving_variance.assign(variance * past + batch_variance * present)
        return ops.cast(outputs, self.compute_dtype)


@keras.saving.register_keras_serializable(package="ct_segmentation")
class InstanceNormalization(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Normalisation of every channel of every picture by itself, for very small batches.

        y = gamma (x - mean(x)) / sqrt(var(x) + epsilon) + beta,  mean and var over H and W

    Keras has the same as `GroupNormalization(groups=-1)`, but that uses its input three times,
    and on a CPU TensorFlow adds three gradients in the order in which they happen to be ready:
    the same seed gave other weights. Here no value is used more than twice, and a + b = b + a.

    Args:
        epsilon: Added to the variance.
        **kwargs: Further arguments of `keras.layers.Layer`.

    Source: Ulyanov et al. 2016, arXiv:1607.08022, equation 4.
    """

    def __init__(self, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create scale and offset, one a channel, float32 in any precision."""
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(shape, initializer="ones", autocast=False, name="gamma")
        self.beta = self.add_weight(shape, initializer="zeros", autocast=False, name="beta")

    def call(self, inputs: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        """Normalise (B, H, W, C) over height and width; statistics in float32.

        Args:
            inputs: (B, H, W, C), float.
            training: Only says which of two ways to the same result is the quicker one.

        Returns:
            (B, H, W, C) in the layer's compute dtype.
        """
        if training and keras.backend.backend() == "tensorflow":
            return self._fused(inputs)
        inputs = ops.cast(inputs, self.gamma.dtype)
        centred = inputs - ops.mean(inputs, axis=(1, 2), keepdims=True)
        variance = ops.mean(ops.square(centred), axis=(1, 2), keepdims=True)
        outputs = centred * (ops.rsqrt(variance + self.epsilon) * self.gamma) + self.beta
        return ops.cast(outputs, self.compute_dtype)

    def _fused(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """By TensorFlow's kernel for batches: every channel of every picture is a channel there.

        The two transpositions and the kernel, forward and backward, take 0.4 to 0.6 of the time of
        the elementary operations.
        """
        import tensorflow as tf

        batch, height, width, channels = tf.unstack(tf.shape(inputs))
        together = tf.reshape(
            tf.transpose(inputs, (1, 2, 0, 3)), (1, height, width, batch * channels)
        )
        outputs, *_ = tf.raw_ops.FusedBatchNormV3(
            x=together,
            scale=tf.tile(tf.convert_to_tensor(self.gamma), [batch]),
            offset=tf.tile(tf.convert_to_tensor(self.beta), [batch]),
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )
        apart = tf.reshape(outputs, (height, width, batch, channels))
        outputs = tf.ensure_shape(tf.transpose(apart, (2, 0, 1, 3)), inputs.shape)
        return ops.cast(outputs, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build this layer again."""
        return {**super().get_config(), "epsilon": self.epsilon}


def normalise(inputs: keras.KerasTensor, normalisation: str, *, name: str) -> keras.KerasTensor:
    """Apply the normalisation layer of that name.

    Args:
        inputs: (B, H, W, C), float.
        normalisation: "batch", "instance" or "none".
        name: Name of the layer.

    Returns:
        (B, H, W, C); the inputs themselves with "none".

    Raises:
        ValueError: The normalisation is unknown.
    """
    if normalisation == "batch":
        return BatchNormalization(name=name)(inputs)
    if normalisation == "instance":
        return InstanceNormalization(name=name)(inputs)
    if normalisation == "none":
        return inputs
    raise ValueError(f"normalisation must be one of {NORMALISATIONS}, got {normalisation!r}.")
