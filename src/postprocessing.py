"""Cleaning of predicted masks: largest component and filled holes, where validation gains by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.evaluation.overlap import Counts, count, overlap

Steps = tuple[bool, bool]
"""Whether the largest component alone is kept, and whether holes are filled."""

PLAIN: Steps = (False, False)
# In the order of preference where they do equally well: the fewest steps first.
VARIANTS: tuple[Steps, ...] = (PLAIN, (True, False), (False, True), (True, True))

Scans = Iterable[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]
"""Patient, truth and prediction of each scan."""


@dataclass(frozen=True)
class Postprocessing:
    """Which step is taken for which class; none by default.

    Attributes:
        largest_component: Classes of which only the largest connected part is kept.
        filled_holes: Classes whose holes are filled, after that.
    """

    largest_component: tuple[int, ...] = ()
    filled_holes: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.largest_component or self.filled_holes)


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen on the validation patients, and why.

    Attributes:
        postprocessing: The steps.
        dice: Each of `VARIANTS` -> mean over patients of the Dice of each class, (C,) float64; NaN
            where a class is not scored in any patient.
    """

    postprocessing: Postprocessing
    dice: dict[Steps, NDArray[np.float64]]


def postprocess(mask: NDArray[np.uint8], steps: Postprocessing) -> NDArray[np.uint8]:
    """Clean a mask of class indices.

    Each class is cleaned as it was predicted, whatever is done to the others: what is taken off a
    class becomes background, and a hole is filled where it was background.

    Args:
        mask: (H, W), or (D, H, W): the slices of one scan.
        steps: What to do.

    Returns:
        A mask of the same shape; the argument itself where there is nothing to do.
    """
    if not steps:
        return mask
    result = mask.copy()
    for index in sorted({*steps.largest_component, *steps.filled_holes}):
        box = _box(mask == index)
        if box is None:
            continue
        predicted = mask[box]
        region = kept = predicted == index
        if index in steps.largest_component:
            kept = largest_component(region)
            result[box][region & ~kept] = 0
        if index in steps.filled_holes:
            from scipy import ndimage

            holes = ndimage.binary_fill_holes(kept) & (predicted == 0)
            result[box][holes & (result[box] == 0)] = index
    return result


def largest_component(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected part with most pixels; parts that touch at a corner are one.

    Args:
        region: (H, W) or (D, H, W) bool.

    Returns:
        A region of the same shape; of parts of one size, the first; empty if `region` is.
    """
    from scipy import ndimage

    around = ndimage.generate_binary_structure(region.ndim, region.ndim)
    labels, number = ndimage.label(region, structure=around)
    if number < 2:
        return region
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def choose(scans: Scans, num_classes: int) -> Choice:
    """Choose the steps of each class by its mean Dice over the validation patients.

    Of nothing, one step or both, a class gets what scores highest; of what scores the same, the
    fewest steps. So a step is taken only where it raises the score.

    Args:
        scans: Read once, one after the other: masks (H, W) or (D, H, W) as the network predicts
            them. A patient may have several scans.
        num_classes: C, background included.

    Returns:
        The choice; no steps where there are no scans.
    """
    classes = tuple(range(1, num_classes))
    dice = _dice(scans, num_classes, VARIANTS)
    # NaN, of a class that no patient has, is the same for every variant: 0 does as well.
    table = np.nan_to_num([dice[variant] for variant in VARIANTS])
    best = [VARIANTS[place] for place in table.argmax(axis=0)]
    return Choice(
        Postprocessing(
            largest_component=tuple(index for index in classes if best[index][0]),
            filled_holes=tuple(index for index in classes if best[index][1]),
        ),
        dice,
    )


def plain_dice(scans: Scans, num_classes: int) -> NDArray[np.float64]:
    """(C,) mean over patients of the Dice of each class, masks as they are; NaN if none has it.

    Args:
        scans: As in `choose`.
        num_classes: C, background included.
    """
    return _dice(scans, num_classes, [PLAIN])[PLAIN]


def majority(choices: Sequence[Postprocessing]) -> Postprocessing:
    """The steps that more than half of several models chose, class by class.

    Args:
        choices: One of each model.

    Returns:
        The steps; none where there is no choice.
    """

    def chosen(step: str) -> tuple[int, ...]:
        votes = Counter(index for choice in choices for index in getattr(choice, step))
        return tuple(sorted(index for index, number in votes.items() if 2 * number > len(choices)))

    return Postprocessing(chosen("largest_component"), chosen("filled_holes"))


def _dice(
    scans: Scans, num_classes: int, variants: Sequence[Steps]
) -> dict[Steps, NDArray[np.float64]]:
    """Each variant, for all classes alike -> (C,) Dice, as in `Choice`."""
    classes = tuple(range(1, num_classes))
    counts: dict[Steps, dict[str, Counts]] = {variant: {} for variant in variants}
    for patient, truth, prediction in scans:
        for (largest, filled), patients in counts.items():
            steps = Postprocessing(classes if largest else (), classes if filled else ())
            found = count(truth, postprocess(prediction, steps), num_classes)
            patients[patient] = found + patients[patient] if patient in patients else found
    return {variant: _mean_dice(patients, num_classes) for variant, patients in counts.items()}


def _mean_dice(patients: dict[str, Counts], num_classes: int) -> NDArray[np.float64]:
    """(C,) mean over the patients where a class is scored; NaN where it is in none."""
    scores = np.array([overlap(counts).dice for counts in patients.values()])
    scores = scores.reshape(len(patients), num_classes)
    scored = np.count_nonzero(~np.isnan(scores), axis=0)
    return np.where(scored, np.nansum(scores, axis=0) / np.maximum(scored, 1), np.nan)


def _box(region: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box that holds a region; None where it is empty."""
    box = []
    for axis in range(region.ndim):
        others = tuple(other for other in range(region.ndim) if other != axis)
        places = np.flatnonzero(region.any(axis=others))
        if not places.size:
            return None
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)
