"""The networks of src/models from Keras' own layers alone, as a tutorial writes them.

The same convolutions, normalisations, dropout and joins, hence the same number of parameters; for
benchmarks/training.py.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers

MOMENTUM = 0.9  # of the moving statistics, as in src.models.normalisation
GATE_BIAS = 3.0

NORMALISATIONS: dict[str, Callable[[], keras.layers.Layer]] = {
    "batch": lambda: layers.BatchNormalization(momentum=MOMENTUM),
    # What Keras has for it: every channel is a group.
    "instance": lambda: layers.GroupNormalization(groups=-1),
}


def block(
    inputs: keras.KerasTensor, filters: int, normalisation: str, dropout: float
) -> keras.KerasTensor:
    """[3x3 convolution, normalisation, ReLU] twice, then dropout of whole feature maps."""
    outputs = inputs
    for _ in range(2):
        outputs = layers.Conv2D(
            filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal"
        )(outputs)
        outputs = NORMALISATIONS[normalisation]()(outputs)
        outputs = layers.ReLU()(outputs)
    return layers.SpatialDropout2D(dropout)(outputs) if dropout else outputs


def up(inputs: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """Twice the height and width."""
    return layers.Conv2DTranspose(filters, 2, strides=2, kernel_initializer="he_normal")(inputs)


def gate(skip: keras.KerasTensor, gating: keras.KerasTensor) -> keras.KerasTensor:
    """Weighs the pixels of a skip connection by what the coarser level makes of them."""
    between = max(skip.shape[-1] // 2, 1)
    joined = layers.Add()(
        [
            layers.Conv2D(between, 2, strides=2, use_bias=False)(skip),
            layers.Conv2D(between, 1)(gating),
        ]
    )
    coefficients = layers.Conv2D(
        1, 1, activation="sigmoid", bias_initializer=keras.initializers.Constant(GATE_BIAS)
    )(layers.ReLU()(joined))
    resized = layers.UpSampling2D(2, interpolation="bilinear")(coefficients)
    return layers.Multiply()([skip, resized])


def build(
    architecture: str,
    size: int,
    in_channels: int,
    classes: int,
    *,
    normalisation: str,
    filters: int,
    depth: int,
    dropout: float,
) -> keras.Model:
    """Build a network.

    Args:
        architecture: "unet", "unetpp" or "attention_unet".
        size: Height and width of the pictures.
        in_channels: Channels of a picture.
        classes: Number of classes, background included.
        normalisation: "batch" or "instance".
        filters: Channels of the first level; each further level has twice as many.
        depth: Number of down-samplings.
        dropout: Share of the feature maps that is dropped in the two deepest levels.

    Returns:
        A model from (B, size, size, in_channels) to probabilities (B, size, size, classes).
    """

    def level_block(tensor: keras.KerasTensor, level: int) -> keras.KerasTensor:
        share = dropout if level >= depth - 1 else 0.0
        return block(tensor, filters * 2**level, normalisation, share)

    inputs = keras.Input((size, size, in_channels))
    rows = [[level_block(inputs, 0)]]
    for level in range(1, depth + 1):
        rows.append([level_block(layers.MaxPooling2D()(rows[-1][0]), level)])
    if architecture == "unetpp":
        for column in range(1, depth + 1):
            for row in range(depth - column + 1):
                below = up(rows[row + 1][column - 1], filters * 2**row)
                rows[row].append(level_block(layers.Concatenate()([*rows[row], below]), row))
        outputs = rows[0][-1]
    else:
        outputs = rows[depth][0]
        for level in reversed(range(depth)):
            skip = rows[level][0]
            passed = gate(skip, outputs) if architecture == "attention_unet" else skip
            joined = layers.Concatenate()([passed, up(outputs, filters * 2**level)])
            outputs = level_block(joined, level)
    return keras.Model(inputs, layers.Conv2D(classes, 1, activation="softmax")(outputs))


def dice_cross_entropy(
    truth: keras.KerasTensor, prediction: keras.KerasTensor
) -> keras.KerasTensor:
    """Mean cross entropy plus the Dice loss of the foreground classes over the batch.

    Args:
        truth: (B, H, W), class indices.
        prediction: (B, H, W, C), probabilities.

    Returns:
        A scalar.
    """
    entropy = keras.losses.sparse_categorical_crossentropy(truth, prediction)
    expected = keras.ops.one_hot(truth, prediction.shape[-1])
    overlap = keras.losses.dice(expected[..., 1:], prediction[..., 1:], axis=(0, 1, 2))
    return keras.ops.mean(entropy) + keras.ops.mean(overlap)
