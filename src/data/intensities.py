"""The range of HU of a slice in five numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.data.pictures import PictureScale

_LARGE = 65_536  # pixels of a slice; of a larger one every fourth gives the percentiles
_COUNTED = 65_536  # different whole numbers that are counted one by one
_PERCENTILES = (0.01, 0.5, 0.99)


class Intensities(NamedTuple):
    """Least, 1st, 50th and 99th percentile and greatest HU."""

    least: float
    percentile_1: float
    percentile_50: float
    percentile_99: float
    greatest: float


def intensities(stored: NDArray[Any], scale: PictureScale | None) -> Intensities:
    """The intensities of a slice.

    Args:
        stored: (H, W) stored values, or HU.
        scale: What stored values mean; None for HU.

    Returns:
        NaN where a value is no number. Of large slices the percentiles are those of every fourth
        pixel: they describe, nothing is computed from them.
    """
    ends = _hu(np.array([stored.min(), stored.max()]), scale)
    some = stored[::2, ::2] if stored.size > _LARGE else stored
    if scale is not None and not scale.slope > 0:  # the order of stored values is not that of HU
        some = scale.hu(some)
        scale = None
    least, greatest = float(ends.min()), float(ends.max())
    # As np.percentile has it, but among stored values; what lies beside each place alone is brought
    # to HU.
    places = [share * (some.size - 1) for share in _PERCENTILES]
    before = [int(place) for place in places]
    after = [min(place + 1, some.size - 1) for place in before]
    beside = _hu(_in_order(some, [*before, *after]), scale)
    below, above = beside[: len(places)], beside[len(places) :]
    steps, shares = above - below, np.subtract(places, before)
    between = np.where(shares < 0.5, below + steps * shares, above - steps * (1 - shares))
    low, middle, high = between.tolist()
    return Intensities(least, low, middle, high, greatest)


def _in_order(values: NDArray[Any], places: list[int]) -> NDArray[Any]:
    """The values that would stand at these places if all were sorted; NaN if any is."""
    if values.dtype.kind in "iu":
        flat, low = values.ravel().astype(np.int64), int(values.min())
        flat -= low
        if flat.max() < _COUNTED:  # much quicker than sorting
            return low + np.searchsorted(np.bincount(flat).cumsum(), places, side="right")
    flat = np.partition(values.ravel(), places)
    if flat.dtype.kind == "f" and np.isnan(flat.max()):
        return np.full(len(places), np.nan)
    found: NDArray[Any] = flat[places]
    return found


def _hu(values: NDArray[Any], scale: PictureScale | None) -> NDArray[np.float32]:
    return values.astype(np.float32) if scale is None else scale.hu(values)
