"""Checks that name what does not fit, where Keras would fail late or say little."""

from collections.abc import Sequence

import keras


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


def check_weights(model: keras.Model, shapes: Sequence[tuple[int, ...]]) -> None:
    """Check that kept weights fit a network, before the first of them is put in.

    Args:
        model: The network.
        shapes: Shapes of the kept weights, in the order of `model.weights`.

    Raises:
        ValueError: They are of another architecture, depth, width or number of classes.
    """
    expected = [tuple(weight.shape) for weight in model.weights]
    if list(shapes) == expected:
        return
    pairs = zip(model.weights, expected, shapes, strict=False)
    first = next((f": {w.path} is {e}, kept {s}" for w, e, s in pairs if e != s), "")
    raise ValueError(
        f"the kept weights do not fit the network {model.name}: it has {len(expected)} arrays, "
        f"{len(shapes)} are kept{first}. They are of another architecture or of other parameters "
        "in train.model: restore those, or remove the kept weights and train again."
    )
