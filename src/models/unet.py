"""The U-Net of Ronneberger et al. 2015, with same padding."""

import keras

from src.models.design import Design


def unet(design: Design) -> keras.Model:
    """Build a U-Net.

    Level l = 0 ... depth of the encoder computes, with f_l = filters * 2 ** l channels,

        e_l = block(maxpool2x2(e_{l-1})),  block(x) = ReLU(N(W2 * ReLU(N(W1 * x))))

    and the decoder, from level depth - 1 up to 0, with d_depth = e_depth,

        d_l = block([e_l, up(d_{l+1})])

    where N is the normalisation, up doubles the size and halves the channels, and [,] joins
    channels. The probabilities are softmax(W * d_0) with a 1x1 convolution. Unlike the paper,
    the convolutions pad (same), so that the result has the size of the picture.

    With deep supervision every d_l has a head of its own, of weight 1 / 2 ** l.

    Parameters: a block of b inputs and f outputs has 9 b f + 9 f f weights, and 2 f trainable
    ones a normalisation ("none": f biases). With "transpose", up from 2 f to f has 8 f f + f.
    The network of the paper (1 channel, 2 classes, depth 4, filters 64, "none", "transpose")
    has 31,030,658; with filters 16, 3 classes and "batch", 1,945,267, of which 2,944 are
    moving statistics. A residual block has b f more, and one normalisation (or f biases) more,
    where b is not f; a further head of C classes on f channels has C f + C.

    Args:
        design: The numbers of the network.

    Returns:
        A model from (B, H, W, in_channels) to float32 probabilities (B, H, W, num_classes) with
        sum 1 over the classes; with deep supervision to a list of them, d_0 first. H and W are
        free multiples of 2 ** depth (see :func:`src.models.checks.check_image_size`).

    Raises:
        ValueError: The normalisation or the upsampling is unknown.

    Source: Ronneberger, Fischer and Brox 2015, arXiv:1505.04597, figure 1; deep supervision:
        Isensee et al. 2021, DOI 10.1038/s41592-020-01008-z, supplementary note 4.
    """
    inputs = keras.Input((None, None, design.in_channels), name="image")
    *skips, (outputs,) = design.encode(inputs, uses=[1] * (design.depth + 1))
    features = []
    for level in reversed(range(design.depth)):
        outputs = design.upsample(outputs, level, f"decoder{level}_up")
        outputs = keras.layers.Concatenate(name=f"decoder{level}_join")([*skips[level], outputs])
        outputs = design.block(outputs, level, f"decoder{level}")
        if level == 0 or design.is_deeply_supervised:
            features.append((f"_level{level}" if level else "", outputs))
    levels = range(len(features))
    return design.model(
        inputs,
        features[::-1],
        strides=[2**level for level in levels],
        weights=[0.5**level for level in levels],
        name="unet",
    )
