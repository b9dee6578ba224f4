"""Dice, IoU, precision and recall by class, from pixel counts, with one rule for empty masks.

Counting comes first and is exact (int64); everything else is read from the counts. Counts of
slices add up to the counts of a patient, those of patients to the pooled counts:

    patient = sum(count(truth, prediction, 3) for truth, prediction in slices)
    overlap(patient).dice
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.evaluation.statistics import Interval, bootstrap_interval

QUANTITIES = ("dice", "iou", "precision", "recall")
MEAN_FOREGROUND = "mean_foreground"


@dataclass(frozen=True, eq=False)
class Counts:
    """Pixel counts by class, class 0 being the background.

    Attributes:
        true_positives: (C,) int64, pixels of the class in truth and prediction.
        false_positives: (C,) int64, pixels of the class in the prediction alone.
        false_negatives: (C,) int64, pixels of the class in the truth alone.
    """

    true_positives: NDArray[np.int64]
    false_positives: NDArray[np.int64]
    false_negatives: NDArray[np.int64]

    def __add__(self, other: "Counts") -> "Counts":
        if self.true_positives.shape != other.true_positives.shape:
            raise ValueError(
                f"counts of {self.true_positives.size} and {other.true_positives.size} classes "
                "cannot be added. Count both with the same num_classes."
            )
        return Counts(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )

    def __radd__(self, start: int) -> "Counts":
        # sum() begins with the integer 0; any other number is a mistake.
        if start != 0:
            return NotImplemented
        return self


@dataclass(frozen=True, eq=False)
class Overlap:
    """Scores by class, each in [0, 1], NaN where the class is absent from truth and prediction.

    Attributes:
        dice: (C,) float64, 2 TP / (2 TP + FP + FN).
        iou: (C,) float64, TP / (TP + FP + FN).
        precision: (C,) float64, TP / (TP + FP); 0 where the class is missing from the prediction.
        recall: (C,) float64, TP / (TP + FN); 0 where the class is missing from the truth.
        false_positive: (C,) bool, the class is predicted although the truth has none of it.
    """

    dice: NDArray[np.float64]
    iou: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    false_positive: NDArray[np.bool_]


@dataclass(frozen=True)
class Score:
    """One quantity of one class over a whole set of patients, in [0, 1] or NaN when never scored.

    Attributes:
        patients: Mean over patients with the 95 % bootstrap interval that resamples patients.
        slice_mean: Mean over the slices that are scored.
        pooled: The quantity of all pixels counted together.
    """

    patients: Interval
    slice_mean: float
    pooled: float


@dataclass(frozen=True)
class Tally:
    """How many patients (or slices) a mean rests on.

    Attributes:
        num_scored: With the class in truth or prediction.
        num_unscored: With the class in neither.
        num_false_positive: Of those scored, with the class in the prediction alone.
    """

    num_scored: int
    num_unscored: int
    num_false_positive: int


@dataclass(frozen=True)
class Summary:
    """Scores of a set of patients by quantity and class, `mean_foreground` after the classes.

    Attributes:
        scores: Quantity (`dice`, `iou`, `precision`, `recall`) -> class name -> score.
        patients: Class name -> tally over patients.
        slices: Class name -> tally over slices.
    """

    scores: dict[str, dict[str, Score]]
    patients: dict[str, Tally]
    slices: dict[str, Tally]

    def to_dict(self) -> dict[str, dict[str, float | int | None]]:
        """Return group -> class name -> number, ready for JSON; NaN becomes None.

        The groups of a quantity are `dice` (patient mean), `dice_low`, `dice_high`,
        `dice_slice_mean` and `dice_pooled`: all of them stand in scores.json, and the patient mean
        alone is a metric of MLflow, `test/dice/lesion`. The tallies over patients are
        `num_scored`, `num_unscored` and `num_false_positive_patients`; over slices
        `num_scored_slices`, `num_unscored_slices` and `num_false_positive_cases`.
        """
        groups: dict[str, dict[str, float | int | None]] = {}
        for quantity, by_class in self.scores.items():
            columns = {
                quantity: {name: score.patients.mean for name, score in by_class.items()},
                f"{quantity}_low": {name: score.patients.low for name, score in by_class.items()},
                f"{quantity}_high": {name: score.patients.high for name, score in by_class.items()},
                f"{quantity}_slice_mean": {name: s.slice_mean for name, s in by_class.items()},
                f"{quantity}_pooled": {name: score.pooled for name, score in by_class.items()},
            }
            for group, numbers in columns.items():
                groups[group] = {n: None if math.isnan(v) else v for n, v in numbers.items()}
        for tallies, scored, unscored, false_positive in (
            (self.patients, "num_scored", "num_unscored", "num_false_positive_patients"),
            (self.slices, "num_scored_slices", "num_unscored_slices", "num_false_positive_cases"),
        ):
            groups[scored] = {name: tally.num_scored for name, tally in tallies.items()}
            groups[unscored] = {name: tally.num_unscored for name, tally in tallies.items()}
            groups[false_positive] = {n: tally.num_false_positive for n, tally in tallies.items()}
        return groups


def count(truth: NDArray[np.integer], prediction: NDArray[np.integer], num_classes: int) -> Counts:
    """Count the pixels of each class that truth and prediction share and do not share.

    Args:
        truth: Integer class indices in 0..num_classes - 1, any shape, for example (H, W).
        prediction: Integer class indices, shaped as `truth`.
        num_classes: Number of classes C, background included; at least 2.

    Returns:
        Counts of (C,) int64; all zero for arrays without a pixel.

    Raises:
        ValueError: If the shapes differ, a label is out of range or num_classes is below 2.
        TypeError: If an array does not hold integers.
    """
    if num_classes < 2:
        raise ValueError(
            f"num_classes must be at least 2 (background and one class), got {num_classes}. "
            "Count the background as a class."
        )
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(
            f"truth and prediction must have the same shape, got {truth.shape} and "
            f"{prediction.shape}. Bring the prediction back to the size of the truth."
        )
    check_labels("truth", truth, num_classes)
    check_labels("prediction", prediction, num_classes)

    # Three one-dimensional counts in place of truth * C + prediction: that product would overflow
    # in uint8, the usual type of a mask.
    in_both = _pixels_by_class(truth[truth == prediction], num_classes)
    return Counts(
        true_positives=in_both,
        false_positives=_pixels_by_class(prediction, num_classes) - in_both,
        false_negatives=_pixels_by_class(truth, num_classes) - in_both,
    )


def overlap(counts: Counts) -> Overlap:
    """Read the scores of each class from its counts.

    A class absent from truth and prediction is not scored (NaN). One absent from the truth alone
    scores 0 in all four and is flagged in `false_positive`; one absent from the prediction alone
    scores 0 in all four.

    Args:
        counts: Counts of (C,) int64, of a slice, a patient or a whole set.

    Returns:
        Scores of (C,) float64 in [0, 1] or NaN.

    Source: Maier-Hein et al. 2024, Metrics Reloaded, for the quantities; the rule for empty masks
    is this project's own.
    """
    hits = counts.true_positives
    predicted = hits + counts.false_positives
    actual = hits + counts.false_negatives
    union = predicted + counts.false_negatives
    scored = union > 0

    def ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
        # Precision without a prediction and recall without truth are 0 / 0: 0 by the rule above.
        return np.where(scored, numerator / np.maximum(denominator, 1), np.nan)

    return Overlap(
        dice=ratio(2 * hits, predicted + actual),
        iou=ratio(hits, union),
        precision=ratio(hits, predicted),
        recall=ratio(hits, actual),
        false_positive=(actual == 0) & (predicted > 0),
    )


def mean_foreground(values: NDArray[np.float64]) -> float:
    """Return the mean over the foreground classes that are scored.

    Args:
        values: (C,) scores, background first, NaN where a class is not scored.

    Returns:
        The mean in the unit of `values`; NaN when no foreground class is scored.
    """
    return mean_scored(np.asarray(values, dtype=np.float64)[1:])


def mean_scored(values: NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN, NaN when there is none."""
    scored = values[~np.isnan(values)]
    return float(scored.mean()) if scored.size else math.nan


def summarise(
    per_patient_counts: Mapping[str, Counts] | Iterable[Counts],
    per_slice_counts: Mapping[str, Counts] | Iterable[Counts],
    *,
    class_names: Sequence[str],
    seed: int,
    resamples: int = 10_000,
) -> Summary:
    """Average the scores over patients (the headline), over slices, and over all pixels.

    Args:
        per_patient_counts: One entry a patient, pooled over the patient's slices: a mapping whose
            keys are not looked at, or the counts alone. At least one.
        per_slice_counts: One entry a slice of the same patients.
        class_names: Names of the C classes, background first.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.

    Returns:
        The summary. A class that is never scored has NaN means and is counted in `num_unscored`.
        `mean_foreground` averages over the classes first, within a patient or a slice, then over
        patients or slices; it is a false positive where any foreground class is one.

    Raises:
        ValueError: If there is no patient or no slice, if patients and slices do not count the
            same pixels, or if the class names do not fit the counts.
    """
    patients, slices = _listed(per_patient_counts), _listed(per_slice_counts)
    if not patients or not slices:
        raise ValueError(
            f"expected at least one patient and one slice to summarise, got {len(patients)} "
            f"patients and {len(slices)} slices. Check that the split is not empty."
        )
    pooled = _pool(patients)
    _check_summary_input(pooled, slices, class_names)

    names = [*class_names, MEAN_FOREGROUND]
    by_patient = [overlap(counts) for counts in patients]
    by_slice = [overlap(counts) for counts in slices]
    scores: dict[str, dict[str, Score]] = {}
    for quantity in QUANTITIES:
        patient_table = _table(by_patient, quantity)
        slice_table = _table(by_slice, quantity)
        pooled_row = _table([overlap(pooled)], quantity)[0]
        scores[quantity] = {
            name: Score(
                patients=bootstrap_interval(
                    patient_table[:, column], seed=seed, resamples=resamples
                ),
                slice_mean=mean_scored(slice_table[:, column]),
                pooled=float(pooled_row[column]),
            )
            for column, name in enumerate(names)
        }
    return Summary(scores, _tallies(by_patient, names), _tallies(by_slice, names))


def check_labels(role: str, labels: NDArray[np.integer], num_classes: int) -> None:
    """Refuse an array that does not hold class indices.

    Args:
        role: What the array is called in the message: "truth" or "prediction".
        labels: Class indices, any shape.
        num_classes: Number of classes, background included.

    Raises:
        ValueError: If a label is not in 0..num_classes - 1.
        TypeError: If the array does not hold integers.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(
            f"{role} must hold integer class indices, got dtype {labels.dtype}. Convert a boolean "
            "mask with .astype('uint8') and probabilities with .argmax(axis=-1)."
        )
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        outside = np.unique(labels[(labels < 0) | (labels >= num_classes)])
        raise ValueError(
            f"{role} must hold labels 0..{num_classes - 1}, got also {outside[:8].tolist()}. "
            "Map the values of the mask files to classes with labels: in params.yaml."
        )


def check_class_names(class_names: Sequence[str], num_classes: int) -> None:
    """Refuse names that do not fit the classes of a summary.

    Args:
        class_names: One name a class, background first.
        num_classes: Number of classes, background included.

    Raises:
        ValueError: If their number differs, or if two names are the same.
    """
    if len(class_names) != num_classes:
        raise ValueError(
            f"class_names must name the {num_classes} classes counted, got {list(class_names)}. "
            "Give one name a class, background first."
        )
    if len({*class_names, MEAN_FOREGROUND}) != num_classes + 1:
        raise ValueError(
            f"class_names must differ from each other and from {MEAN_FOREGROUND!r}, got "
            f"{list(class_names)}. Rename the class in params.yaml."
        )


def _pixels_by_class(labels: NDArray[np.integer], num_classes: int) -> NDArray[np.int64]:
    """Return the (C,) number of pixels with each label."""
    flat = labels.ravel().astype(np.intp, copy=False)
    return np.bincount(flat, minlength=num_classes).astype(np.int64)


def _listed(counts: Mapping[str, Counts] | Iterable[Counts]) -> list[Counts]:
    """Return the counts of a mapping or an iterable as a list."""
    return list(counts.values() if isinstance(counts, Mapping) else counts)


def _pool(counts: Sequence[Counts]) -> Counts:
    """Return the sum of at least one counts."""
    return sum(counts[1:], start=counts[0])


def _check_summary_input(
    pooled: Counts, slices: Sequence[Counts], class_names: Sequence[str]
) -> None:
    """Refuse names that do not fit, and slices that are not those of the patients."""
    check_class_names(class_names, pooled.true_positives.size)
    of_slices = _pool(slices)
    for field in ("true_positives", "false_positives", "false_negatives"):
        patient_sum, slice_sum = getattr(pooled, field), getattr(of_slices, field)
        if not np.array_equal(patient_sum, slice_sum):
            raise ValueError(
                f"patients and slices must count the same pixels, got {field} "
                f"{patient_sum.tolist()} over patients and {slice_sum.tolist()} over slices. "
                "Pass every slice of these patients and no other."
            )


def _table(scores: Sequence[Overlap], quantity: str) -> NDArray[np.float64]:
    """Return the (N, C + 1) values of a quantity; the last column is the foreground mean."""
    rows = [getattr(score, quantity) for score in scores]
    return np.array([[*row, mean_foreground(row)] for row in rows])


def _tallies(scores: Sequence[Overlap], names: Sequence[str]) -> dict[str, Tally]:
    """Return the tally of each class and of the foreground mean."""
    scored = ~np.isnan(_table(scores, "dice"))
    flags = np.array([[*s.false_positive, s.false_positive[1:].any()] for s in scores])
    return {
        name: Tally(
            num_scored=int(scored[:, column].sum()),
            num_unscored=int((~scored[:, column]).sum()),
            num_false_positive=int(flags[:, column].sum()),
        )
        for column, name in enumerate(names)
    }
