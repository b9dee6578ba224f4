"""Masks of slices -> the scores of slices and patients, with intervals.

`measure` looks at the masks of a slice once: pixel counts and distances of boundaries. `scores_of`
makes everything else of these measures. They are kept beside the scores, so that the patients of
several folds, or of another method, can be scored together without reading an image again.

Counts of a patient are pooled over its slices. Distances are those of slices, in two dimensions: of
a patient they are the mean over the slices that are scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.evaluation.overlap import (
    QUANTITIES,
    Counts,
    Score,
    Summary,
    count,
    overlap,
    summarise,
)
from src.evaluation.surface_scores import (
    SURFACE_QUANTITIES,
    SurfaceScore,
    SurfaceScores,
    SurfaceSummary,
    patient_mean,
    summarise_surfaces,
    surface_scores,
)

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("true_positives", "false_positives", "false_negatives")


@dataclass(frozen=True, eq=False)
class Measures:
    """What is measured of a slice, by class, background first.

    Attributes:
        counts: Pixels.
        surfaces: Distances of boundaries; the background has none.
    """

    counts: Counts
    surfaces: SurfaceScores


@dataclass(frozen=True)
class SubsetSummary:
    """Means over the patients of one side, with intervals.

    Attributes:
        overlap: Dice, IoU, precision, recall, and how many patients and slices they rest on.
        surfaces: HD95, ASSD, NSD, and in how many slices one of the masks was empty.
    """

    overlap: Summary
    surfaces: SurfaceSummary

    @property
    def scores(self) -> dict[str, dict[str, Score] | dict[str, SurfaceScore]]:
        """Quantity -> class name, or `mean_foreground` -> score."""
        return {**self.overlap.scores, **self.surfaces.scores}

    def to_dict(self) -> dict[str, dict[str, float | int | None]]:
        """Group -> class name -> number, ready for JSON; the groups of both parts."""
        return {**self.overlap.to_dict(), **self.surfaces.to_dict()}


@dataclass(frozen=True)
class SubsetScores:
    """The scores of one side.

    Attributes:
        summary: Means and intervals.
        slices: A row per slice, pseudonyms only: Dice, IoU, precision, recall of each class; HD95,
            ASSD, NSD of each but the background.
        patients: A row per patient, likewise; `one_empty_slices_CLASS` of its slices have the class
            in truth or prediction alone.
        counts: A row per slice, see `count_table`.
    """

    summary: SubsetSummary
    slices: pd.DataFrame
    patients: pd.DataFrame
    counts: pd.DataFrame


def measure(
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    num_classes: int,
    *,
    spacing_mm: tuple[float, float],
    tolerance_mm: float,
) -> Measures:
    """Measures one slice.

    Args:
        truth: (H, W) class indices in 0..num_classes - 1.
        prediction: (H, W) likewise.
        num_classes: Background included.
        spacing_mm: (y, x) of a pixel.
        tolerance_mm: Of the NSD.

    Raises:
        ValueError: The sizes differ, a label is out of range, or a length is not positive.
        TypeError: An array does not hold integers.
    """
    return Measures(
        count(truth, prediction, num_classes),
        surface_scores(
            truth, prediction, num_classes, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm
        ),
    )


def json_number(value: float) -> float | None:
    """A number of six digits after the point; None for NaN, which JSON does not know."""
    return None if math.isnan(value) else round(float(value), 6)


def metric_group(subset: str) -> str:
    """What stands before the slash in the names of a side's scores in MLflow.

    `validation/iou/…` is the curve of training: pixels pooled, at the size of the arrays.
    """
    return {"validation": "validation_patients"}.get(subset, subset)


def count_table(
    cases: pd.DataFrame, measures: Sequence[Measures], classes: Sequence[str]
) -> pd.DataFrame:
    """The measures of slices as a table without names of patients or files.

    Args:
        cases: Rows of the case table.
        measures: Of each of the rows.
        classes: Class names, background first.

    Returns:
        A row per slice: case, patient_pseudonym, source; true_positives_CLASS,
        false_positives_CLASS, false_negatives_CLASS of each class; hd95_mm_CLASS, assd_mm_CLASS,
        nsd_CLASS of each but the background, NaN where truth and prediction have none of it.
    """
    table = cases[["case_pseudonym", "pseudonym", "source"]].reset_index(drop=True)
    table.columns = ["case", "patient_pseudonym", "source"]
    counted = {
        f"{kind}_{name}": [int(getattr(slice.counts, kind)[index]) for slice in measures]
        for index, name in enumerate(classes)
        for kind in KINDS
    }
    distances = {
        f"{quantity}_{name}": _rounded(
            [getattr(slice.surfaces, quantity)[index] for slice in measures]
        )
        for index, name in enumerate(classes[1:], start=1)
        for quantity in SURFACE_QUANTITIES
    }
    return table.assign(**counted, **distances)


def _rounded(values: ArrayLike) -> NDArray[np.float64]:
    """Numbers as they come out of a CSV file, so that scores are the same before and after it."""
    return np.asarray(values, dtype=np.float64).round(6)


def read_counts(path: Path) -> pd.DataFrame:
    """Reads a table of `count_table` from CSV.

    Raises:
        FileNotFoundError: The file is not there; the message names the command that makes it.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is missing. Make it with `dvc repro evaluate`.")
    text = {"case": str, "patient_pseudonym": str, "source": str}
    columns = [name for name in pd.read_csv(path, nrows=0).columns if name not in text]
    table = pd.read_csv(
        path, dtype=text, keep_default_na=False, na_values={name: [""] for name in columns}
    )
    kinds = tuple(f"{quantity}_" for quantity in SURFACE_QUANTITIES)
    distances = [name for name in columns if name.startswith(kinds)]
    return table.assign(**{name: _rounded(table[name]) for name in distances})


def scores_of(
    table: pd.DataFrame, classes: Sequence[str], *, seed: int, resamples: int
) -> SubsetScores:
    """Scores slices and patients.

    Args:
        table: From `count_table`; several of them may stand below each other.
        classes: Class names, background first.
        seed: Of the bootstrap.
        resamples: Number of bootstrap resamples.

    Returns:
        The scores; patients in the order of the table.

    Raises:
        ValueError: The table has no rows, or not the columns of these classes.
    """
    import pandas as pd

    measures = _measures(table, classes)
    by_patient: dict[str, list[Measures]] = {}
    for pseudonym, slice in zip(table["patient_pseudonym"], measures, strict=True):
        by_patient.setdefault(pseudonym, []).append(slice)
    pooled = {
        pseudonym: sum((slice.counts for slice in parts[1:]), parts[0].counts)
        for pseudonym, parts in by_patient.items()
    }
    surfaces = {
        pseudonym: [slice.surfaces for slice in parts] for pseudonym, parts in by_patient.items()
    }
    sources = table.drop_duplicates("patient_pseudonym").set_index("patient_pseudonym")["source"]
    slices = [
        {"case": row.case, "patient_pseudonym": row.patient_pseudonym, "source": row.source}
        | _row(slice.counts, slice.surfaces, classes)
        for row, slice in zip(table.itertuples(), measures, strict=True)
    ]
    patients = []
    for pseudonym, counted in pooled.items():
        mean = patient_mean(surfaces[pseudonym])
        patients.append(
            {
                "patient_pseudonym": pseudonym,
                "source": sources[pseudonym],
                "slices": len(surfaces[pseudonym]),
            }
            | _row(counted, mean, classes)
            | {
                f"one_empty_slices_{name}": int(mean.num_one_empty[index])
                for index, name in enumerate(classes[1:], start=1)
            }
        )
    return SubsetScores(
        summary=SubsetSummary(
            summarise(
                pooled,
                [slice.counts for slice in measures],
                class_names=classes,
                seed=seed,
                resamples=resamples,
            ),
            summarise_surfaces(surfaces, class_names=classes, seed=seed, resamples=resamples),
        ),
        slices=pd.DataFrame(slices),
        patients=pd.DataFrame(patients),
        counts=table,
    )


def _measures(table: pd.DataFrame, classes: Sequence[str]) -> list[Measures]:
    """The rows of a table as they were measured."""
    wanted = [f"{kind}_{name}" for kind in KINDS for name in classes]
    wanted += [f"{quantity}_{name}" for quantity in SURFACE_QUANTITIES for name in classes[1:]]
    missing = [column for column in wanted if column not in table]
    if missing:
        raise ValueError(
            f"the table of counts has no column {', '.join(missing[:3])}, expected the classes "
            f"{', '.join(classes)}. Make it again: `dvc repro evaluate`, or `python -m src.score`."
        )
    counts = {
        kind: table[[f"{kind}_{name}" for name in classes]].to_numpy(np.int64) for kind in KINDS
    }
    nothing = np.full((len(table), 1), math.nan)  # the background
    distances = {
        quantity: np.hstack(
            [nothing, table[[f"{quantity}_{name}" for name in classes[1:]]].to_numpy(np.float64)]
        )
        for quantity in SURFACE_QUANTITIES
    }
    hits, extra, missed = (counts[kind] for kind in KINDS)
    in_truth, in_prediction = hits + missed > 0, hits + extra > 0
    in_truth[:, 0] = in_prediction[:, 0] = False
    scored = (in_truth | in_prediction).astype(np.int64)
    one_empty = (in_truth ^ in_prediction).astype(np.int64)
    return [
        Measures(
            Counts(*(counts[kind][row] for kind in KINDS)),
            SurfaceScores(
                **{quantity: distances[quantity][row] for quantity in SURFACE_QUANTITIES},
                num_scored=scored[row],
                num_one_empty=one_empty[row],
            ),
        )
        for row in range(len(table))
    ]


def _row(counted: Counts, surfaces: SurfaceScores, classes: Sequence[str]) -> dict[str, float]:
    scores = overlap(counted)
    row: dict[str, float] = {}
    for quantity in QUANTITIES:
        for name, value in zip(classes, getattr(scores, quantity), strict=True):
            row[f"{quantity}_{name}"] = round(float(value), 6)
    actual = counted.true_positives + counted.false_negatives
    predicted = counted.true_positives + counted.false_positives
    for index, name in enumerate(classes[1:], start=1):
        row[f"truth_pixels_{name}"] = int(actual[index])
        row[f"predicted_pixels_{name}"] = int(predicted[index])
    for quantity in SURFACE_QUANTITIES:
        for index, name in enumerate(classes[1:], start=1):
            row[f"{quantity}_{name}"] = round(float(getattr(surfaces, quantity)[index]), 6)
    return row


def metrics_of(summary: SubsetSummary) -> dict[str, float]:
    """The means over patients as people meet them in MLflow: `dice/lesion`, `hd95_mm/lesion`, ….

    Their intervals stand in the description of the run, and all else in tables/scores.json: a chart
    for each single number would bury the curves.
    """
    groups = summary.to_dict()
    background = next(iter(groups[QUANTITIES[0]]))  # it has no boundary of its own
    return {
        f"{quantity}/{name}": math.nan if value is None else float(value)
        for quantity in (*QUANTITIES, *SURFACE_QUANTITIES)
        for name, value in groups[quantity].items()
        if not (quantity in SURFACE_QUANTITIES and name == background)
    }
