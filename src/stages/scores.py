"""Pixel counts of slices -> the scores of slices and patients, with intervals.

The counts are kept beside the scores, so that the patients of several folds can be scored together
without reading an image again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.evaluation.overlap import QUANTITIES, Counts, Summary, overlap, summarise

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("true_positives", "false_positives", "false_negatives")


@dataclass(frozen=True)
class SubsetScores:
    """The scores of one side.

    Attributes:
        summary: Means and intervals.
        slices: A row per slice, pseudonyms only: Dice, IoU, precision, recall of each class.
        patients: A row per patient, likewise.
        counts: A row per slice, see `count_table`.
        seconds: Of reading and prediction.
    """

    summary: Summary
    slices: pd.DataFrame
    patients: pd.DataFrame
    counts: pd.DataFrame
    seconds: float = 0.0


def metric_group(subset: str) -> str:
    """What stands before the slash in the names of a side's scores in MLflow.

    `validation/iou/…` is the curve of training: pixels pooled, at the size of the arrays.
    """
    return {"validation": "validation_patients"}.get(subset, subset)


def count_table(
    cases: pd.DataFrame, counts: Sequence[Counts], classes: Sequence[str]
) -> pd.DataFrame:
    """The counts of slices as a table without names of patients or files.

    Args:
        cases: Rows of the case table.
        counts: Of each of the rows.
        classes: Class names, background first.

    Returns:
        A row per slice: case, patient_pseudonym, source, and true_positives_CLASS,
        false_positives_CLASS, false_negatives_CLASS of each class.
    """
    table = cases[["case_pseudonym", "pseudonym", "source"]].reset_index(drop=True)
    table.columns = ["case", "patient_pseudonym", "source"]
    columns = {
        f"{kind}_{name}": [int(getattr(counted, kind)[index]) for counted in counts]
        for index, name in enumerate(classes)
        for kind in KINDS
    }
    return table.assign(**columns)


def read_counts(path: Path) -> pd.DataFrame:
    """Reads a table of `count_table` from CSV.

    Raises:
        FileNotFoundError: The file is not there; the message names the command that makes it.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is missing. Make it with `dvc repro evaluate`.")
    text = {"case": str, "patient_pseudonym": str, "source": str}
    return pd.read_csv(path, dtype=text, keep_default_na=False)


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
        ValueError: The table has no rows.
    """
    import pandas as pd

    arrays = {
        kind: table[[f"{kind}_{name}" for name in classes]].to_numpy(np.int64) for kind in KINDS
    }
    counts = [Counts(*(arrays[kind][row] for kind in KINDS)) for row in range(len(table))]
    by_patient: dict[str, list[Counts]] = {}
    for pseudonym, counted in zip(table["patient_pseudonym"], counts, strict=True):
        by_patient.setdefault(pseudonym, []).append(counted)
    pooled = {pseudonym: sum(parts[1:], parts[0]) for pseudonym, parts in by_patient.items()}
    sources = table.drop_duplicates("patient_pseudonym").set_index("patient_pseudonym")["source"]
    slices = [
        {"case": row.case, "patient_pseudonym": row.patient_pseudonym, "source": row.source}
        | _row(counted, classes)
        for row, counted in zip(table.itertuples(), counts, strict=True)
    ]
    patients = [
        {
            "patient_pseudonym": pseudonym,
            "source": sources[pseudonym],
            "slices": len(by_patient[pseudonym]),
        }
        | _row(counted, classes)
        for pseudonym, counted in pooled.items()
    ]
    return SubsetScores(
        summary=summarise(pooled, counts, class_names=classes, seed=seed, resamples=resamples),
        slices=pd.DataFrame(slices),
        patients=pd.DataFrame(patients),
        counts=table,
    )


def _row(counted: Counts, classes: Sequence[str]) -> dict[str, float]:
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
    return row


def metrics_of(summary: Summary) -> dict[str, float]:
    """The means over patients as people meet them in MLflow: `dice/lesion`, `iou/lesion`, ….

    Their intervals stand in the description of the run, and all else in tables/scores.json: a chart
    for each single number would bury the curves.
    """
    groups = summary.to_dict()
    return {
        f"{quantity}/{name}": math.nan if value is None else float(value)
        for quantity in QUANTITIES
        for name, value in groups[quantity].items()
    }
