"""What went wrong in a case, in words, and how the score depends on the size of what was sought."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.evaluation.overlap import count
from src.evaluation.statistics import Interval, bootstrap_interval

MISSED = "missed"
HALLUCINATED = "hallucinated"
UNDER_SEGMENTED = "under-segmented"
OVER_SEGMENTED = "over-segmented"
FRAGMENTED = "fragmented"
TINY = "tiny"
AT_BORDER = "at border"

FAILURES = (MISSED, HALLUCINATED, UNDER_SEGMENTED, OVER_SEGMENTED, FRAGMENTED)
CIRCUMSTANCES = (TINY, AT_BORDER)  # no failures, but what makes one likely
TAGS = FAILURES + CIRCUMSTANCES

# A disc of 10 mm: the longest diameter from which RECIST 1.1 calls a lesion in CT measurable.
TINY_MM2 = math.pi * 5.0**2
# An area this many times too large or too small alone limits Dice to 2 / (1 + 1.5) = 0.8, even
# where the smaller lies wholly within the larger.
AREA_RATIO = 1.5

ABSENT = "absent from the truth"


@dataclass(frozen=True)
class Stratum:
    """The Dice of some of the cases.

    Attributes:
        name: Of the stratum, for people.
        low_mm2: Smallest area that belongs to it (of the first) or that does not (of the others);
            NaN where it is not one of areas.
        high_mm2: Largest area that belongs to it; NaN likewise.
        num_cases: Cases that are scored.
        dice: Mean over patients of the mean over their cases, with its bootstrap interval.
    """

    name: str
    low_mm2: float
    high_mm2: float
    num_cases: int
    dice: Interval


def failure_tags(
    truth: NDArray[np.integer[Any]],
    prediction: NDArray[np.integer[Any]],
    num_classes: int,
    spacing_mm: tuple[float, float],
    *,
    tiny_mm2: float = TINY_MM2,
    area_ratio: float = AREA_RATIO,
) -> dict[int, tuple[str, ...]]:
    """Say of a slice, class by class, what is wrong with the prediction and what made it hard.

    - missed: the truth holds the class, and the prediction nothing that overlaps it.
    - hallucinated: the prediction holds the class, and the truth does not.
    - under-segmented, over-segmented: they overlap, and the predicted area is less than the true
      one over `area_ratio`, or more than the true one times it.
    - fragmented: they overlap, and the prediction is in more connected parts than the truth; parts
      that touch at a corner are one. A speck is a part, for the surface distances suffer from it
      as from a large one, and keeping the largest component mends both.
    - tiny: the area in the truth, or where there is none that in the prediction, is below
      `tiny_mm2`.
    - at border: truth or prediction reaches the edge of the picture.

    Args:
        truth: (H, W) class indices in 0..C - 1.
        prediction: (H, W) class indices in 0..C - 1.
        num_classes: C, background included.
        spacing_mm: Distance of pixel centres (y, x) in mm.
        tiny_mm2: Area below which a class is tiny.
        area_ratio: How many times too large or too small an area may be, above 1.

    Returns:
        Each foreground class -> its tags in the order of `TAGS`; none for a class that is in
        neither, or that is neither wrong nor hard.

    Raises:
        ValueError: If the shapes differ or are not (H, W), a label is out of range, or a limit or
            a spacing is not a number that makes sense.
        TypeError: If an array does not hold integers.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    counts = count(truth, prediction, num_classes)
    if truth.ndim != 2:
        raise ValueError(f"expected a slice (H, W), got shape {truth.shape}. Pass one at a time.")
    if not (min(spacing_mm) > 0 and tiny_mm2 >= 0 and area_ratio > 1):
        raise ValueError(
            "spacing_mm must be positive, tiny_mm2 not negative and area_ratio above 1, got "
            f"{spacing_mm}, {tiny_mm2} and {area_ratio}."
        )
    pixel_mm2 = spacing_mm[0] * spacing_mm[1]
    tags: dict[int, tuple[str, ...]] = {}
    for index in range(1, num_classes):
        shared = int(counts.true_positives[index])
        actual = shared + int(counts.false_negatives[index])
        predicted = shared + int(counts.false_positives[index])
        if not actual and not predicted:
            tags[index] = ()
            continue
        true_region, predicted_region = truth == index, prediction == index
        applies = {
            MISSED: actual > 0 and shared == 0,
            HALLUCINATED: actual == 0,
            UNDER_SEGMENTED: shared > 0 and predicted * area_ratio < actual,
            OVER_SEGMENTED: shared > 0 and predicted > actual * area_ratio,
            FRAGMENTED: shared > 0 and _parts(predicted_region) > _parts(true_region),
            TINY: (actual or predicted) * pixel_mm2 < tiny_mm2,
            AT_BORDER: _at_border(true_region | predicted_region),
        }
        tags[index] = tuple(tag for tag in TAGS if applies[tag])
    return tags


def dice_by_size(
    areas_mm2: ArrayLike,
    dice: ArrayLike,
    patients: Sequence[str],
    *,
    seed: int,
    num_bins: int = 4,
    resamples: int = 10_000,
) -> list[Stratum]:
    """Average Dice over cases of like size: a mean hides that small lesions do worse.

    The bins hold about equally many of the scored cases, from the smallest; each is (low, high],
    the smallest area in the first. Cases of one area are never torn apart, so where many are equal
    there are fewer bins. Cases without the class in the truth have no size: they are a stratum of
    their own, the first, of false positives (Dice 0).

    Args:
        areas_mm2: (N,) area of the class in the truth of each case, slice or patient, from 0 up.
        dice: (N,) Dice of the class in each; NaN where it is not scored, which is left out.
        patients: (N,) whose case it is. Cases of one patient are averaged first and are resampled
            together: they are not independent.
        seed: Of the bootstrap.
        num_bins: At most how many bins.
        resamples: Number of bootstrap resamples.

    Returns:
        The strata from small to large; none where no case is scored.

    Raises:
        ValueError: If the lengths differ, an area is negative or no number, or num_bins is below 1.
    """
    areas = np.asarray(areas_mm2, dtype=np.float64)
    if not (np.isfinite(areas) & (areas >= 0)).all():
        raise ValueError("areas_mm2 must be numbers from 0 up, got others. Give 0 where absent.")
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}. Pass 4.")
    scores = _checked(dice, patients, areas)
    scored = ~np.isnan(scores)
    sized = areas[scored & (areas > 0)]
    bins = [(ABSENT, 0.0, 0.0, areas == 0)]
    if sized.size:
        # Edges are areas that occur, so that an area beside an edge is not a matter of rounding.
        shares = np.arange(1, num_bins + 1) / num_bins
        below = 0.0
        for high in np.unique(np.quantile(sized, shares, method="inverted_cdf")).tolist():
            low = below or float(sized.min())
            inside = (areas > below) & (areas <= high)
            bins.append((f"{_mm2(low)} to {_mm2(high)} mm²", low, high, inside))
            below = high
    return [
        _stratum(name, low, high, scores, inside & scored, patients, seed, resamples)
        for name, low, high, inside in bins
        if (inside & scored).any()
    ]


def dice_by_source(
    sources: Sequence[str],
    dice: ArrayLike,
    patients: Sequence[str],
    *,
    seed: int,
    resamples: int = 10_000,
) -> list[Stratum]:
    """Average Dice over the cases of each source, scanner or site.

    Args:
        sources: (N,) of each case.
        dice: (N,) Dice of a class in each; NaN where it is not scored, which is left out.
        patients: (N,) whose case it is; see `dice_by_size`.
        seed: Of the bootstrap.
        resamples: Number of bootstrap resamples.

    Returns:
        A stratum for each source with a scored case, in the order of their names.

    Raises:
        ValueError: If the lengths differ.
    """
    names = np.asarray(sources, dtype=object)
    scores = _checked(dice, patients, names)
    scored = ~np.isnan(scores)
    return [
        _stratum(
            name, math.nan, math.nan, scores, scored & (names == name), patients, seed, resamples
        )
        for name in sorted(set(sources))
        if (scored & (names == name)).any()
    ]


def _mm2(area: float) -> str:
    return f"{area:.0f}" if area >= 100 else f"{area:.3g}"


def _checked(dice: ArrayLike, patients: Sequence[str], others: NDArray[Any]) -> NDArray[np.float64]:
    """Return the Dice of the cases; refuse lengths that do not belong together."""
    scores = np.asarray(dice, dtype=np.float64)
    if scores.ndim != 1 or not scores.shape == others.shape == (len(patients),):
        raise ValueError(
            "expected one Dice, one patient and one area or source a case, got shapes "
            f"{scores.shape}, {(len(patients),)} and {others.shape}."
        )
    return scores


def _stratum(
    name: str,
    low: float,
    high: float,
    scores: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    patients: Sequence[str],
    seed: int,
    resamples: int,
) -> Stratum:
    """Average the chosen cases, all scored, over patients."""
    _, whose = np.unique(np.asarray(patients, dtype=str)[chosen], return_inverse=True)
    means = np.bincount(whose, weights=scores[chosen]) / np.bincount(whose)
    interval = bootstrap_interval(means, seed=seed, resamples=resamples)
    return Stratum(name, low, high, int(chosen.sum()), interval)


def _parts(region: NDArray[np.bool_]) -> int:
    """Return the number of connected parts; parts that touch at a corner are one."""
    import cv2

    number, _ = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    return int(number) - 1  # without the background


def _at_border(region: NDArray[np.bool_]) -> bool:
    """Return whether a region reaches the edge of the picture."""
    return bool(region[[0, -1]].any() or region[:, [0, -1]].any())
