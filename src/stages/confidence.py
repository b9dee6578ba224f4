"""How far the probabilities of a model can be trusted: calibration, and what its doubt is worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from src.evaluation.calibration import (
    CalibrationCounts,
    boundary_ring,
    calibration,
    count_calibration,
    reliability,
)
from src.evaluation.uncertainty import (
    CaseUncertainty,
    case_uncertainty,
    correlation,
    pairwise_disagreement,
    risk_coverage,
)
from src.inference import Segmenter
from src.scoring import json_number

REGIONS = ("all_pixels", "boundary")
STATES = ("before", "after")  # temperature scaling

Item = TypeVar("Item")


class CalibrationTally:
    """The calibration of the slices of one side, before and after temperature scaling."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], CalibrationCounts] = {}

    def add(
        self,
        before: NDArray[np.float32],
        after: NDArray[np.float32],
        truth: NDArray[np.uint8],
        spacing_mm: tuple[float, float],
    ) -> None:
        """Counts a slice.

        Args:
            before: (H, W, C) probabilities as the network gives them.
            after: (H, W, C) the same at the model's temperature.
            truth: (H, W) class indices.
            spacing_mm: (y, x) of its pixels.
        """
        ring = boundary_ring(truth, before.argmax(axis=-1).astype(np.uint8), spacing_mm)
        for state, probabilities in zip(STATES, (before, after), strict=True):
            for region, where in zip(REGIONS, (None, ring), strict=True):
                counted = count_calibration(probabilities, truth, where)
                key = (region, state)
                self._counts[key] = self._counts[key] + counted if key in self._counts else counted

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Region -> "before" and "after" -> numbers and bins, ready for JSON; NaN becomes None."""
        content: dict[str, dict[str, Any]] = {region: {} for region in REGIONS}
        for (region, state), counts in self._counts.items():
            numbers = asdict(calibration(counts))
            table = reliability(counts)
            names = ("lower", "upper", "count", "confidence", "accuracy")
            columns = [getattr(table, name).tolist() for name in names]
            content[region][state] = {
                **{name: json_number(numbers[name]) for name in ("ece", "ace", "brier", "nll")},
                "class_ece": [json_number(value) for value in numbers["class_ece"]],
                "num_pixels": numbers["num_pixels"],
                "bins": [
                    {
                        "low": low, "high": high, "count": count,
                        "confidence": json_number(mean), "accuracy": json_number(share),
                    }
                    for low, high, count, mean, share in zip(*columns, strict=True)
                ],
            }  # fmt: skip
        return content


@dataclass
class Doubt:
    """The uncertainty of cases by one way of asking the model, and what asking costs.

    Attributes:
        runs: How often the network looks at a slice.
        cases: Case id -> uncertainty, summed over its pixels.
        seconds: Of prediction alone.
    """

    runs: int
    cases: dict[str, CaseUncertainty] = field(default_factory=dict)
    seconds: float = 0.0

    def timed(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the time that each took to be made is added to `seconds`."""
        each = iter(items)
        while True:
            started = time.perf_counter()
            try:
                item = next(each)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - started
            yield item

    def of_cases(self, cases: Sequence[str]) -> NDArray[np.float64]:
        """Mean normalised entropy of each case, 0 to 1."""
        return np.array([self.cases[case].mean for case in cases])

    def of_patients(self, cases: Sequence[str], patients: Sequence[str]) -> dict[str, float]:
        """Mean normalised entropy over the slices of each patient together, 0 to 1."""
        sums: dict[str, CaseUncertainty] = {}
        for case, patient in zip(cases, patients, strict=True):
            found = self.cases[case]
            sums[patient] = sums[patient] + found if patient in sums else found
        return {patient: total.mean for patient, total in sums.items()}


def of_class(probabilities: NDArray[np.float32], index: int) -> CaseUncertainty:
    """How unsure a model is of one class against all others in a slice.

    Of all classes together it would tell most of the largest of them, and next to nothing of the
    error in a small one.

    Args:
        probabilities: (H, W, C).
        index: Of the class.

    Returns:
        The entropy summed over the pixels where the class has a probability of 0.1 or more.
    """
    of_it = probabilities[..., index]
    return case_uncertainty(np.stack([1 - of_it, of_it], axis=-1))


Look = Callable[
    [Sequence[NDArray[Any]], Sequence[tuple[float, float]]],
    Iterator[tuple[int, NDArray[np.float32]]],
]
"""The slices of a scan and their spacings -> number and probabilities of each, in any order."""


def looks_with_dropout(segmenter: Segmenter, runs: int, *, seed: int) -> list[Look]:
    """So many looks at a scan with dropout at work; none where the model has no dropout."""
    sampled = segmenter.with_dropout(seed=seed) if runs else None
    return [] if sampled is None else [sampled.each] * runs


def looks_at_flips(segmenter: Segmenter) -> list[Look]:
    """Looks at a scan as it is, mirrored, turned over, and both."""
    plain = segmenter.changed(flips=False)

    def flipped(axes: tuple[int, ...]) -> Look:
        def look(
            images: Sequence[NDArray[Any]], spacings: Sequence[tuple[float, float]]
        ) -> Iterator[tuple[int, NDArray[np.float32]]]:
            turned = [np.flip(image, axes) for image in images]
            for number, probability in plain.each(turned, spacings):
                yield number, np.flip(probability, axes)

        return look

    return [flipped(axes) for axes in ((), (1,), (0,), (0, 1))]


def side_by_side(
    looks: Sequence[Look],
    images: Sequence[NDArray[Any]],
    spacings: Sequence[tuple[float, float]],
) -> Iterator[tuple[int, list[NDArray[np.float32]]]]:
    """What all looks say of a slice, slice by slice: no more than a batch of each is held."""
    for step in zip(*(look(images, spacings) for look in looks), strict=True):
        (number,) = {number for number, _ in step}
        yield number, [probability for _, probability in step]


def doubt_of_looks(
    probabilities: Sequence[NDArray[np.float32]], index: int
) -> tuple[CaseUncertainty, CaseUncertainty]:
    """How unsure several looks at a slice are of one class.

    Args:
        probabilities: (H, W, C) of each look, two or more.
        index: Of the class.

    Returns:
        The entropy of their mean as in `of_class`, and 1 - mean Dice between the masks of each two
        of them: 0 where all say that there is none.
    """
    mean = np.mean(np.stack(probabilities), axis=0)
    masks = [(one.argmax(axis=-1) == index).astype(np.uint8) for one in probabilities]
    return of_class(mean, index), CaseUncertainty(pairwise_disagreement(masks, 2), 1)


def worth(doubts: Mapping[str, Doubt], cases: Sequence[str], dice: NDArray[Any]) -> dict[str, Any]:
    """What uncertainty tells of the error, and what it costs.

    Args:
        doubts: Way of asking ("entropy", "dropout", "flips") -> what came of it.
        cases: Case ids.
        dice: (N,) of each, NaN where it is not scored; the error of a case is 1 - Dice.

    Returns:
        Way -> samples (how often the network looks at a slice), seconds_per_slice, cases,
        correlations, risk-coverage curve with its area beside the ideal and the random one, ready
        for JSON; NaN becomes None.
    """
    content = {}
    for way, doubt in doubts.items():
        scores, errors = doubt.of_cases(cases), 1.0 - np.asarray(dice, np.float64)
        together, curve = correlation(scores, errors), risk_coverage(scores, errors)
        content[way] = {
            "samples": doubt.runs,
            "seconds_per_slice": round(doubt.seconds / max(len(cases), 1), 5),
            "cases": together.n,
            "spearman": json_number(together.spearman),
            "pearson": json_number(together.pearson),
            "aurc": json_number(curve.aurc),
            "aurc_ideal": json_number(curve.ideal),
            "aurc_random": json_number(curve.random),
            "gain": json_number(curve.gain),
            "coverage": curve.coverage.round(6).tolist(),
            "risk": curve.risk.round(6).tolist(),
        }
    return content
