"""The U-Net of Ronneberger et al. 2015, with same padding."""

import keras

from src.models import blocks


def check_image_size(height: int, width: int, depth: int) -> None:
    """Check that a picture can be halved `depth` times and doubled back to the same size.

    Args:
        height: Pixels in a column.
        width: Pixels in a row.
        depth: Number of down-samplings of the network.

    Raises:
        ValueError: A side is not a positive multiple of 2 ** depth.
    """
    multiple = 2**depth
    if min(height, width) < 1 or height % multiple or width % multiple:
        raise ValueError(
            f"image height and width must be divisible by {multiple} (depth {depth}), got "
            f"({height}, {width}). Set prepare.pad_to_multiple: {multiple}."
        )


def check_architecture(in_channels: int, num_classes: int, depth: int, filters: int) -> None:
    """Check the numbers that every encoder-decoder network needs.

    Args:
        in_channels: Channels of a picture, at least 1.
        num_classes: Number of classes, background included, at least 2.
        depth: Number of down-samplings, at least 1.
        filters: Channels of the first level, at least 1.

    Raises:
        ValueError: One of them is too small.
    """
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1, got {in_channels}.")
    if num_classes < 2:
        raise ValueError(
            f"num_classes must be at least 2, got {num_classes}. "
            "Count the background: it is class 0 of `classes`."
        )
    if depth < 1:
        raise ValueError(
            f"depth must be at least 1, got {depth}. "
            "It counts the down-samplings; the network of the paper has 4."
        )
    if filters < 1:
        raise ValueError(f"filters must be at least 1, got {filters}.")


def unet(
    *,
    in_channels: int,
    num_classes: int,
    depth: int,
    filters: int,
    dropout: float,
    normalisation: str,
    upsampling: str,
) -> keras.Model:
    """Build a U-Net.

    Level l = 0 ... depth of the encoder computes, with f_l = filters * 2 ** l channels,

        e_l = block(maxpool2x2(e_{l-1})),  block(x) = ReLU(N(W2 * ReLU(N(W1 * x))))

    and the decoder, from level depth - 1 up to 0, with d_depth = e_depth,

        d_l = block([e_l, up(d_{l+1})])

    where N is the normalisation, up doubles the size and halves the channels, and [,] joins
    channels. The probabilities are softmax(W * d_0) with a 1x1 convolution. Unlike the paper,
    the convolutions pad (same), so that the result has the size of the picture.

    Dropout follows the blocks of the bottleneck and of the level beside it, on the way down and
    up. The paper has it at the end of the contracting path; the central levels are also where
    it serves Monte-Carlo dropout best (Kendall et al. 2015, arXiv:1511.02680, table 1).

    Parameters: a block of b inputs and f outputs has 9 b f + 9 f f weights, and 2 f trainable
    ones a normalisation ("none": f biases). With "transpose", up from 2 f to f has 8 f f + f.
    The network of the paper (1 channel, 2 classes, depth 4, filters 64, "none", "transpose")
    has 31,030,658; with filters 16, 3 classes and "batch", 1,945,267, of which 2,944 are
    moving statistics.

    Args:
        in_channels: Channels of a picture.
        num_classes: Number of classes, background included, at least 2.
        depth: Number of down-samplings, at least 1.
        filters: Channels of the first level; each further level has twice as many.
        dropout: Share of the feature maps that is dropped in training, 0 (none) to below 1.
        normalisation: "batch", "instance" or "none".
        upsampling: "transpose", "bilinear" or "nearest".

    Returns:
        A model from (B, H, W, in_channels) to float32 probabilities (B, H, W, num_classes) with
        sum 1 over the classes. H and W are free multiples of 2 ** depth
        (see :func:`check_image_size`).

    Raises:
        ValueError: An argument is out of its range or not among the names above.

    Source: Ronneberger, Fischer and Brox 2015, arXiv:1505.04597, figure 1.
    """
    check_architecture(in_channels, num_classes, depth, filters)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}.")

    def block(inputs: keras.KerasTensor, level: int, name: str) -> keras.KerasTensor:
        return blocks.convolution_block(
            inputs,
            filters * 2**level,
            normalisation=normalisation,
            dropout=dropout if level >= depth - 1 else 0.0,
            name=name,
        )

    inputs = keras.Input((None, None, in_channels), name="image")
    outputs = inputs
    skips = []
    for level in range(depth):
        outputs = block(outputs, level, f"encoder{level}")
        skips.append(outputs)
        outputs = keras.layers.MaxPooling2D(2, name=f"encoder{level}_pool")(outputs)
    outputs = block(outputs, depth, "bottleneck")
    for level in reversed(range(depth)):
        outputs = blocks.upsample(
            outputs, filters * 2**level, upsampling=upsampling, name=f"decoder{level}_up"
        )
        outputs = keras.layers.Concatenate(name=f"decoder{level}_join")([skips[level], outputs])
        outputs = block(outputs, level, f"decoder{level}")
    return keras.Model(inputs, blocks.class_probabilities(outputs, num_classes), name="unet")
