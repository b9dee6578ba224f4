"""The parts that the segmentation networks are built of.

Everything is written with Keras layers and operations alone, so that any Keras backend can run
it. The one exception is inside :class:`BatchNormalization`, and says why.

A rule for new networks: let no tensor that is trained through have more than two consumers. On a
CPU TensorFlow adds three or more gradients in no fixed order, and the weights stop being
repeatable; two are added alike either way.

Axes are (batch, height, width, channels) throughout.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

NORMALISATIONS = ("batch", "instance", "none")
UPSAMPLINGS = ("transpose", "bilinear", "nearest")


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

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Normalise (B, H, W, C) over height and width; in float32 for the sake of the sums."""
        inputs = ops.cast(inputs, self.gamma.dtype)
        centred = inputs - ops.mean(inputs, axis=(1, 2), keepdims=True)
        variance = ops.mean(ops.square(centred), axis=(1, 2), keepdims=True)
        outputs = centred * (ops.rsqrt(variance + self.epsilon) * self.gamma) + self.beta
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


def convolution_block(
    inputs: keras.KerasTensor, filters: int, *, normalisation: str, dropout: float = 0.0, name: str
) -> keras.KerasTensor:
    """Apply [3x3 convolution, normalisation, ReLU] twice, then dropout where asked for.

        h = ReLU(N(W1 * x)),  y = ReLU(N(W2 * h))

    A convolution has a bias only where no normalisation follows, which would subtract it again.
    The dropout is of whole feature maps: neighbouring pixels of one map are so alike that
    dropping single ones takes hardly any information away (Tompson et al. 2015,
    arXiv:1411.4280, section 3.2).

    Args:
        inputs: (B, H, W, C), float.
        filters: Channels of the result.
        normalisation: See :func:`normalise`.
        dropout: Share of the feature maps that is dropped in training, 0 to 1; 0: no such layer.
        name: Start of the names of all layers in the block.

    Returns:
        (B, H, W, filters).

    Raises:
        ValueError: The normalisation is unknown.

    Source: Ronneberger et al. 2015, arXiv:1505.04597, section 2, with same padding.
    """
    outputs = inputs
    for index in (1, 2):
        outputs = keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=normalisation == "none",
            kernel_initializer="he_normal",  # standard deviation sqrt(2 / N), as in the paper
            name=f"{name}_conv{index}",
        )(outputs)
        outputs = normalise(outputs, normalisation, name=f"{name}_norm{index}")
        outputs = keras.layers.ReLU(name=f"{name}_relu{index}")(outputs)
    if dropout > 0:
        outputs = keras.layers.SpatialDropout2D(dropout, name=f"{name}_dropout")(outputs)
    return outputs


def upsample(
    inputs: keras.KerasTensor, filters: int, *, upsampling: str, name: str
) -> keras.KerasTensor:
    """Double height and width and set the number of channels: the paper's up-convolution.

    Args:
        inputs: (B, H, W, C), float.
        filters: Channels of the result.
        upsampling: "transpose" (2x2 transposed convolution of stride 2), or "bilinear" or
            "nearest": that interpolation with a 1x1 convolution. The convolution stands before
            the interpolation: the two commute, and there it has a quarter of the pixels to do.
        name: Start of the names of the layers.

    Returns:
        (B, 2 H, 2 W, filters).

    Raises:
        ValueError: The upsampling is unknown.
    """
    if upsampling not in UPSAMPLINGS:
        raise ValueError(f"upsampling must be one of {UPSAMPLINGS}, got {upsampling!r}.")
    if upsampling == "transpose":
        return keras.layers.Conv2DTranspose(
            filters, 2, strides=2, kernel_initializer="he_normal", name=f"{name}_conv"
        )(inputs)
    outputs = keras.layers.Conv2D(filters, 1, kernel_initializer="he_normal", name=f"{name}_conv")(
        inputs
    )
    return keras.layers.UpSampling2D(2, interpolation=upsampling, name=f"{name}_resize")(outputs)


def class_probabilities(inputs: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
    """Apply the last layers: a 1x1 convolution and a softmax over the classes.

    Both are float32 under mixed precision too. The three digits of bfloat16 would show in
    the probabilities: calibration and uncertainty are read from them.

    Args:
        inputs: (B, H, W, C), float.
        num_classes: Number of classes, background included.

    Returns:
        (B, H, W, num_classes), float32, in [0, 1], with sum 1 over the last axis.
    """
    logits = keras.layers.Conv2D(num_classes, 1, dtype="float32", name="logits")(inputs)
    return keras.layers.Softmax(dtype="float32", name="probabilities")(logits)


def reseed_dropout(model: keras.Model, *, seed: int, epoch: int) -> None:
    """Start the random numbers of all dropout layers anew, to be called before each epoch.

    Keras does not save where they stand. Drawn from seed and epoch, they are the same in an
    epoch that is run again after a crash as in a run without one.

    Args:
        model: The network; changed in place.
        seed: Seed of the run, at least 0.
        epoch: Number of the epoch, at least 0.
    """
    for position, layer in enumerate(model.layers):
        if hasattr(layer, "seed_generator"):
            drawn = np.random.SeedSequence((seed, epoch, position)).generate_state(1)
            # Half of the range, as some backends keep the state as int32.
            layer.seed_generator.state.assign([int(drawn[0]) >> 1, 0])
