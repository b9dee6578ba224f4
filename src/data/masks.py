"""The values in mask files: whole numbers or colours, and the classes they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from src.label_values import COLOUR, label_value

_NO_CLASS = 255  # where it is no class index
_EXACT = 2**24  # OpenCV counts in float32, which holds every whole number below this


Labels = NDArray[np.int32] | NDArray[np.uint8]
"""Label values, in 8 bits where a file stores them in 8. Those from `COLOUR` on are colours."""


def whole_numbers(stack: NDArray[Any], name: str) -> Labels:
    """Stored mask values -> label values of the same (D, H, W): int32, or uint8 as it is.

    Raises:
        ValueError: A value is no whole number, beyond 32 bits, or as large as those of colours.
    """
    if stack.dtype == np.uint8:
        return stack
    least = np.iinfo(np.int32).min
    if stack.dtype.kind == "f" and not (np.isfinite(stack) & (stack == np.rint(stack))).all():
        odd = stack[~(np.isfinite(stack) & (stack == np.rint(stack)))].ravel()[0]
        raise ValueError(
            f"{name}: found the value {odd} in a mask, expected whole numbers. It may have been "
            "resampled with interpolation: export it again with nearest neighbour."
        )
    large = stack.size and stack.dtype.itemsize > 2  # what 16 bits hold is neither
    if large and (stack.min() < least or stack.max() >= COLOUR):
        raise ValueError(
            f"{name}: found values from {stack.min()} to {stack.max()} in a mask, expected label "
            f"values from {least} to {COLOUR - 1}. Export the mask with small whole numbers."
        )
    return stack.astype(np.int32)


def colours_as_numbers(stack: NDArray[Any], name: str) -> Labels:
    """A colour mask -> label values: the grey value where the channels agree, else a colour.

    Args:
        stack: (D, H, W, 3) red, green, blue.
        name: What to call the file in a message.

    Returns:
        (D, H, W). A colour is `COLOUR` + 0xRRGGBB, so that "#0000ff" is not the grey value 255.

    Raises:
        ValueError: Colours of more than 8 bits a channel, or grey values that `whole_numbers`
            refuses.
    """
    if (stack == stack[..., :1]).all():
        return whole_numbers(stack[..., 0], name)
    if stack.dtype != np.uint8:
        raise ValueError(
            f"{name}: found a colour mask of type {stack.dtype}, expected 8 bits a channel. Export "
            "it as 8-bit PNG."
        )
    red, green, blue = (stack[..., channel].astype(np.int32) for channel in range(3))
    is_grey = (red == green) & (green == blue)
    return np.where(is_grey, red, COLOUR | (red << 16) | (green << 8) | blue)


def label_lookup(labels: Mapping[int | str, str], classes: Sequence[str]) -> dict[int, int]:
    """Label value in a mask file -> class index.

    Args:
        labels: Label value or "#rrggbb" -> class name, as in params.yaml.
        classes: Class names in the order of the class index.
    """
    return {label_value(key): classes.index(name) for key, name in labels.items()}


def class_indices(
    values: Labels, labels: Mapping[int | str, str], classes: Sequence[str]
) -> NDArray[np.uint8]:
    """Label values -> class indices.

    Args:
        values: (H, W), or any shape; colours as `colours_as_numbers` has them.
        labels: Label value or "#rrggbb" -> class name, as in params.yaml.
        classes: Class names in the order of the class index, at most 256.

    Returns:
        uint8 of the same shape.

    Raises:
        ValueError: A value stands for no class.
    """
    lookup = label_lookup(labels, classes)
    if _are_bytes(values) and len(classes) <= _NO_CLASS:
        if lookup == {index: index for index in range(len(classes))} and (
            values.max() < len(classes)
        ):
            return values.astype(np.uint8)  # as most masks are: quicker still
        table = np.full(256, _NO_CLASS, np.uint8)  # a table look-up is much quicker than comparing
        for value, index in lookup.items():
            if 0 <= value < 256:
                table[value] = index
        # OpenCV knows two dimensions.
        flat = values.astype(np.uint8, copy=False).reshape(len(values), -1)
        found: NDArray[np.uint8] = cv2.LUT(flat, table).reshape(values.shape)
        if found.max() < _NO_CLASS:
            return found
    indices = np.full(values.shape, -1, dtype=np.int16)
    for value, index in lookup.items():
        indices[values == value] = index
    if (indices < 0).any():
        unknown = np.unique(values[indices < 0]).tolist()
        raise ValueError(
            f"mask values {shown_values(unknown)} stand for no class. Name them in data.labels of "
            "params.yaml."
        )
    return indices.astype(np.uint8)


def value_counts(mask: Labels) -> dict[int, int]:
    """Label value -> number of pixels, in ascending order of the value."""
    if _are_bytes(mask) and mask.size < _EXACT:  # much quicker than sorting
        flat = mask.astype(np.uint8, copy=False).reshape(len(mask), -1)
        if not cv2.countNonZero(flat):  # very many masks are empty
            return {0: mask.size}
        counts = cv2.calcHist([flat], [0], None, [256], [0, 256]).ravel()
        return {value: int(counts[value]) for value in np.flatnonzero(counts).tolist()}
    values, numbers = np.unique(mask, return_counts=True)
    return dict(zip(values.tolist(), numbers.tolist(), strict=True))


def _are_bytes(values: Labels) -> bool:
    """Whether there are values, from 0 to 255 all of them."""
    if values.dtype == np.uint8:
        return bool(values.size)
    return bool(values.size) and values.min() >= 0 and values.max() < 256


def shown_values(values: Iterable[int], most: int = 8) -> str:
    """Label values for a message: colours as "#rrggbb", and the count where there are many."""
    listed = sorted(values)
    text = ", ".join(_as_key(value) for value in listed[:most])
    return text + (f", … ({len(listed)} values)" if len(listed) > most else "")


def suggested_labels(values: Iterable[int], classes: Sequence[str]) -> str:
    """A remedy for unknown label values: a `labels:` line to start from.

    Args:
        values: All label values that the masks hold.
        classes: Class names, background first.

    Returns:
        A sentence. Values go to classes in ascending order (a negative lowest one is background);
        where there are more values than classes, it says so instead of guessing.
    """
    listed = sorted(set(values))
    if len(listed) > max(len(classes), 16):
        return (
            f"{len(listed)} values for {len(classes)} classes look like an image in place of a "
            "mask, or like lossy compression (JPEG) or interpolation at the edges: name the mask, "
            "or export it again as PNG, without resampling."
        )
    if len(listed) > len(classes):
        return (
            f"The masks hold the values {shown_values(listed, 16)} and there are "
            f"{len(classes)} classes: name a class for each in data.labels of params.yaml (several "
            "values may share one), or add to data.classes."
        )
    pairs = ", ".join(
        f"{_as_key(value, quoted=True)}: {name}"
        for value, name in zip(listed, classes, strict=False)
    )
    return f"If that is what they mean, set in params.yaml `labels: {{{pairs}}}`."


def _as_key(value: int, *, quoted: bool = False) -> str:
    """A label value as it stands in params.yaml."""
    if value < COLOUR:
        return str(value)
    key = f"#{value - COLOUR:06x}"
    return f'"{key}"' if quoted else key
