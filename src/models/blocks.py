"""The parts that the segmentation networks are built of.

Everything is written with Keras layers and operations alone, so that any Keras backend can run it.

A rule for new networks: let no tensor that is trained through have more than two consumers; where
there must be more, :func:`branch` it. TensorFlow adds three gradients or more by one operation
that starts from whichever it finds free to be overwritten, and which that is can depend on the
timing: the weights need not be the same again. (Two are added alike either way. A tree of
additions is no way out: TensorFlow's graph optimiser makes that one operation of it.)

Axes are (batch, height, width, channels) throughout.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from src.models.normalisation import normalise

UPSAMPLINGS = ("transpose", "bilinear", "nearest")
# Bias of an attention gate at the start: a gate of sigmoid(3) = 0.95 lets the features pass, and
# is not yet so saturated that it learns nothing.
GATE_BIAS = 3.0


@keras.saving.register_keras_serializable(package="ct_segmentation")
class Branch(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """The same tensor several times, for consumers whose gradients are added in a fixed order.

    Args:
        copies: How many.
        **kwargs: Further arguments of `keras.layers.Layer`.
    """

    def __init__(self, copies: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.copies = copies

    def call(
        self, inputs: keras.KerasTensor, training: bool | None = None
    ) -> tuple[keras.KerasTensor, ...]:
        """Return a tuple of `copies` times the inputs, (B, H, W, C)."""
        if not training or keras.backend.backend() != "tensorflow":
            return (inputs,) * self.copies
        return _branch(inputs, self.copies)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build this layer again."""
        return {**super().get_config(), "copies": self.copies}


def _branch(inputs: keras.KerasTensor, copies: int) -> tuple[keras.KerasTensor, ...]:
    @ops.custom_gradient  # type: ignore[untyped-decorator]  # Keras is untyped
    def branched(
        tensor: keras.KerasTensor,
    ) -> tuple[tuple[keras.KerasTensor, ...], Callable[..., keras.KerasTensor]]:
        # The sum of one stacked tensor, which nothing reorders.
        return (tensor,) * copies, lambda *gradients: ops.sum(ops.stack(gradients), axis=0)

    return tuple(branched(inputs))


def branch(inputs: keras.KerasTensor, copies: int, *, name: str) -> list[keras.KerasTensor]:
    """Give each consumer of a tensor, but the first two, a copy of its own (see the module).

    Args:
        inputs: (B, H, W, C), float.
        copies: Number of consumers, at least 1.
        name: Name of the layer.

    Returns:
        `copies` tensors (B, H, W, C); up to two are the inputs themselves.
    """
    return [inputs] * copies if copies <= 2 else list(Branch(copies, name=name)(inputs))


def convolution_block(
    inputs: keras.KerasTensor,
    filters: int,
    *,
    normalisation: str,
    dropout: float = 0.0,
    residual: bool = False,
    name: str,
) -> keras.KerasTensor:
    """Apply [3x3 convolution, normalisation, ReLU] twice, then dropout where asked for.

        h = ReLU(N(W1 * x)),  y = ReLU(N(W2 * h))

    A residual block adds its inputs before the last ReLU, through a 1x1 convolution of their own
    where the number of channels changes (the post-activation form, as in the encoder of nnU-Net):

        y = ReLU(N(W2 * h) + S(x)),  S(x) = x or N(Ws * x)

    A convolution has a bias only where no normalisation follows, which would subtract it again.
    The dropout is of whole feature maps: neighbouring pixels of one map are so alike that
    dropping single ones takes hardly any information away (Tompson et al. 2015,
    arXiv:1411.4280, section 3.2).

    Args:
        inputs: (B, H, W, C), float.
        filters: Channels of the result.
        normalisation: See :func:`normalise`.
        dropout: Share of the feature maps that is dropped in training, 0 to 1; 0: no such layer.
        residual: Whether the block is residual.
        name: Start of the names of all layers in the block.

    Returns:
        (B, H, W, filters).

    Raises:
        ValueError: The normalisation is unknown.

    Source: Ronneberger et al. 2015, arXiv:1505.04597, section 2, with same padding; residual:
        He et al. 2015, arXiv:1512.03385, equations 1 and 2.
    """

    def convolution(tensor: keras.KerasTensor, size: int, suffix: str) -> keras.KerasTensor:
        outputs = keras.layers.Conv2D(
            filters,
            size,
            padding="same",
            use_bias=normalisation == "none",
            kernel_initializer="he_normal",  # standard deviation sqrt(2 / N), as in the paper
            name=f"{name}_conv{suffix}",
        )(tensor)
        return normalise(outputs, normalisation, name=f"{name}_norm{suffix}")

    outputs = convolution(inputs, 3, "1")
    outputs = keras.layers.ReLU(name=f"{name}_relu1")(outputs)
    outputs = convolution(outputs, 3, "2")
    if residual:
        same = inputs.shape[-1] == filters
        shortcut = inputs if same else convolution(inputs, 1, "_shortcut")
        outputs = keras.layers.Add(name=f"{name}_add")([outputs, shortcut])
    outputs = keras.layers.ReLU(name=f"{name}_relu2")(outputs)
    if dropout > 0:
        outputs = keras.layers.SpatialDropout2D(dropout, name=f"{name}_dropout")(outputs)
    return outputs


@keras.saving.register_keras_serializable(package="ct_segmentation")
class BilinearDoubling(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Doubles height and width with bilinear interpolation, for pictures of any size.

    Each pixel is repeated twice along both axes and the result averaged by [1, 2, 1] / 4, edges
    repeated: with pixel centres at halves that is bilinear interpolation. `UpSampling2D` does the
    same, but cannot be traced where height and width are left open, as they are in inference.
    """

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """(B, H, W, C) -> (B, 2 H, 2 W, C)."""
        doubled = ops.repeat(ops.repeat(inputs, 2, axis=1), 2, axis=2)
        padded = ops.pad(doubled, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
        # [1, 1] / 2 twice is [1, 2, 1] / 4.
        return ops.average_pool(ops.average_pool(padded, 2, strides=1), 2, strides=1)


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
    doubling = BilinearDoubling if upsampling == "bilinear" else keras.layers.UpSampling2D
    return doubling(name=f"{name}_resize")(outputs)


def attention_gate(
    skip: Sequence[keras.KerasTensor], gating: keras.KerasTensor, *, name: str
) -> keras.KerasTensor:
    """Weigh the pixels of a skip connection by what the coarser scale makes of them.

        q = psi . ReLU(Wx * x + Wg * g + bg) + bpsi,  y = x up(sigmoid(q))

    The coefficients, one a pixel, are computed at the size of g: Wx is a 2x2 convolution of stride
    2, Wg and psi are 1x1 convolutions, and up is bilinear. In between are half as many channels
    as x has.

    Args:
        skip: x, (B, 2 H, 2 W, C), float, twice (see :func:`branch`).
        gating: g, (B, H, W, any number of channels), float.
        name: Start of the names of the layers. The coefficients come out of `{name}_resize`.

    Returns:
        (B, 2 H, 2 W, C).

    Source: Oktay et al. 2018, arXiv:1804.03999, equations 1 and 2 and figure 2.
    """
    between = max(skip[0].shape[-1] // 2, 1)
    options = {"kernel_initializer": "he_normal"}
    of_skip = keras.layers.Conv2D(
        between, 2, strides=2, use_bias=False, name=f"{name}_skip", **options
    )(skip[0])
    of_gating = keras.layers.Conv2D(between, 1, name=f"{name}_gating", **options)(gating)
    joined = keras.layers.Add(name=f"{name}_add")([of_skip, of_gating])
    coefficients = keras.layers.Conv2D(
        1,
        1,
        activation="sigmoid",
        bias_initializer=keras.initializers.Constant(GATE_BIAS),
        name=f"{name}_psi",
    )(keras.layers.ReLU(name=f"{name}_relu")(joined))
    coefficients = BilinearDoubling(name=f"{name}_resize")(coefficients)
    return keras.layers.Multiply(name=name)([skip[1], coefficients])


def class_probabilities(
    inputs: keras.KerasTensor, num_classes: int, *, suffix: str = ""
) -> keras.KerasTensor:
    """Apply the last layers: a 1x1 convolution and a softmax over the classes.

    Both are float32 under mixed precision too. The three digits of bfloat16 would show in
    the probabilities: calibration and uncertainty are read from them.

    Args:
        inputs: (B, H, W, C), float.
        num_classes: Number of classes, background included.
        suffix: End of the names of the layers, `logits` and `probabilities`.

    Returns:
        (B, H, W, num_classes), float32, in [0, 1], with sum 1 over the last axis.
    """
    logits = keras.layers.Conv2D(num_classes, 1, dtype="float32", name=f"logits{suffix}")(inputs)
    return keras.layers.Softmax(dtype="float32", name=f"probabilities{suffix}")(logits)
