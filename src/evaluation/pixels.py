"""Probabilities and truth of a slice, checked, as pixels; and fine bins to count them in."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Probabilities of 0 are raised to this before a logarithm, so that one pixel of which a softmax has
# lost the last bit does not make a mean infinite. All else that float32 can hold stays as it is.
FLOOR = float(np.finfo(np.float32).tiny)
SUM_TOLERANCE = 1e-3  # how far the sum of a pixel's probabilities may be from 1

# So many pixels at a time: intermediates are small enough to be made without asking the system for
# memory each time, which took half of the time of a slice, and a volume needs no more than a slice.
_BLOCK = 1 << 17

# Fine bins are made of the bits of a float32: 24 octaves below 1 of 512 bins each. Below the lowest
# octave lies nothing but 0 in what is one minus a float32.
_STEPS = 9
_OCTAVES = 24
_LOWEST = (127 - _OCTAVES) << _STEPS
NUM_FINE = (_OCTAVES << _STEPS) + 2


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels in a row.

    Attributes:
        probabilities: (C, N) float32, one row a class.
        truth: (N,) class indices, intp.
    """

    probabilities: NDArray[np.float32]
    truth: NDArray[np.intp]

    def of_truth(self) -> NDArray[np.float32]:
        """Return the (N,) probabilities given to the true classes."""
        number = self.truth.size
        return self.probabilities.ravel().take(self.truth * number + np.arange(number))

    def most_probable(self) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Return the (N,) most probable classes, the first of equals, and their probabilities."""
        # Row by row: argmax and max over an axis of three are many times slower.
        labels = np.zeros(self.truth.size, np.intp)
        highest = self.probabilities[0].copy()
        for index, row in enumerate(self.probabilities[1:], start=1):
            np.copyto(labels, index, where=row > highest)
            np.maximum(highest, row, out=highest)
        return labels, highest


def pixel_blocks(
    probabilities: NDArray[np.floating[Any]],
    truth: NDArray[np.integer[Any]],
    region: NDArray[np.bool_] | None = None,
) -> Iterator[Pixels]:
    """Check the probabilities and the truth of a slice and lay their pixels in a row.

    Args:
        probabilities: (..., C) floats in 0 to 1 that sum to 1 over C >= 2, for example (H, W, C).
            Calculated with as float32; float16 has lost what lies below 6e-8.
        truth: (...) class indices in 0..C - 1.
        region: (...) bool, the pixels that are wanted; None for all.

    Yields:
        The pixels wanted, in the order of the arrays, at most 131072 at a time; nothing for none.

    Raises:
        ValueError: If the shapes do not fit, a label is out of range, or what is given are not
            probabilities.
        TypeError: If truth holds no integers, probabilities no floats, or region no booleans.
    """
    probabilities, truth = np.asarray(probabilities), np.asarray(truth)
    _check_shapes(probabilities, truth, region)
    flat, labels = probabilities.reshape(-1, probabilities.shape[-1]), truth.ravel()
    if region is not None:
        flat, labels = flat[region.ravel()], labels[region.ravel()]
    for start in range(0, labels.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        # One contiguous row a class: everything after this is several times as fast on it.
        planes = np.ascontiguousarray(flat[part].T, dtype=np.float32)
        _check_values(planes, labels[part])
        yield Pixels(planes, labels[part].astype(np.intp))


def fine_bins(values: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
    """Return the fine bin of each value: narrow in proportion to the value, finest beside 0.

    A bin is at most 1/512 as wide as its values are large, down to 2**-24, so that probabilities
    crowded within a millionth of 0 stay apart, which bins of one width would heap into one.

    Args:
        values: (N,) floats in 0 to 1, taken as float32.

    Returns:
        (N,) int32 in 0..NUM_FINE - 1, never falling where values rise: 0 below 2**-24. Bins are
        [l, u).
    """
    # The bits of a positive float, read as an integer, rise with it: the exponent comes first.
    bits = np.ascontiguousarray(values, np.float32).view(np.int32)
    return np.maximum((bits >> (23 - _STEPS)) - (_LOWEST - 1), 0)


def _check_shapes(
    probabilities: NDArray[Any], truth: NDArray[Any], region: NDArray[Any] | None
) -> None:
    """Refuse arrays whose shapes or types do not belong together."""
    if not np.issubdtype(probabilities.dtype, np.floating):
        raise TypeError(
            f"probabilities must be floats, got dtype {probabilities.dtype}. Pass the softmax of "
            "the network, not a mask."
        )
    if not np.issubdtype(truth.dtype, np.integer):
        raise TypeError(
            f"truth must hold integer class indices, got dtype {truth.dtype}. Convert a boolean "
            "mask with .astype('uint8')."
        )
    if probabilities.ndim < 1 or probabilities.shape[-1] < 2:
        raise ValueError(
            "probabilities must have one value a class on the last axis, background included, got "
            f"shape {probabilities.shape}. Stack (1 - p, p) for a single class."
        )
    if truth.shape != probabilities.shape[:-1]:
        raise ValueError(
            f"truth must have the shape {probabilities.shape[:-1]} of the probabilities, got "
            f"{truth.shape}. Bring the probabilities back to the size of the truth."
        )
    if region is not None and (region.dtype != np.bool_ or region.shape != truth.shape):
        kind = TypeError if region.dtype != np.bool_ else ValueError
        raise kind(
            f"region must be bool of shape {truth.shape}, got {region.dtype} of shape "
            f"{region.shape}. Make it of this truth, for example with boundary_ring."
        )


def _check_values(planes: NDArray[np.float32], labels: NDArray[np.integer[Any]]) -> None:
    """Refuse labels that are no classes and numbers that are no probabilities."""
    num_classes = len(planes)
    if labels.min() < 0 or labels.max() >= num_classes:
        outside = np.unique(labels[(labels < 0) | (labels >= num_classes)])
        raise ValueError(
            f"truth must hold labels 0..{num_classes - 1}, got also {outside[:8].tolist()}. "
            "Map the values of the mask files to classes with labels: in params.yaml."
        )
    low, high = float(planes.min()), float(planes.max())
    sums = planes.sum(axis=0)
    furthest = float(np.abs(sums - 1).max())
    # Written so that NaN fails.
    if not (low >= 0 and high <= 1 + SUM_TOLERANCE and furthest <= SUM_TOLERANCE):
        raise ValueError(
            "probabilities must lie in 0 to 1 and sum to 1 over the classes, got values from "
            f"{low:g} to {high:g} with sums up to {furthest:g} from 1. Pass the softmax of the "
            "network, not its logits."
        )
