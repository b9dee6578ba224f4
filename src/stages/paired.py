"""Models set side by side on the test patients: paired differences, and what each model costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from src import terminal
from src.evaluation.comparison import Comparison, compare, corrected
from src.evaluation.overlap import MEAN_FOREGROUND, mean_foreground
from src.scoring import json_number
from src.stages.score_table import with_ends

if TYPE_CHECKING:
    import pandas as pd

FEW_PATIENTS = 10  # with fewer, intervals are too narrow and hardly any difference can be told


def patient_dice(patients: pd.DataFrame, classes: list[str]) -> dict[str, dict[str, float]]:
    """The Dice of each patient, by class.

    Args:
        patients: A row per patient: patient_pseudonym, dice_CLASS.
        classes: Class names, background first.

    Returns:
        Each foreground class, then `mean_foreground` where there are several -> patient -> Dice,
        NaN where it is not scored.
    """
    names = patients["patient_pseudonym"].tolist()
    table = patients[[f"dice_{name}" for name in classes]].to_numpy(np.float64)
    found = {name: dict(zip(names, table[:, i], strict=True)) for i, name in enumerate(classes)}
    found.pop(classes[0])
    if len(found) > 1:
        means = [mean_foreground(row) for row in table]
        found[MEAN_FOREGROUND] = dict(zip(names, means, strict=True))
    return found


def paired_differences(
    scores: Mapping[str, Mapping[str, Mapping[str, float]]], *, seed: int, resamples: int
) -> list[dict[str, Any]]:
    """Every pair of models, class by class, over the patients that both score.

    Args:
        scores: Model -> class -> patient -> Dice, the same classes and patients in each.
        seed: Of the bootstrap.
        resamples: Number of bootstrap resamples.

    Returns:
        A row a pair and class, ready for JSON: first, second, class, difference (of the first less
        the second) with low and high, p and p_holm (corrected over all rows), pairs, dropped, note.
        None where there is no number; empty for one model.
    """
    if len(scores) < 2:
        return []
    names, found = [], []
    for name in next(iter(scores.values())):
        of_class = {model: by_class[name] for model, by_class in scores.items()}
        pairs = compare(of_class, seed=seed, resamples=resamples)
        names += [name] * len(pairs)
        found += pairs
    return [
        {
            "first": one.first,
            "second": one.second,
            "class": name,
            "difference": json_number(one.difference.mean),
            "low": json_number(one.difference.low),
            "high": json_number(one.difference.high),
            "p": json_number(one.p_value),
            "p_holm": json_number(one.p_holm),
            "pairs": one.difference.n,
            "dropped": one.difference.num_dropped,
            "note": _note(one),
        }
        for name, one in zip(names, corrected(found), strict=True)
    ]


def _note(one: Comparison) -> str:
    if not one.difference.n:
        return "no patient is scored by both"
    if not one.enough_pairs:
        return f"{one.difference.n} patients are too few for any difference to reach p < 0.05"
    if one.num_one_sided:
        return f"{one.num_one_sided} patients are scored by one of the two alone"
    return ""


def print_comparison(models: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> None:
    """Prints what models reach and cost, and how they differ in the last class of the table.

    Args:
        models: As in reports/comparison.json; test Dice is the mean of the foreground classes.
        pairs: Of `paired_differences`.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("model", "test Dice", "parameters", "training", "per slice", "memory"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "model" else "right")
    for one in models:
        table.add_row(
            escape(one["name"]),
            with_ends(one["test_dice"], one["test_low"], one["test_high"]),
            _shown(one["parameters"], "{:,}"),
            _shown(one["seconds_training"], "{:.0f} s"),
            _shown(one["seconds_per_slice"], "{:.3f} s"),
            _shown(one["peak_memory_mb"] and one["peak_memory_mb"] / 1000, "{:.1f} GB"),
        )
    terminal.console.print(table)
    if not pairs:
        return
    last = pairs[-1]["class"]
    label = "mean foreground" if last == MEAN_FOREGROUND else last
    terminal.console.print(f"\nDifference of {label} Dice on the test patients, paired:")
    for row in (row for row in pairs if row["class"] == last):
        terminal.console.print(f"  {row['first']} less {row['second']}: {_in_words(row)}")
    terminal.console.print()


def _in_words(row: Mapping[str, Any]) -> str:
    """One row of `paired_differences`: "+0.031 (-0.002 to +0.064), n = 6; …"."""
    parts = []
    if row["difference"] is not None:
        ends = "" if row["low"] is None else f" ({row['low']:+.3f} to {row['high']:+.3f})"
        parts.append(f"{row['difference']:+.3f}{ends}, n = {row['pairs']}")
        parts.append(f"Holm-corrected p = {row['p_holm']:.3f}")
    return "; ".join([*parts, *([row["note"]] if row["note"] else [])])


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
