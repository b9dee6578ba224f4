"""`python -m src.tune_trial FOLDER`: one trial of a study; `python -m src.tune` starts it."""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from src import search, terminal, tracking
from src.config import load_params
from src.data.arrays import open_arrays
from src.data.splits import fold_folder
from src.files import write_text
from src.stages.train import Trial, code_hash, train

if TYPE_CHECKING:
    from src.training import Progress

OBJECTIVE = "validation/mean_iou"
CHECKPOINT = "checkpoint"  # below the folder of a trial


@dataclass(frozen=True)
class Task:
    """What the process of a trial has to know beside its params.yaml; trial.json in its folder.

    Attributes:
        study: Name.
        number: Of the trial.
        pruner: See `search.Setting`.
        epochs: See `search.Setting`.
        fold: Whose prepared slices it trains on.
        parent_run_id: The MLflow run of the study.
        code_hash: Of the code that all trials of the study are trained by.
    """

    study: str
    number: int
    pruner: str
    epochs: int
    fold: int
    parent_run_id: str
    code_hash: str

    def save(self, folder: Path) -> None:
        """Writes trial.json."""
        write_text(folder / "trial.json", json.dumps(asdict(self), indent=2) + "\n")


def changed_code(task: Task) -> str | None:
    """What is wrong where the code that trains is no more that of the study; else None."""
    now = code_hash(Path(__file__).resolve().parent)
    if now == task.code_hash:
        return None
    return (
        f"the code that trains was changed while {task.study} ran (code_hash {task.code_hash} -> "
        f"{now}), so its trials and new ones could not be compared. Put back what changed, and the "
        "same command goes on; with the new code it begins another study, but not under the same "
        "--study."
    )


def run(root: Path, folder: Path, task: Task, running: search.RunningTrial) -> float:
    """Trains a trial in an MLflow run below that of the study.

    Args:
        root: The repository.
        folder: Of the trial: params.yaml; it keeps the checkpoint.
        task: From trial.json.
        running: Takes the value of every epoch.

    Returns:
        Mean IoU on validation of the epoch whose weights were kept.

    Raises:
        tracking.PrunedError: Others do better.
    """
    params = load_params(folder / "params.yaml")
    history: list[dict[str, float]] = []

    def note(progress: Progress) -> None:
        history[:] = progress.history
        for row in history:  # what was reported before a kill belongs to another trial of Optuna's
            running.report(int(row["epoch"]), row[OBJECTIVE])

    def on_start(run_id: str, progress: Progress) -> None:
        running.started(run_id)
        note(progress)

    def on_epoch(progress: Progress) -> None:
        note(progress)
        if progress.epoch < params.train.epochs and running.is_hopeless:
            raise tracking.PrunedError

    tags = {"stage": "trial", "study": task.study, "optuna_trial": str(task.number)}
    with TemporaryDirectory() as outputs:
        summary = train(
            root,
            params,
            params.architectures[0],
            task.fold,
            open_arrays(fold_folder(root / "prepared" / "arrays", task.fold)),
            checkpoints=folder / CHECKPOINT,
            trial=Trial(
                outputs=Path(outputs),
                name=f"trial {task.number}",
                parent_run_id=task.parent_run_id,
                tags={**tags, "state": "running"},
                on_start=on_start,
                on_epoch=on_epoch,
            ),
        )
    value = history[summary["best_epoch"] - 1][OBJECTIVE]
    run = tracking.Run(tracking.open_store(root), summary["run_id"])
    tracking.log_metrics(run, {"trial/validation_mean_iou": value})
    tracking.log_tags(run, {"state": "complete"})
    return value


def main(folder: Annotated[Path, typer.Argument(help="holds params.yaml and trial.json")]) -> None:
    """Trains one trial of a study. `python -m src.tune` starts this; you need not.

    Example: python -m src.tune_trial checkpoints/studies/study-3f9c1e/trial-7
    """
    task = Task(**json.loads((folder / "trial.json").read_text(encoding="utf-8")))
    for module in ("src.training", "src.data.pipeline"):
        importlib.import_module(module)  # first: what is loaded before the look is what trains
    if wrong := changed_code(task):
        raise typer.Exit(search.halt(wrong))
    code = search.run_trial(
        lambda running: run(Path.cwd(), folder, task, running),
        address=os.environ[search.ENVIRONMENT],
        study=task.study,
        number=task.number,
        pruner=task.pruner,
        epochs=task.epochs,
        pruned=tracking.PrunedError,
    )
    raise typer.Exit(code)


if __name__ == "__main__":
    terminal.run(main)
