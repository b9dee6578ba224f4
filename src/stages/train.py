"""Stage `train`: one network on one fold.

Writes models/ARCHITECTURE/foldN and reports/curves/ARCHITECTURE/foldN.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from src import processor, terminal, tracking
from src.config import Params, load_params, public_parameters, truth_parameters
from src.data.arrays import Arrays, open_arrays
from src.data.splits import fold_folder
from src.files import md5_of
from src.stages.folds import label, recipe, run_name
from src.stages.trained_model import model_card, write_model
from src.stages.training_log import Bar, log_curves, log_datasets, run_description, write_curves
from src.stages.training_pictures import OverlayLogger, augmentation_sheet, fixed_cases
from src.stages.training_setup import slices_of, trainable_network

if TYPE_CHECKING:
    import keras

    from src.training import Checkpoint, Progress

# The code that decides the weights: a checkpoint of other code is not taken up.
TRAINING_CODE = (
    "stages/train.py",
    "stages/training_setup.py",
    "training.py",
    "label_values.py",
    "data",
    "models",
)
# The parameters that do: what is read after training may change while a checkpoint waits.
TRAINING_PARAMETERS = ("architecture", "data", "split", "prepare", "train")


@dataclass(frozen=True)
class Trial:
    """What a study adds to a training: places of its own, and a say after every epoch.

    Attributes:
        outputs: Takes models/ and reports/. No picture is drawn on the way.
        name: Stands before the name of the run, such as "trial 7".
        parent_run_id: The run of the study.
        tags: Added to those of the run.
        on_start: Called with the id of the run and where it stands.
        on_epoch: Called after every epoch; may raise `tracking.PrunedError` to end the training.
    """

    outputs: Path
    name: str
    parent_run_id: str
    tags: Mapping[str, str]
    on_start: Callable[[str, Progress], None]
    on_epoch: Callable[[Progress], None]


def train(
    root: Path,
    params: Params,
    architecture: str,
    fold: int,
    arrays: Arrays,
    *,
    checkpoints: Path,
    trial: Trial | None = None,
) -> dict[str, Any]:
    """Trains one network on one fold, logs it to MLflow and writes its model folder and curves.

    A run that was killed goes on from its last whole epoch, in the same MLflow run.

    Args:
        root: The folder with params.yaml, data.dvc and prepared/; models/ and reports/ are written
            below it.
        params: All parameters.
        architecture: Name of the network.
        fold: Number of the fold.
        arrays: Its prepared slices.
        checkpoints: Folder for the state of an unfinished run.
        trial: Of a study; None for the pipeline.

    Returns:
        The summary that stands in models/ARCHITECTURE/foldN/run.json.
    """
    import keras

    from src.models import inference_model
    from src.training import Checkpoint, fit

    settings = params.train
    model, plan, matrix = trainable_network(settings, architecture, len(arrays.classes))
    policy = keras.config.dtype_policy().name
    cases, validation = slices_of(settings, arrays)
    steps = cases.steps_per_epoch
    public = public_parameters(params, architecture, fold)
    provenance = tracking.provenance(
        root, root / "prepared" / "split.csv", truth_parameters(params), fold
    )
    cases_file = fold_folder(root / "prepared" / "arrays", fold) / "index.csv"
    place = fold_folder(checkpoints / architecture, fold)
    checkpoint = Checkpoint(place, fingerprint(public, policy, provenance, cases_file))
    store = tracking.open_store(root)
    progress = resumed(checkpoint, model, store)
    progress.note["machine"] = machines(progress.note.get("machine"), processor.machine())

    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    description = run_description(label(params, architecture, fold), arrays, trainable, policy)
    outputs = trial.outputs if trial else root
    name = run_name(params, architecture, fold)
    with tracking.start_run(
        store,
        f"{trial.name}: {name}" if trial else name,
        parameters=public,
        tags={
            **provenance,
            "stage": "train",
            "architecture": architecture,
            "fold": str(fold),
            "precision": policy,
            "machine": progress.note["machine"],
            "parameters": str(trainable),
            **(trial.tags if trial else {}),
        },
        description=description,
        run_id=progress.note.get("run_id"),
        parent_run_id=trial.parent_run_id if trial else None,
    ) as run:
        progress.note["run_id"] = run.run_id
        log_datasets(run, arrays, provenance["data_hash"])
        show = None
        if trial:
            trial.on_start(run.run_id, progress)
        else:
            show = OverlayLogger(
                tracking.picture_run(run),
                inference_model(model),
                arrays,
                fixed_cases(arrays),
                context=settings.context,
                every=settings.overlay_every,
            )
        if show and not progress.epoch:
            show(0)
            tracking.log_figure(run, augmentation_sheet(params, arrays), "figures/augmentation.png")
        with Bar(settings.epochs, steps, progress.epoch) as bar:

            def on_epoch(now: Progress) -> None:
                row = {key: value for key, value in now.history[-1].items() if key != "epoch"}
                tracking.log_metrics(run, row, step=now.epoch)
                if show:
                    show(now.epoch)
                bar.epoch(now, arrays.classes)
                if trial:
                    trial.on_epoch(now)

            def on_end(now: Progress) -> None:
                if show:
                    show.last(now.epoch)

            progress = fit(
                model,
                plan,
                seed=settings.seed,
                steps_per_epoch=steps,
                training_batches=lambda epoch: cases.epoch(epoch).dataset(),
                validation_batches=validation.dataset,
                class_names=arrays.classes,
                matrix=matrix,
                checkpoint=checkpoint,
                progress=progress,
                on_batch=bar.batch,
                on_epoch=on_epoch,
                on_end=on_end,
            )
        best_value = float("nan") if progress.best_value is None else progress.best_value
        best = {f"best_validation_{settings.monitor}": best_value}
        made = recipe(params, architecture, provenance["data_hash"])
        card = model_card(
            architecture, params, arrays, parameters=trainable, policy=policy, made=made
        )
        folder = fold_folder(outputs / "models" / architecture, fold)
        summary = write_model(
            folder,
            model,
            card,
            params,
            arrays,
            {
                "run_id": run.run_id,
                "description": description,
                "fold": fold,
                "epochs": progress.epoch,
                "steps": progress.epoch * steps,
                "best_epoch": progress.best_epoch,
                **best,
                "seconds": round(progress.seconds, 1),
                "peak_memory_mb": _peak_memory_mb(),
                "machine": progress.note["machine"],
                **{key: provenance[key] for key in tracking.PROVENANCE},
            },
        )
        curves = fold_folder(outputs / "reports" / "curves" / architecture, fold)
        write_curves(curves, progress.history)
        log_curves(run, progress, arrays.classes)
        tracking.log_metrics(
            run,
            {
                "train_summary/best_epoch": progress.best_epoch,
                **{f"train_summary/{key}": value for key, value in best.items()},
                "train_summary/seconds": summary["seconds"],
            },
        )
        tracking.log_model(run, folder, code=root / "src")
    checkpoint.remove()
    terminal.console.print(f"engine {summary['engine']}")
    return summary


def resumed(checkpoint: Checkpoint, model: keras.Model, store: tracking.Store) -> Progress:
    """Where the training goes on: after the last epoch of an unfinished run that fits, or at 0.

    Args:
        checkpoint: Of the run.
        model: Compiled; gets the kept state.
        store: In which an unfinished run that does not fit comes to its end.
    """
    from src.training import Progress

    kept = checkpoint.load(model)
    if kept:
        terminal.console.print(f"going on after epoch {kept.epoch} of an unfinished run")
        return kept
    left = checkpoint.note()
    if left is not None:
        terminal.warn(
            "an unfinished run of other data, parameters or code was found; it is begun anew"
        )
        if run_id := left.get("run_id"):
            tracking.end_run(tracking.Run(store, run_id), "KILLED", {"state": "begun anew"})
    return Progress()


def machines(before: str | None, here: str) -> str:
    """What computed a training in turn, such as "2 cores, AMD EPYC; 1 core, AMD EPYC".

    Weights can be repeated to the bit with the same processor and number of cores alone: sums are
    added up in another order elsewhere. Another machine goes on with a warning.

    Args:
        before: What was kept of an unfinished run; None at the start.
        here: What goes on.
    """
    if before is None or before.rpartition("; ")[2] == here:
        return before or here
    terminal.warn(
        f"this training was begun on {before} and goes on on {here}: its weights will be those of "
        "neither alone. To have them again to the bit, train on one machine from the start: remove "
        "checkpoints/ and give the same command."
    )
    return f"{before}; {here}"


def fingerprint(
    public: Mapping[str, Any], policy: str, provenance: Mapping[str, str], cases: Path
) -> str:
    """Of all that decides the weights: a checkpoint with another one is not taken up.

    Args:
        public: Of `public_parameters`; what is read after training is left out.
        policy: Precision.
        provenance: Of the data and the split.
        cases: The table of the prepared slices.
    """
    return tracking.run_name(
        public["architecture"],
        {
            "parameters": {name: public[name] for name in TRAINING_PARAMETERS},
            "policy": policy,
            **{name: provenance[name] for name in ("data_hash", "split_hash")},
            "cases": md5_of(cases),
            "code": code_hash(Path(__file__).resolve().parents[1]),
        },
    )


def _peak_memory_mb() -> int:
    """Of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB, macOS in bytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def code_hash(source: Path) -> str:
    """The hash of `TRAINING_CODE` below the folder `source`, as six hex digits."""
    files = sorted(
        path
        for name in TRAINING_CODE
        for path in (source / name, *(source / name).rglob("*.py"))
        if path.is_file()
    )
    return tracking.short_hash({str(path.relative_to(source)): md5_of(path) for path in files})


def main(
    architecture: Annotated[str, typer.Argument(help="one of architectures in params.yaml")],
    fold: Annotated[int, typer.Argument(help="one of split.fold in params.yaml")] = 0,
) -> None:
    """Trains one network on the prepared slices; a killed run goes on where it stopped.

    Example: python -m src.stages.train unet 0
    """
    root = Path.cwd()
    params = load_params(root / "params.yaml")
    arrays = open_arrays(fold_folder(root / "prepared" / "arrays", fold))
    summary = train(root, params, architecture, fold, arrays, checkpoints=root / "checkpoints")
    terminal.console.print(
        f"{label(params, architecture, fold)}: best epoch {summary['best_epoch']} of "
        f"{summary['epochs']}, {summary['seconds']:.0f} s of training; model in "
        f"models/{architecture}/fold{fold}, curves and pictures in the MLflow UI (make ui)"
    )


if __name__ == "__main__":
    terminal.run(main)
