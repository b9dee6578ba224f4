"""The scores of models side by side, as people read them: patient means with 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from src import terminal
from src.data.findings import count_of
from src.evaluation.overlap import MEAN_FOREGROUND

SUBSETS = ("validation", "test")
DISTANCES = ("hd95_mm", "nsd")  # ASSD beside them would not fit into 80 columns
TITLES = {
    "dice": "Dice", "iou": "IoU", "hd95_mm": "HD95 (mm)", "assd_mm": "ASSD (mm)", "nsd": "NSD",
}  # fmt: skip


def with_interval(side: Mapping[str, Any], quantity: str, label: str) -> str:
    """A mean over patients with its interval: "0.894 (0.863 to 0.925)", mm "9.87 (5.12 to 24.8)".

    Args:
        side: The scores of one side, as `SubsetSummary.to_dict` gives them.
        quantity: Such as "dice", "nsd" or "hd95_mm".
        label: A class, or `mean_foreground`.

    Returns:
        The text; "not scored" where no patient was, and the mean alone where it was a single one.
    """
    mean, low, high = (side[f"{quantity}{end}"][label] for end in ("", "_low", "_high"))
    shown = _millimetres if quantity.endswith("_mm") else "{:.3f}".format
    return with_ends(mean, low, high, shown)


def with_ends(
    mean: float | None,
    low: float | None,
    high: float | None,
    shown: Callable[[float], str] = "{:.3f}".format,
) -> str:
    """A number with the ends of its interval: "0.894 (0.863 to 0.925)"; see `with_interval`."""
    if mean is None:
        return "not scored"
    if low is None or high is None:
        return shown(mean)
    return f"{shown(mean)} ({shown(low)} to {shown(high)})"


def _millimetres(value: float) -> str:
    """Three digits: 9.87, 24.8, 310."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


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
    table = _table(f"{subset} patients", ("model",), quantities)
    for label in foreground(next(iter(results.values()))[subset]):
        for name, result in results.items():
            table.add_row(*_cells(result[subset], label, (name,), quantities))
    return table


def side_table(side: Mapping[str, Any], title: str, quantities: Sequence[str]) -> Table:
    """The scores of one method on one set of patients, a row for each class.

    Args:
        side: As `SubsetSummary.to_dict` gives them.
        title: What stands above.
        quantities: Which scores; three fit into 80 columns.
    """
    table = _table(title, (), quantities)
    for label in foreground(side):
        table.add_row(*_cells(side, label, (), quantities))
    return table


def one_empty_notes(side: Mapping[str, Any]) -> list[str]:
    """A sentence for each class that some slices have on one side alone: it explains HD95.

    Args:
        side: As `SubsetSummary.to_dict` gives them.
    """
    return [
        f"{name}: {count_of(int(number), 'slice')} with it in truth or prediction alone; HD95 and "
        "ASSD are there the diagonal of the image, NSD is 0"
        for name, number in side["num_one_empty_cases"].items()
        if number and name != MEAN_FOREGROUND
    ]


def _table(title: str, more: Sequence[str], quantities: Sequence[str]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("class", overflow="fold")
    for column in more:
        table.add_column(column, no_wrap=True)
    table.add_column("n", no_wrap=True, justify="right")
    for quantity in quantities:
        table.add_column(TITLES.get(quantity, quantity), no_wrap=True)
    return table


def _cells(
    side: Mapping[str, Any], label: str, more: Sequence[str], quantities: Sequence[str]
) -> list[str]:
    return [
        "mean" if label == MEAN_FOREGROUND else escape(label),
        *map(escape, more),
        str(side["num_scored"][label]),
        *(with_interval(side, quantity, label) for quantity in quantities),
    ]


def print_scores(results: Mapping[str, Mapping[str, Any]], quantities: Sequence[str]) -> None:
    """Prints the table of the validation patients and that of the test patients."""
    for subset in SUBSETS:
        terminal.console.print(score_table(results, subset, quantities))
        terminal.console.print()
