"""Which slices, or which patches of them, an epoch shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.arrays import Arrays
from src.data.augmentation import View, whole

# Keeps the random numbers of the plan of an epoch apart from those of its cases.
_FOREGROUND_DRAW = 1


@dataclass(frozen=True)
class Sampling:
    """How the cases of an epoch are drawn.

    Attributes:
        patch_size: (height, width) of the patches, at the resolution of the prepared slices; None
            for whole slices.
        foreground: Share of the cases that are drawn to hold foreground, 0 to 1. They are spread
            evenly, so that each batch has its share of them.
        cases_per_epoch: Number of cases; None for as many as there are slices.

    Raises:
        ValueError: A value is out of its range.
    """

    patch_size: tuple[int, int] | None
    foreground: float
    cases_per_epoch: int | None

    def __post_init__(self) -> None:
        if not 0 <= self.foreground <= 1:
            raise ValueError(
                f"foreground must be from 0 to 1, got {self.foreground}. Mend "
                "train.sampling.foreground in params.yaml."
            )
        if self.cases_per_epoch is not None and self.cases_per_epoch < 1:
            raise ValueError(
                f"cases_per_epoch must be at least 1, got {self.cases_per_epoch}. Mend "
                "train.sampling.cases_per_epoch in params.yaml, or set it to null."
            )
        if self.patch_size is not None and min(self.patch_size) < 1:
            raise ValueError(
                f"patch_size must be at least 1 x 1, got {list(self.patch_size)}. Mend "
                "train.sampling.patch_size in params.yaml."
            )


@dataclass(frozen=True, eq=False)
class Plan:
    """The cases of one epoch, in order.

    Attributes:
        rows: (M,) int64, the slice of each case, a row of the arrays.
        classes: (M,) int64, the foreground class that a patch is placed on; 0 where it may lie
            anywhere.
    """

    rows: NDArray[np.int64]
    classes: NDArray[np.int64]


def classes_held(arrays: Arrays, rows: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Which classes each slice holds; reads every mask once.

    Args:
        arrays: The prepared slices.
        rows: (M,), some of them.

    Returns:
        (M, classes) bool.
    """
    number = len(arrays.classes)
    counts = [np.bincount(arrays.slice(int(row))[1].ravel(), minlength=number) for row in rows]
    return np.array(counts, np.int64).reshape(len(rows), number) > 0


def plan_epoch(
    rows: NDArray[np.integer[Any]],
    held: NDArray[np.bool_],
    sampling: Sampling,
    *,
    seed: int,
    epoch: int,
) -> Plan:
    """Draw the cases of one epoch.

    A foreground case takes its class first, all classes in turn, then one of the slices that hold
    it: a rare class is shown as often as a common one. Other cases take any slice. Of either kind
    no slice comes again before all others have come; with no foreground and no number of cases,
    every slice comes once.

    Args:
        rows: (N,), the slices of the training side, at least one.
        held: (N, classes) bool, which classes they hold, background first; what
            `classes_held` returns. Not looked at where `sampling.foreground` is 0.
        sampling: How to draw.
        seed: Seed of the run, at least 0.
        epoch: Number of the epoch, at least 0.

    Returns:
        The cases, the same for the same seed and epoch.

    Raises:
        ValueError: There is no slice, or foreground is asked for where there is none.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if not rows.size:
        raise ValueError("there must be at least one training slice, got none. Look at the split.")
    number = sampling.cases_per_epoch or len(rows)
    # Case n is a foreground case where n x share passes a whole number.
    passed = np.floor(np.arange(number + 1) * sampling.foreground + 1e-9)
    wants_foreground = np.diff(passed) > 0
    chosen = np.empty(number, np.int64)
    classes = np.zeros(number, np.int64)
    anywhere = ~wants_foreground
    random = np.random.default_rng((seed, epoch))
    chosen[anywhere] = _in_rounds(rows, int(anywhere.sum()), random)
    if wants_foreground.any():
        random = np.random.default_rng((seed, epoch, _FOREGROUND_DRAW))
        shown = np.flatnonzero(held[:, 1:].any(axis=0)) + 1
        if not shown.size:
            raise ValueError(
                "no training slice holds foreground, but train.sampling.foreground is "
                f"{sampling.foreground}. Set it to 0, or look at data.labels and the masks."
            )
        classes[wants_foreground] = _in_rounds(shown, int(wants_foreground.sum()), random)
        for name in shown:
            places = classes == name
            chosen[places] = _in_rounds(rows[held[:, name]], int(places.sum()), random)
    return Plan(chosen, classes)


def _in_rounds(
    values: NDArray[np.integer[Any]], number: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """So many of the values at random, none again before all others were drawn."""
    rounds = [
        random.permutation(values.astype(np.int64)) for _ in range(math.ceil(number / len(values)))
    ]
    return np.concatenate([*rounds, np.empty(0, np.int64)])[:number]


def place_view(
    mask: NDArray[np.uint8],
    wanted: int,
    patch_size: tuple[int, int] | None,
    random: np.random.Generator,
) -> View:
    """Choose what part of a slice a case shows.

    A patch lies inside the slice; one that is larger has the slice in its middle. A patch of a
    foreground case has a random pixel of the class in its central half, or nearer to its edge
    where the slice ends, and that pixel is the anchor: turned or scaled, the patch still shows it.

    Args:
        mask: (H, W), class indices; read only for a foreground case.
        wanted: The class to place a patch on; 0 for none, and where the mask has none of it.
        patch_size: (height, width); None for the whole slice.
        random: Where the numbers come from.

    Returns:
        The view.
    """
    if patch_size is None:
        return whole(*mask.shape)
    share, down, right = random.random(3)
    height, width = patch_size
    pixels = np.flatnonzero(mask == wanted) if wanted else np.empty(0, np.int64)
    if not pixels.size:
        top, left = (
            _inside(math.floor(number * (length - side + 1)), length, side)
            for number, length, side in zip((down, right), mask.shape, patch_size, strict=True)
        )
        return View(top, left, height, width, ((height - 1) / 2, (width - 1) / 2))
    y, x = divmod(int(pixels[math.floor(share * len(pixels))]), mask.shape[1])
    top = _inside(y - math.floor((0.25 + 0.5 * down) * height), mask.shape[0], height)
    left = _inside(x - math.floor((0.25 + 0.5 * right) * width), mask.shape[1], width)
    return View(top, left, height, width, (y - top, x - left))


def _inside(start: int, length: int, side: int) -> int:
    """The start of a patch moved so that it lies in the slice, or around all of it."""
    if side >= length:
        return -((side - length) // 2)
    return min(max(start, 0), length - side)
