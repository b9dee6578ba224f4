"""Scores of boundaries by class: of a slice or a volume, of a patient, of a set of patients."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.evaluation.overlap import (
    MEAN_FOREGROUND,
    check_class_names,
    check_labels,
    mean_foreground,
    mean_scored,
)
from src.evaluation.statistics import Interval, bootstrap_interval
from src.evaluation.surface import assd_mm, hausdorff_mm, nsd, surface_distances

SURFACE_QUANTITIES = ("hd95_mm", "assd_mm", "nsd")


@dataclass(frozen=True, eq=False)
class SurfaceScores:
    """Scores by class of a slice or a volume, or their means over those of a patient.

    Class 0, the background, has no boundary of its own and is never scored.

    Attributes:
        hd95_mm: (C,) float64, 95th percentile of the Hausdorff distance in mm.
        assd_mm: (C,) float64, average symmetric surface distance in mm.
        nsd: (C,) float64 in [0, 1], normalised surface distance.
        num_scored: (C,) int64, slices (or volumes) with the class in truth or prediction. Where
            it is 0 the scores are NaN.
        num_one_empty: (C,) int64, of these, with the class in one of the two alone.
    """

    hd95_mm: NDArray[np.float64]
    assd_mm: NDArray[np.float64]
    nsd: NDArray[np.float64]
    num_scored: NDArray[np.int64]
    num_one_empty: NDArray[np.int64]


@dataclass(frozen=True)
class SurfaceScore:
    """One quantity of one class over a set of patients; NaN where it is never scored.

    Attributes:
        patients: Mean over patients with the 95 % bootstrap interval that resamples patients.
        slice_mean: Mean over the slices (or volumes) that are scored.
    """

    patients: Interval
    slice_mean: float


@dataclass(frozen=True)
class SurfaceSummary:
    """Scores of a set of patients by quantity and class, `mean_foreground` after the classes.

    Attributes:
        scores: Quantity (`hd95_mm`, `assd_mm`, `nsd`) -> class name -> score.
        num_scored: Class name -> how many slices (or volumes) are scored.
        num_one_empty: Class name -> how many of these have the class in truth or prediction alone.
    """

    scores: dict[str, dict[str, SurfaceScore]]
    num_scored: dict[str, int]
    num_one_empty: dict[str, int]

    def to_dict(self) -> dict[str, dict[str, float | int | None]]:
        """Return group -> class name -> number, ready for JSON; NaN becomes None.

        The groups of a quantity are `hd95_mm` (patient mean), `hd95_mm_low`, `hd95_mm_high` and
        `hd95_mm_slice_mean`; the tallies are `num_surface_cases` and `num_one_empty_cases`. No name
        is one of those in `overlap.Summary.to_dict`: the two dictionaries can be merged.
        """
        groups: dict[str, dict[str, float | int | None]] = {}
        for quantity, by_class in self.scores.items():
            for name, score in by_class.items():
                for group, value in (
                    (quantity, score.patients.mean),
                    (f"{quantity}_low", score.patients.low),
                    (f"{quantity}_high", score.patients.high),
                    (f"{quantity}_slice_mean", score.slice_mean),
                ):
                    groups.setdefault(group, {})[name] = None if math.isnan(value) else value
        groups["num_surface_cases"] = dict(self.num_scored)
        groups["num_one_empty_cases"] = dict(self.num_one_empty)
        return groups


def surface_scores(
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    num_classes: int,
    *,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> SurfaceScores:
    """Score the boundary of each foreground class of a slice or a volume.

    Args:
        truth: Integer class indices in 0..num_classes - 1, (H, W), or (D, H, W) for a volume.
        prediction: Integer class indices, shaped as `truth`.
        num_classes: Number of classes C, background included.
        spacing_mm: Spacing in mm, (y, x) or (z, y, x).
        tolerance_mm: Of the NSD, in mm.

    Returns:
        Scores of (C,); NaN for the background and for a class absent from truth and prediction.

    Raises:
        ValueError: If a label is out of range, or as `surface_distances` and `nsd` say.
        TypeError: If an array does not hold integers.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    check_labels("truth", truth, num_classes)
    check_labels("prediction", prediction, num_classes)
    rows = [(math.nan, math.nan, math.nan, 2)]  # the background
    for index in range(1, num_classes):
        found = surface_distances(truth == index, prediction == index, spacing_mm)
        rows.append(
            (hausdorff_mm(found), assd_mm(found), nsd(found, tolerance_mm), found.num_empty)
        )
    table = np.array(rows)
    num_empty = table[:, 3].astype(np.int64)
    return SurfaceScores(
        hd95_mm=table[:, 0],
        assd_mm=table[:, 1],
        nsd=table[:, 2],
        num_scored=(num_empty < 2).astype(np.int64),
        num_one_empty=(num_empty == 1).astype(np.int64),
    )


def patient_mean(cases: Sequence[SurfaceScores]) -> SurfaceScores:
    """Average the scores of a patient's slices, each class over the slices that are scored.

    Args:
        cases: Scores of the patient's slices, at least one, of the same classes. A volume is a
            single case.

    Returns:
        Mean scores of (C,), NaN where no slice is scored, and the tallies added up.

    Raises:
        ValueError: If there is no case, or if their numbers of classes differ.
    """
    sizes = {case.num_scored.size for case in cases}
    if len(sizes) != 1:
        raise ValueError(
            f"expected at least one case, all of the same classes, got {len(cases)} cases of "
            f"{sorted(sizes)} classes. Score all slices of a patient with the same num_classes."
        )
    num_scored = np.sum([case.num_scored for case in cases], axis=0)

    def mean(quantity: str) -> NDArray[np.float64]:
        scored = [np.nan_to_num(getattr(case, quantity)) * case.num_scored for case in cases]
        total = np.sum(scored, axis=0)
        return np.where(num_scored > 0, total / np.maximum(num_scored, 1), np.nan)

    return SurfaceScores(
        hd95_mm=mean("hd95_mm"),
        assd_mm=mean("assd_mm"),
        nsd=mean("nsd"),
        num_scored=num_scored,
        num_one_empty=np.sum([case.num_one_empty for case in cases], axis=0),
    )


def summarise_surfaces(
    per_patient: Mapping[str, Sequence[SurfaceScores]] | Iterable[Sequence[SurfaceScores]],
    *,
    class_names: Sequence[str],
    seed: int,
    resamples: int = 10_000,
) -> SurfaceSummary:
    """Average the scores over each patient's slices, then over patients (the headline).

    A slice with a class in truth or prediction alone weighs with the diagonal of its image, so a
    lesion that ends one slice early moves a patient's mean by many mm. Patients whose scans are
    volumes are better scored as such: one `surface_scores` of (D, H, W) a patient.

    Args:
        per_patient: One entry a patient, the scores of all its slices, or of its volume alone: a
            mapping whose keys are not looked at, or the entries alone. At least one.
        class_names: Names of the C classes, background first.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.

    Returns:
        The summary; a patient without a scored slice is left out of the mean. `mean_foreground`
        averages over the classes first, within a patient or a slice; a slice is counted in its
        tallies where any foreground class is.

    Raises:
        ValueError: If there is no patient, or a patient without a slice, or if the class names do
            not fit.
    """
    listed = list(per_patient.values() if isinstance(per_patient, Mapping) else per_patient)
    patients = [patient_mean(cases) for cases in listed]
    cases = [case for patient in listed for case in patient]
    if not patients:
        raise ValueError(
            "expected at least one patient to summarise, got 0. Check that the split is not empty."
        )
    for patient in patients:
        check_class_names(class_names, patient.num_scored.size)
    names = [*class_names, MEAN_FOREGROUND]
    scores: dict[str, dict[str, SurfaceScore]] = {}
    for quantity in SURFACE_QUANTITIES:
        patient_table, case_table = _table(patients, quantity), _table(cases, quantity)
        scores[quantity] = {
            name: SurfaceScore(
                patients=bootstrap_interval(
                    patient_table[:, column], seed=seed, resamples=resamples
                ),
                slice_mean=mean_scored(case_table[:, column]),
            )
            for column, name in enumerate(names)
        }
    return SurfaceSummary(
        scores,
        num_scored=_tally([case.num_scored for case in cases], names),
        num_one_empty=_tally([case.num_one_empty for case in cases], names),
    )


def _table(scores: Sequence[SurfaceScores], quantity: str) -> NDArray[np.float64]:
    """Return the (N, C + 1) values of a quantity; the last column is the foreground mean."""
    rows = [getattr(score, quantity) for score in scores]
    return np.array([[*row, mean_foreground(row)] for row in rows])


def _tally(flags: Sequence[NDArray[np.int64]], names: Sequence[str]) -> dict[str, int]:
    """Return how many cases each class is flagged in, and then how many any foreground class."""
    table = np.array([[*row, row[1:].any()] for row in flags])
    return dict(zip(names, table.sum(axis=0).tolist(), strict=True))
