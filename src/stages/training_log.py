"""What a training tells while it goes on and when it is done: terminal, MLflow, curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from src import figures, terminal, tracking
from src.data.arrays import Arrays
from src.files import whole_folder

if TYPE_CHECKING:
    from src.training import Progress


class Bar:
    """Progress over epochs and batches at the terminal, and a line for every epoch."""

    def __init__(self, epochs: int, steps: int, done: int) -> None:
        self._epochs, self._steps, self._done = epochs, steps, done

    def __enter__(self) -> Bar:
        self._context: Any = terminal.progress("training", self._epochs * self._steps)
        self._tick = self._context.__enter__()
        for _ in range(self._done * self._steps):
            self._tick()
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def batch(self) -> None:
        """To be called after every batch."""
        self._tick()

    def epoch(self, now: Progress, classes: tuple[str, ...]) -> None:
        """To be called after every epoch."""
        row = now.history[-1]
        iou = " ".join(f"{name} {row[f'validation/iou/{name}']:.3f}" for name in classes[1:])
        best = "  best so far" if now.best_epoch == now.epoch else ""
        terminal.console.print(
            f"epoch {now.epoch:3d}/{self._epochs}  loss {row['train/loss']:.4f}  "
            f"validation {row['validation/loss']:.4f}  IoU {iou}{best}"
        )


def log_datasets(run: tracking.Run, arrays: Arrays, digest: str) -> None:
    """Logs the slices of each side to a run, by pseudonym; `digest` is the hash of the data."""
    columns = ["case_pseudonym", "pseudonym", "source", "height", "width"]
    for subset in ("train", "validation", "test"):
        rows = arrays.index.loc[arrays.index["subset"] == subset, columns]
        patients = rows["pseudonym"].nunique()
        tracking.log_dataset(
            run,
            rows,
            name=f"{subset}: {patients} patients, {len(rows)} slices",
            digest=digest,
            context=subset,
        )


def run_description(name: str, arrays: Arrays, trainable: int, policy: str) -> str:
    """What stands above a run in MLflow, in Markdown."""

    def side(subset: str) -> str:
        rows = arrays.index[arrays.index["subset"] == subset]
        return f"{rows['pseudonym'].nunique()} patients ({len(rows)} slices)"

    return (
        f"**{name}**, {trainable:,} parameters, {policy}. Trained on {side('train')}, "
        f"validated on {side('validation')}, tested on {side('test')}. Classes: "
        f"{', '.join(arrays.classes)}.\n\nResearch use only; not a clinical device."
    )


def log_curves(run: tracking.Run, progress: Progress, classes: tuple[str, ...]) -> None:
    """Draws the learning curves into a run."""
    columns = {key: [row[key] for row in progress.history] for key in progress.history[0]}
    columns.pop("epoch")
    curves = figures.learning_curves(columns, class_names=classes, best_epoch=progress.best_epoch)
    tracking.log_figure(run, curves, "figures/learning_curves.png")


def write_curves(folder: Path, history: list[dict[str, float]]) -> None:
    """Writes a CSV file for each quantity: epoch, train, validation.

    One definition in dvc.yaml then draws them all, of however many architectures: `dvc plots` takes
    a folder, but only files with the same columns in it.

    Args:
        folder: Such as reports/curves/unet/fold0; replaced when all files are written.
        history: A row per epoch; `train/iou/lesion` and `validation/iou/lesion` become the columns
            of iou_lesion.csv. What has no such partner is left out, and seconds, which differ
            from run to run.
    """
    quantities = [
        name.removeprefix("train/")
        for name in history[0]
        if name.startswith("train/")
        and name != "train/seconds"
        and f"validation/{name.removeprefix('train/')}" in history[0]
    ]
    with whole_folder(folder) as aside:
        for quantity in quantities:
            rows = [
                f"{row['epoch']},{row[f'train/{quantity}']},{row[f'validation/{quantity}']}"
                for row in history
            ]
            path = aside / f"{quantity.replace('/', '_')}.csv"
            path.write_text("\n".join(["epoch,train,validation", *rows, ""]), encoding="utf-8")
