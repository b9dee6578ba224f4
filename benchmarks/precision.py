"""What training in bfloat16 costs in accuracy, beside what another seed changes.

    python benchmarks/precision.py --data FOLDER --out FOLDER

A U-Net trains for the same number of epochs on the same patients, with each seed once in float32
and once in mixed precision, which `train.precision: auto` chooses where the processor has the
instructions. Masks of the validation patients are made as `src.predict` makes them, in the number
format of the training. The test patients have no part in it.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this is started as a file, and the project is not installed

from benchmarks.machine import machine  # noqa: E402
from benchmarks.ours import validation_overlap  # noqa: E402
from benchmarks.setting import Setting, make_setting  # noqa: E402
from src import terminal  # noqa: E402
from src.config import load_params  # noqa: E402
from src.evaluation.statistics import Interval  # noqa: E402
from src.files import write_text  # noqa: E402

# As the table names them -> train.precision.
FORMATS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
COLUMNS = (
    "seed", "Dice, float32", "Dice, bfloat16", "change",
    "IoU, float32", "IoU, bfloat16", "change",
)  # fmt: skip

Scores = dict[str, float]
"""Dice and IoU, mean over the validation patients."""


def measure(
    precision: str, seed: int, setting: Setting, out: Path, params: Path, *, epochs: int
) -> Scores:
    """Trains once unless an earlier call did it.

    Args:
        precision: One of FORMATS.
        seed: Of the weights at the start, of the batches and of dropout.
        setting: The patients.
        out: Folder of the benchmark.
        params: The recipe, whose warm-up keeps its share of the epochs.
        epochs: Of the training.

    Returns:
        Mean Dice and IoU over the validation patients.
    """
    recipe = load_params(params).train
    changes = {
        "train.precision": FORMATS[precision],
        "train.seed": seed,
        "train.epochs": epochs,
        "train.warmup_epochs": round(recipe.warmup_epochs * epochs / recipe.epochs),
        "train.patience": epochs,
        "train.max_minutes": None,
    }
    found = validation_overlap(
        f"{precision}, seed {seed}", out / precision / str(seed), setting, changes, epochs=epochs
    )
    return {name: float(np.nanmean(list(found[name].values()))) for name in ("dice", "iou")}


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean with its 95 % interval by Student's t.

    Seeds are few, and a bootstrap of few values is too narrow.

    Args:
        values: At least two.
    """
    from scipy import stats

    mean, n = float(np.mean(values)), len(values)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def verdict(difference: Interval, noise: float) -> str:
    """What the seeds say, one sentence.

    Args:
        difference: Of Dice, bfloat16 less float32, over the seeds.
        noise: Standard deviation of Dice between the seeds of float32.
    """
    mean, at_worst = f"{difference.mean:+.3f}", f"{-difference.low:.3f}"
    if difference.high < 0:
        size = "more" if -difference.mean > noise else "less"
        return f"bfloat16 costs Dice ({mean}), {size} than another seed changes ({noise:.3f})."
    if difference.low > -noise:
        return (
            f"No cost of bfloat16 ({mean}); one as large as what another seed changes "
            f"({noise:.3f}) is ruled out."
        )
    return (
        f"No cost of bfloat16 is seen ({mean}) beside what another seed changes ({noise:.3f}); "
        f"with {difference.n} seeds one of up to {at_worst} is not ruled out."
    )


def rows_of(scores: dict[str, list[Scores]]) -> tuple[list[list[str]], str]:
    """The table as text, and the verdict.

    Args:
        scores: Number format -> scores of the seeds 1, 2, …

    Returns:
        A row for each seed, then of each column the mean, the 95 % interval of the mean difference,
        and the standard deviation between seeds.
    """
    values: list[list[float]] = []
    for name in ("dice", "iou"):
        single, half = ([found[name] for found in scores[precision]] for precision in FORMATS)
        values += [single, half, [b - a for a, b in zip(single, half, strict=True)]]
    rows = [
        [str(seed), *(_number(value, place) for place, value in enumerate(row))]
        for seed, row in enumerate(zip(*values, strict=True), start=1)
    ]
    means = [mean_interval(column) for column in values]
    rows.append(["mean", *(_number(mean.mean, place) for place, mean in enumerate(means))])
    interval = [f"{mean.low:+.3f} to {mean.high:+.3f}" for mean in means]
    rows.append(["95 %", "", "", interval[2], "", "", interval[5]])
    spreads = [float(np.std(column, ddof=1)) for column in values]
    rows.append(["SD", *(f"{spread:.3f}" for spread in spreads)])
    return rows, verdict(means[2], spreads[0])


def _number(value: float, place: int) -> str:
    return f"{value:+.3f}" if place % 3 == 2 else f"{value:.3f}"


def main(
    data: Annotated[Path, typer.Option(help="scans and masks, one volume a patient")],
    out: Annotated[Path, typer.Option(help="results; started again, it goes on there")],
    epochs: Annotated[int, typer.Option(min=1, help="of each training")] = 8,
    seeds: Annotated[int, typer.Option(min=2, help="trainings in each number format")] = 8,
    params: Annotated[Path, typer.Option(help="the recipe")] = ROOT
    / "examples"
    / "sts-ct"
    / "params.yaml",
    cores: Annotated[int, typer.Option(min=1, help="for each training")] = 2,
) -> None:
    """Trains in float32 and in bfloat16 for the same epochs and compares validation Dice.

    Example: python benchmarks/precision.py --data FOLDER --out precision
    """
    out = out.resolve()
    setting = make_setting(data, params, out, cores)
    scores: dict[str, list[Scores]] = {precision: [] for precision in FORMATS}
    for seed in range(1, seeds + 1):
        for precision, found in scores.items():
            try:
                found.append(measure(precision, seed, setting, out, params, epochs=epochs))
            except subprocess.CalledProcessError:
                terminal.fail(f"training failed: see {out / precision / str(seed) / 'log.txt'}")
    report(scores, setting, out, epochs)


def report(scores: dict[str, list[Scores]], setting: Setting, out: Path, epochs: int) -> None:
    """Prints the table and the verdict, and writes precision.md."""
    rows, said = rows_of(scores)
    patients = {side: len(setting.patients[side]) for side in ("train", "validation")}
    head = (
        f"{machine()}, {date.today().isoformat()}; U-Net, {epochs} epochs, {patients['train']} "
        f"patients to train on, {patients['validation']} to validate on"
    )
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row)
    lines: list[Any] = [head, "", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    write_text(out / "precision.md", "\n".join([*lines, "", said, ""]))
    terminal.console.print(table)
    terminal.console.print(head)
    terminal.console.print(f"{said} Table: {out / 'precision.md'}")


if __name__ == "__main__":
    terminal.run(main)
