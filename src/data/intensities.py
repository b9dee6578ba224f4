"""The range of HU of a slice in five numbers."""

from __future__ import annotations

from functools import lru_cache
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
        NaN where a value is no number; where one is infinite the percentiles are. Of large slices
        the percentiles are those of every fourth pixel: they describe, nothing is computed from
        them.
    """
    low, high = stored.min(), stored.max()
    outer = _hu(np.array([low, high]), scale)
    some = stored[::2, ::2] if stored.size > _LARGE else stored
    if scale is not None and not scale.slope > 0:  # the order of stored values is not that of HU
        some = scale.hu(some)
        low, high, scale = some.min(), some.max(), None
    least, greatest = sorted(outer.tolist())
    if not np.isfinite(outer).all():
        return Intensities(least, np.nan, np.nan, np.nan, greatest)
    # As np.percentile has it, but among stored values; what lies beside each place alone is brought
    # to HU.
    places, shares = _places(some.size)
    below, above = _hu(_in_order(some, places, (low, high)), scale).reshape(2, -1)
    steps = above - below
    between = np.where(shares < 0.5, below + steps * shares, above - steps * (1 - shares))
    percentile_1, middle, percentile_99 = between.tolist()
    return Intensities(least, percentile_1, middle, percentile_99, greatest)


@lru_cache
def _places(size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of so many sorted values those before and after each percentile, and its share of the way."""
    exact = np.array([share * (size - 1) for share in _PERCENTILES])
    before = exact.astype(np.int64)
    after = np.minimum(before + 1, size - 1)
    return np.concatenate([before, after]), exact - before


def _in_order(
    values: NDArray[Any], places: NDArray[np.int64], ends: tuple[Any, Any]
) -> NDArray[Any]:
    """The values, between two ends, that would stand at these places if all were sorted.

    NaN if any value is.
    """
    flat = values.ravel()
    if flat.dtype.kind in "iu":
        low, high = map(int, ends)
        if low >= 0 and high < _COUNTED:  # to count is much quicker than to sort
            return np.bincount(flat).cumsum().searchsorted(places, side="right")
        if high - low < _COUNTED:
            counts = np.bincount(flat.astype(np.int64) - low)
            return low + counts.cumsum().searchsorted(places, side="right")
    flat = np.partition(flat, places)
    if flat.dtype.kind == "f" and np.isnan(flat.max()):
        return np.full(len(places), np.nan)
    found: NDArray[Any] = flat[places]
    return found


def _hu(values: NDArray[Any], scale: PictureScale | None) -> NDArray[np.float32]:
    return values.astype(np.float32) if scale is None else scale.hu(values)
