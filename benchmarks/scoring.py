"""The one scorer of all methods, this project's own, and the table of a benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.setting import Setting, read_mask
from src.evaluation.overlap import count, mean_foreground, overlap
from src.evaluation.statistics import Interval, bootstrap_interval

SEED = 2026
SCORES = ("method", "validation Dice", "test Dice", "difference to best peer")
TRAINING = ("steps", "images", "seconds", "parameters", "precision", "checkpoint")


@dataclass(frozen=True)
class Row:
    """One method of the table.

    Attributes:
        method: Its name.
        is_peer: Whether it is not this project's own.
        validation: Mean Dice over validation patients, each averaged over the repeats.
        test: Likewise over test patients.
        spread: Standard deviation of the mean test Dice over the repeats; NaN with one.
        difference: Of test Dice to the best peer, paired over patients; None for that peer itself
            and where no peer was run.
        training: What the method says of its training, of the first repeat.
        seconds: Mean seconds of training over the repeats.
    """

    method: str
    is_peer: bool
    validation: Interval
    test: Interval
    spread: float
    difference: Interval | None
    training: Mapping[str, Any]
    seconds: float


def patient_overlap(
    truth: NDArray[np.integer], prediction: NDArray[np.integer], num_classes: int
) -> dict[str, float]:
    """Mean Dice and IoU of the foreground classes of one patient, counts pooled over the slices.

    Args:
        truth: (D, H, W) class indices.
        prediction: Likewise, at the size of the scan.
        num_classes: Classes, background included.

    Returns:
        "dice" and "iou", in [0, 1]; NaN where truth and prediction hold no foreground.

    Raises:
        ValueError: The sizes differ, or a mask holds other values than the class indices.
    """
    found = overlap(count(truth, prediction, num_classes))
    return {"dice": mean_foreground(found.dice), "iou": mean_foreground(found.iou)}


def side_overlap(folder: Path, setting: Setting, side: str) -> dict[str, dict[str, float]]:
    """Dice and IoU of each patient of a side, of the masks that a method wrote.

    Args:
        folder: SIDE/NAME.nii.gz lie in it.
        setting: The patients.
        side: validation or test.

    Returns:
        "dice" and "iou" -> patient -> value, see `patient_overlap`.
    """
    found = {
        name: patient_overlap(
            read_mask(setting.folder / side / "masks" / f"{name}.nii.gz"),
            read_mask(folder / side / f"{name}.nii.gz"),
            len(setting.classes),
        )
        for name in setting.patients[side]
    }
    return {
        quantity: {name: values[quantity] for name, values in found.items()}
        for quantity in ("dice", "iou")
    }


def table_rows(
    scores: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]],
    training: Mapping[str, Sequence[Mapping[str, Any]]],
    peers: Sequence[str],
) -> list[Row]:
    """The rows of the table, in the order of `scores`.

    Args:
        scores: Method -> for each repeat: side -> patient -> Dice. All methods have the same
            patients.
        training: Method -> for each repeat: what it says of its training; `seconds` is read.
        peers: The methods that are not this project's own. The best of them has the highest mean
            Dice of the test patients: the hardest to beat, whatever its validation says.

    Returns:
        The rows.

    Raises:
        ValueError: The methods do not have the same patients.
    """
    dice = {
        side: {method: _mean_of_repeats(repeats, side) for method, repeats in scores.items()}
        for side in ("validation", "test")
    }
    test = dice["test"]
    run = [method for method in scores if method in peers]
    best = max(run, key=lambda method: _mean(test[method].values()), default=None)
    rows = []
    for method, repeats in scores.items():
        difference = None
        if best is not None and method != best:
            difference = paired_difference(test[method], test[best])
        means = [_mean(repeat["test"].values()) for repeat in repeats]
        rows.append(
            Row(
                method=method,
                is_peer=method in peers,
                validation=bootstrap_interval(list(dice["validation"][method].values()), seed=SEED),
                test=bootstrap_interval(list(test[method].values()), seed=SEED),
                spread=float(np.std(means, ddof=1)) if len(means) > 1 else math.nan,
                difference=difference,
                training=training[method][0],
                seconds=_mean(entry["seconds"] for entry in training[method]),
            )
        )
    return rows


def paired_difference(first: Mapping[str, float], second: Mapping[str, float]) -> Interval:
    """Mean of first minus second over the patients, with its bootstrap interval.

    Args:
        first: Patient -> Dice.
        second: The same patients -> Dice.

    Raises:
        ValueError: The patients differ.
    """
    if set(first) != set(second):
        raise ValueError(
            f"two methods must be scored on the same patients, got {sorted(first)} and "
            f"{sorted(second)}. Run both into a new --out."
        )
    return bootstrap_interval([first[name] - second[name] for name in first], seed=SEED)


def cells(row: Row) -> list[str]:
    """The row as text, in the order of SCORES and then TRAINING."""
    spread = "" if math.isnan(row.spread) else f" ± {row.spread:.3f}"
    told = row.training
    return [
        row.method,
        f"{row.validation.mean:.3f}",
        f"{row.test.mean:.3f}{spread} ({row.test.low:.3f} to {row.test.high:.3f})",
        _signed(row.difference),
        _number(told.get("steps")),
        _number(told.get("images")),
        f"{row.seconds:.0f}",
        _number(told.get("parameters")),
        str(told.get("precision", "")),
        str(told.get("checkpoint", "")),
    ]


def markdown(rows: Sequence[Row], head: Mapping[str, str]) -> str:
    """The table as Markdown, below what `head` says of machine and conditions."""
    lines = [f"- {name}: {text}" for name, text in head.items()]
    columns = (*SCORES, *TRAINING)
    lines += ["", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    return "\n".join([*lines, ""])


def _mean_of_repeats(
    repeats: Sequence[Mapping[str, Mapping[str, float]]], side: str
) -> dict[str, float]:
    return {name: _mean(repeat[side][name] for repeat in repeats) for name in repeats[0][side]}


def _mean(values: Any) -> float:
    """Mean of the values that are scored; NaN without one."""
    scored = [value for value in values if not math.isnan(value)]
    return sum(scored) / len(scored) if scored else math.nan


def _signed(difference: Interval | None) -> str:
    if difference is None:
        return ""
    return f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:,}"
