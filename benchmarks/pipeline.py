"""What making the batches costs: in training beside a batch in memory, and by itself, by part.

    python benchmarks/pipeline.py --arrays prepared/arrays/fold0

Training runs in one process by `src.training.fit`, epochs with the real pipeline and epochs that
show one batch again and again in turn. The network, loss, batch size, context, sampling and
augmentation are those of params.yaml.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this is started as a file, and the project is not installed

from benchmarks.machine import machine  # noqa: E402
from benchmarks.setting import bind_to_cores, limited_environment  # noqa: E402
from src import terminal  # noqa: E402
from src.config import load_params  # noqa: E402
from src.config.groups import Train  # noqa: E402
from src.data.arrays import Arrays, open_arrays  # noqa: E402
from src.data.augmentation import Augmentation  # noqa: E402
from src.data.pipeline import TrainingCases, whole_slices  # noqa: E402
from src.data.sampling import Sampling  # noqa: E402
from src.stages.training_setup import trainable_network  # noqa: E402

# What a case passes through, in order, and the changes that stand for it.
GEOMETRY = (
    "flip_horizontal", "flip_vertical", "rotation_degrees", "scale", "shear_degrees", "translation",
)  # fmt: skip
ELASTIC = ("elastic",)
INTENSITIES = ("blur", "low_resolution", "gamma", "contrast", "brightness")
NOISE = ("noise",)
BATCHES = 20  # different ones that are timed


def training_cases(
    settings: Train, arrays: Arrays, augmentation: Augmentation | None, steps: int
) -> TrainingCases:
    """The training side with epochs of so many full batches."""
    sampling = Sampling(**settings.sampling.model_dump())
    return TrainingCases(
        arrays,
        arrays.rows("train"),
        sampling=replace(sampling, cases_per_epoch=steps * settings.batch_size),
        augmentation=augmentation,
        context=settings.context,
        batch_size=settings.batch_size,
        multiple=2**settings.model.depth,
        seed=settings.seed,
    )


def without(augmentation: Augmentation, names: tuple[str, ...]) -> Augmentation:
    """The same with some changes switched off."""
    return replace(augmentation, **dict.fromkeys(names, 0.0))


def parts_of_a_batch(
    settings: Train, arrays: Arrays, augmentation: Augmentation, repeats: int
) -> dict[str, float]:
    """Processor time of a batch by part, each what it adds to those before it.

    Returns:
        Name of the part -> median of the milliseconds.
    """
    import cv2

    cv2.setNumThreads(1)
    stages: dict[str, Augmentation | None] = {
        "reading": None,
        "geometry": without(augmentation, ELASTIC + INTENSITIES + NOISE),
        "elastic": without(augmentation, INTENSITIES + NOISE),
        "intensities": without(augmentation, NOISE),
        "noise": augmentation,
    }
    epochs = {
        name: training_cases(settings, arrays, stage, BATCHES).epoch(0)
        for name, stage in stages.items()
    }
    last = epochs["noise"]

    def cases(name: str) -> Callable[[int], object]:
        read = epochs[name].read
        return lambda number: [read(int(position)) for position in last.positions[number]]

    work = {name: cases(name) for name in stages} | {"stacking": last.__getitem__}
    spent: dict[str, list[float]] = {name: [] for name in work}
    for number in range(BATCHES):
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(repeats):
            for name, make in work.items():
                started = time.process_time()
                make(number)
                seconds[name].append(time.process_time() - started)
        for name, found in seconds.items():
            spent[name].append(1000 * statistics.median(found))
    cv2.setNumThreads(-1)
    # Some batches are changed more than others: the mean over them of each median.
    means = {name: statistics.mean(found) for name, found in spent.items()}
    before = [0.0, *means.values()][:-1]
    return {
        **{
            name: mean - earlier
            for (name, mean), earlier in zip(means.items(), before, strict=True)
        },
        "whole batch": means["stacking"],
    }


def steps_in_turn(
    settings: Train, arrays: Arrays, architecture: str, *, steps: int, rounds: int
) -> tuple[list[float], list[float]]:
    """Trains with the pipeline and with one batch in memory, epoch by epoch in turn.

    Args:
        settings: Of `train` in params.yaml.
        arrays: The prepared slices.
        architecture: Name of the network.
        steps: Of an epoch.
        rounds: Epochs of each kind that are counted.

    Returns:
        Milliseconds of a step with the pipeline, and with the batch in memory, one number a round.
    """
    from src.training import Checkpoint, Progress, fit

    epochs = 2 * (rounds + 1)
    settings = settings.model_copy(
        update={"epochs": epochs, "patience": epochs, "monitor": "loss", "max_minutes": None}
    )
    model, plan, matrix = trainable_network(settings, architecture, len(arrays.classes))
    cases = training_cases(
        settings, arrays, Augmentation(**settings.augmentation.model_dump()), steps
    )
    # Of the same shapes as the pipeline's, so that both train through the same graph.
    in_memory = cases.epoch(0).dataset().take(1).cache().repeat(steps)
    shown = whole_slices(
        arrays,
        arrays.rows("validation")[: settings.batch_size],
        context=settings.context,
        batch_size=settings.batch_size,
        multiple=2**settings.model.depth,
    )

    def batches(epoch: int) -> Any:
        return in_memory if epoch % 2 else cases.epoch(epoch).dataset()

    with (
        TemporaryDirectory() as folder,
        terminal.progress("training", epochs) as bar,
    ):
        progress = fit(
            model,
            plan,
            seed=settings.seed,
            steps_per_epoch=steps,
            training_batches=batches,
            validation_batches=shown.dataset,
            class_names=arrays.classes,
            matrix=matrix,
            checkpoint=Checkpoint(Path(folder), "benchmark"),
            progress=Progress(),
            on_epoch=lambda _: bar(),
        )
    spent = [1000 * row["train/seconds"] / steps for row in progress.history]
    return spent[2::2], spent[3::2]  # the first of each makes the graph


def main(
    arrays: Annotated[Path, typer.Option(help="folder of prepared slices")] = ROOT
    / "prepared"
    / "arrays"
    / "fold0",
    params: Annotated[Path, typer.Option(help="parameters")] = ROOT / "params.yaml",
    architecture: Annotated[str, typer.Option(help="network that is trained")] = "unet",
    elastic: Annotated[
        float | None, typer.Option(help="in place of train.augmentation.elastic")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="of an epoch")] = 40,
    rounds: Annotated[int, typer.Option(min=1, help="epochs of each kind")] = 7,
    repeats: Annotated[int, typer.Option(min=1, help="of each batch, for the parts")] = 15,
    cores: Annotated[int, typer.Option(min=1, help="to train on")] = 2,
) -> None:
    """Times the pipeline of training batches: what it adds to a training step, and its parts.

    Example: python benchmarks/pipeline.py --arrays prepared/arrays/fold0 --steps 20 --rounds 3
    """
    bind_to_cores(cores)
    os.environ.update(limited_environment(cores))
    settings = load_params(params).train
    if elastic is not None:
        changed = settings.augmentation.model_copy(update={"elastic": elastic})
        settings = settings.model_copy(update={"augmentation": changed})
    opened = open_arrays(arrays)
    parts = parts_of_a_batch(
        settings, opened, Augmentation(**settings.augmentation.model_dump()), repeats
    )
    piped, cached = steps_in_turn(settings, opened, architecture, steps=steps, rounds=rounds)

    table = Table("part of making a batch", "ms on one core", "share of a step")
    step = statistics.median(cached)
    for name, milliseconds in parts.items():
        table.add_row(name, f"{milliseconds:.2f}", f"{100 * milliseconds / step / cores:.1f} %")
    terminal.console.print(table)
    ratios = [one / two for one, two in zip(piped, cached, strict=True)]
    table = Table("a training step with", "ms")
    table.add_row("one batch in memory", f"{step:.1f}")
    table.add_row("the pipeline", f"{statistics.median(piped):.1f}")
    table.add_row(
        "ratio", f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    )
    terminal.console.print(table)
    height, width = opened.sizes[opened.rows("train")].max(axis=0)
    terminal.console.print(
        f"{architecture}, batches of {settings.batch_size} slices of up to {height} x {width} "
        f"pixels; parts: mean over {BATCHES} batches of the median of {repeats}, share of the time "
        f"of all cores in a step; steps: median of {rounds} epochs of {steps}, in brackets the "
        f"range. {machine()}, {cores} used; {date.today().isoformat()}"
    )


if __name__ == "__main__":
    terminal.run(main)
