"""The scores of models side by side, as people read them: patient means with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from src import terminal
from src.evaluation.overlap import MEAN_FOREGROUND

SUBSETS = ("validation", "test")
TITLES = {"dice": "Dice", "iou": "IoU"}


def with_interval(side: Mapping[str, Any], quantity: str, label: str) -> str:
    """A mean over patients with its interval: "0.894 (0.863 to 0.925)".

    Args:
        side: The scores of one side, as `Summary.to_dict` gives them.
        quantity: "dice", "iou", "precision" or "recall".
        label: A class, or `mean_foreground`.

    Returns:
        The text; "not scored" where no patient was, and the mean alone where it was a single one.
    """
    mean, low, high = (side[f"{quantity}{end}"][label] for end in ("", "_low", "_high"))
    if mean is None:
        return "not scored"
    return f"{mean:.3f}" if low is None else f"{mean:.3f} ({low:.3f} to {high:.3f})"


def foreground(side: Mapping[str, Any]) -> list[str]:
    """The classes that are compared: all but the background, then `mean_foreground`."""
    return list(side["dice"])[1:]


def markdown_table(result: Mapping[str, Any]) -> str:
    """The scores of one model, both sides, as a Markdown table for MLflow's descriptions.

    Args:
        result: As in scores.json.
    """
    lines = [
        "| side | class | patients | Dice (95 % interval) | IoU (95 % interval) |",
        "|---|---|---|---|---|",
    ]
    for subset in SUBSETS:
        side = result[subset]
        lines += [
            f"| {subset} | {label} | {side['num_scored'][label]} | "
            f"{with_interval(side, 'dice', label)} | {with_interval(side, 'iou', label)} |"
            for label in foreground(side)
        ]
    return "\n".join(lines)


def score_table(
    results: Mapping[str, Mapping[str, Any]], subset: str, quantities: Sequence[str]
) -> Table:
    """One side of the split, a row for each class and model.

    With two quantities it fits into 80 columns; a long class name is folded, never a number.

    Args:
        results: Name of a model -> its scores, as in scores.json.
        subset: "validation" or "test".
        quantities: Which scores, such as ("dice", "iou").

    Returns:
        The table. `n` is the number of patients scored; the row "mean" is over the foreground
        classes.
    """
    table = Table(
        title=f"{subset} patients",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("class", overflow="fold")
    table.add_column("model", no_wrap=True)
    table.add_column("n", no_wrap=True, justify="right")
    for quantity in quantities:
        table.add_column(TITLES.get(quantity, quantity), no_wrap=True)
    for label in foreground(next(iter(results.values()))[subset]):
        for name, result in results.items():
            side = result[subset]
            table.add_row(
                "mean" if label == MEAN_FOREGROUND else escape(label),
                escape(name),
                str(side["num_scored"][label]),
                *(with_interval(side, quantity, label) for quantity in quantities),
            )
    return table


def print_scores(results: Mapping[str, Mapping[str, Any]], quantities: Sequence[str]) -> None:
    """Prints the table of the validation patients and that of the test patients."""
    for subset in SUBSETS:
        terminal.console.print(score_table(results, subset, quantities))
        terminal.console.print()
