"""A network on pictures of any size, by overlapping patches; on any network, NumPy in and out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""A network: (B, H, W, channels) float32 -> probabilities (B, H, W, C) float32."""


@dataclass(frozen=True)
class Tiling:
    """How a picture is covered with patches.

    Attributes:
        patch_size: (height, width) of the patches: those of training.
        overlap: Least share of its side that a patch has in common with the next, 0 to below 1; the
            next begins a pixel further at least.

    Raises:
        ValueError: A value is out of its range.
    """

    patch_size: tuple[int, int]
    overlap: float

    def __post_init__(self) -> None:
        if min(self.patch_size) < 1 or not 0 <= self.overlap < 1:
            raise ValueError(
                "patches must be at least 1 x 1 and overlap by 0 to below 1, got "
                f"{list(self.patch_size)} and {self.overlap}. Mend train.sampling.patch_size or "
                "inference.overlap in params.yaml."
            )


def starts(length: int, side: int, overlap: float) -> list[int]:
    """Where the patches begin along one axis, evenly spread from the first pixel to the last.

    Args:
        length: Of the picture, at least `side`.
        side: Of a patch.
        overlap: Least share of `side` that neighbours share; they begin a pixel apart at least.

    Returns:
        Whole numbers, rising, from 0 to length - side.
    """
    # A whole number, for the places are rounded: 4.8 pixels would now and then become 5. What 1 -
    # 0.9 lacks to a tenth must not cost a pixel.
    step = max(math.floor(side * (1 - overlap) + 1e-9), 1)
    number = math.ceil((length - side) / step) + 1
    return np.unique(np.linspace(0, length - side, number).round().astype(int)).tolist()


def importance(patch_size: tuple[int, int]) -> NDArray[np.float32]:
    """The weight of each pixel of a patch: a Gaussian with a deviation of an eighth of the sides.

    A pixel near the edge of a patch is seen with less of what is around it, and counts for less.

    Args:
        patch_size: (height, width).

    Returns:
        (height, width) float32, above 0, 1 in the middle of a patch of odd sides.

    Source: Isensee et al. 2021, nnU-Net, Nature Methods 18, supplementary note 4 (inference).
    """
    height, width = (
        np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (side / 8)) ** 2) for side in patch_size
    )
    return np.outer(height, width).astype(np.float32)


def sliding_window(
    forward: Forward,
    picture: NDArray[np.float32],
    tiling: Tiling,
    *,
    batch_size: int,
    pad_value: float,
) -> NDArray[np.float32]:
    """Run a network over overlapping patches and average what it says, weighted by `importance`.

    A picture that is smaller than a patch is padded on all sides, and cropped again.

    Args:
        forward: The network.
        picture: (H, W, channels) float32, normalised.
        tiling: Size and overlap of the patches.
        batch_size: Patches that go through the network together.
        pad_value: The normalised value of air.

    Returns:
        (H, W, C) float32 probabilities.
    """
    height, width = picture.shape[:2]
    above, left = (
        max(side - length, 0) // 2
        for side, length in zip(tiling.patch_size, (height, width), strict=True)
    )
    rows, columns = tiling.patch_size
    padded = np.pad(
        picture,
        (
            (above, max(rows - height, 0) - above),
            (left, max(columns - width, 0) - left),
            (0, 0),
        ),
        constant_values=pad_value,
    )
    corners = list(
        product(
            starts(padded.shape[0], rows, tiling.overlap),
            starts(padded.shape[1], columns, tiling.overlap),
        )
    )
    weight = importance(tiling.patch_size)[..., None]
    weights = np.zeros((*padded.shape[:2], 1), np.float32)
    total: NDArray[np.float32] | None = None
    for first in range(0, len(corners), batch_size):
        part = corners[first : first + batch_size]
        patches = np.stack([padded[y : y + rows, x : x + columns] for y, x in part])
        for (y, x), output in zip(part, forward(patches), strict=True):
            if total is None:
                # In the order in memory of what the network gives: two orders are slow to add.
                total = np.zeros_like(output, shape=(*padded.shape[:2], output.shape[-1]))
            total[y : y + rows, x : x + columns] += weight * output
            weights[y : y + rows, x : x + columns] += weight
    assert total is not None  # there is at least one patch
    total /= weights
    return total[above : above + height, left : left + width]


def mean_over_flips(forward: Forward) -> Forward:
    """The network that averages what it says of a picture as it is, mirrored, and turned over.

    Args:
        forward: The network.

    Returns:
        A network of four times the cost: of the picture itself, with left and right exchanged,
        with top and bottom exchanged, and both; each mirrored back.
    """

    def flipped(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        total = forward(batch).astype(np.float32, copy=True)
        for axes in ((2,), (1,), (1, 2)):
            total += np.flip(forward(np.ascontiguousarray(np.flip(batch, axes))), axes)
        return total / np.float32(4)

    return flipped
