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


def check_model(
    model: keras.Model, *, architecture: str, in_channels: int, num_classes: int
) -> None:
    """Check that a loaded model is the one that its model card describes.

    Args:
        model: A model with one output, as of :func:`src.models.inference_model`.
        architecture: A key of `src.models.ARCHITECTURES`.
        in_channels: Channels of a picture.
        num_classes: Number of classes, background included.

    Raises:
        ValueError: It is another one.
    """
    found = (model.name, model.inputs[0].shape[-1], model.outputs[0].shape[-1])
    expected = (architecture, in_channels, num_classes)
    if found != expected:
        raise ValueError(
            "model.keras and model.json do not belong together: model.json describes a {} of {} "
            "channels and {} classes, model.keras holds a {} of {} channels and {} classes. "
            "Restore both from one run, or train again with `dvc repro train`.".format(
                *expected, *found
            )
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
