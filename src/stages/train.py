"""Stage `train`: one network on one fold.

Writes models/ARCHITECTURE/foldN and reports/curves/ARCHITECTURE/foldN.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from src import figures, terminal, tracking
from src.config import Params, load_params, public_parameters
from src.config.groups import Train
from src.data.arrays import Arrays, open_arrays
from src.data.augmentation import Augmentation
from src.data.sampling import Sampling
from src.data.splits import fold_folder
from src.engine_export import export_checked
from src.engines import keras_engine
from src.evaluation.temperature import PixelSample, fit_temperature
from src.files import md5_of, whole_folder
from src.inference import Segmenter, predicted_scans
from src.model_files import ModelCard, save_model
from src.postprocessing import PLAIN, choose, plain_dice
from src.stages.folds import label, recipe, run_name
from src.stages.training_log import Bar, log_datasets, run_description, write_curves
from src.stages.training_pictures import OverlayLogger, augmentation_sheet, fixed_cases
from src.tiling import Tiling

if TYPE_CHECKING:
    import keras

    from src.models.metrics import ConfusionMatrix
    from src.training import Optimisation, Progress

TEMPERATURE_PIXELS = 200_000  # drawn from all of the validation side
# The code that decides the weights: a checkpoint of other code is not taken up.
TRAINING_CODE = ("stages/train.py", "training.py", "data", "models")


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

    from src.data.pipeline import TrainingCases, whole_slices
    from src.models import inference_model
    from src.training import Checkpoint, Progress, fit

    settings = params.train
    model, plan, matrix = trainable_network(settings, architecture, len(arrays.classes))
    policy = keras.config.dtype_policy().name
    shared: dict[str, Any] = {
        "context": settings.context,
        "batch_size": settings.batch_size,
        "multiple": 2**settings.model.depth,
    }
    cases = TrainingCases(
        arrays,
        arrays.rows("train"),
        sampling=Sampling(**settings.sampling.model_dump()),
        augmentation=Augmentation(**settings.augmentation.model_dump()),
        seed=settings.seed,
        **shared,
    )
    looked_at = spread(arrays.rows("validation"), settings.validation_cases)
    validation = whole_slices(arrays, looked_at, **shared)
    steps = cases.steps_per_epoch
    public = public_parameters(params, architecture, fold)
    provenance = tracking.provenance(root, root / "prepared" / "split.csv", fold)
    fingerprint = tracking.run_name(
        architecture,
        {
            "parameters": public,
            "policy": policy,
            **{k: provenance[k] for k in ("data_hash", "split_hash")},
            "cases": md5_of(fold_folder(root / "prepared" / "arrays", fold) / "index.csv"),
            "code": code_hash(Path(__file__).resolve().parents[1]),
        },
    )
    checkpoint = Checkpoint(fold_folder(checkpoints / architecture, fold), fingerprint)
    progress = checkpoint.load(model) or Progress()
    if progress.epoch:
        terminal.console.print(f"going on after epoch {progress.epoch} of an unfinished run")

    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    description = run_description(label(params, architecture, fold), arrays, trainable, policy)
    store = tracking.open_store(root)
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
                    show(now.epoch, last=now.epoch == settings.epochs)
                bar.epoch(now, arrays.classes)
                if trial:
                    trial.on_epoch(now)

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
            )
        in_halves, model = model.in_halves, inference_model(model)
        made = recipe(params, architecture, provenance["data_hash"])
        card = replace(_card(architecture, params, arrays, trainable, policy), recipe=made)
        engine = keras_engine(model, card.in_channels, in_halves=in_halves)
        segmenter = Segmenter(model, arrays.settings, card, engine=engine)
        segmenter, dice = settled(params, segmenter, arrays)
        seconds = round(progress.seconds, 1)
        best = {
            f"best_validation_{settings.monitor}": float("nan")
            if progress.best_value is None
            else progress.best_value
        }
        summary: dict[str, Any] = {
            "run_id": run.run_id,
            "description": description,
            "architecture": architecture,
            "fold": fold,
            "recipe": made,
            "parameters": trainable,
            "precision": policy,
            "epochs": progress.epoch,
            "steps": progress.epoch * steps,
            "best_epoch": progress.best_epoch,
            **best,
            "seconds": seconds,
            "peak_memory_mb": _peak_memory_mb(),
            **{key: provenance[key] for key in tracking.PROVENANCE},
        }
        folder = fold_folder(outputs / "models" / architecture, fold)
        with whole_folder(folder) as aside:
            save_model(aside, model, segmenter.card, arrays.settings)
            summary["engine"] = export_checked(
                segmenter, aside, arrays, arrays.rows("validation"), dice
            )
            (aside / "run.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        write_curves(
            fold_folder(outputs / "reports" / "curves" / architecture, fold), progress.history
        )
        tracking.log_metrics(
            run,
            {
                "train_summary/best_epoch": progress.best_epoch,
                **{f"train_summary/{key}": value for key, value in best.items()},
                "train_summary/seconds": seconds,
            },
        )
        columns = {key: [row[key] for row in progress.history] for key in progress.history[0]}
        columns.pop("epoch")
        curves = figures.learning_curves(
            columns, class_names=arrays.classes, best_epoch=progress.best_epoch
        )
        tracking.log_figure(run, curves, "figures/learning_curves.png")
        tracking.log_model(run, folder, code=root / "src")
    checkpoint.remove()
    terminal.console.print(f"engine {summary['engine']}")
    return summary


def trainable_network(
    settings: Train, architecture: str, num_classes: int
) -> tuple[keras.Model, Optimisation, ConfusionMatrix]:
    """A network with its loss and optimiser, and this process set up to train it.

    From here on Keras computes in the precision asked for, random numbers are those of the seed,
    and TensorFlow takes operations that give the same bits every time.

    Args:
        settings: Of `train` in params.yaml.
        architecture: Name of the network.
        num_classes: C, background included.

    Returns:
        The network, how it is to be trained, and its metric: what `src.training.fit` takes.
    """
    import keras

    from src.models import build_loss, build_model
    from src.models.data_parallel import gains_by_halves, share_cores
    from src.models.precision import choose_jit_compile, choose_precision
    from src.training import Optimisation, compile_for_training

    policy, reason = choose_precision(settings.precision)
    terminal.console.print(f"precision {reason}")
    in_halves = gains_by_halves(settings.model.normalisation)
    if in_halves:
        share_cores()
    keras.utils.set_random_seed(settings.seed)
    keras.config.set_dtype_policy(policy)
    _make_repeatable()
    model = build_model(
        architecture,
        in_channels=2 * settings.context + 1,
        num_classes=num_classes,
        **settings.model.model_dump(),
    )
    model.in_halves = in_halves
    plan = Optimisation(
        **{name: getattr(settings, name) for name in Optimisation.__dataclass_fields__}
    )
    loss = build_loss(
        settings.loss.name,
        num_classes=num_classes,
        class_weights=settings.loss.class_weights,
        **settings.loss.parameters,
    )
    matrix = compile_for_training(
        model, plan, loss, num_classes=num_classes, jit_compile=choose_jit_compile()
    )
    return model, plan, matrix


def settled(
    params: Params, segmenter: Segmenter, arrays: Arrays
) -> tuple[Segmenter, NDArray[np.float64] | None]:
    """What is chosen on the validation patients once the weights are known.

    Returns:
        The model with its card filled in, and the (C,) Dice of these patients before cleaning;
        None where nothing was to be chosen, and the patients were not looked at.
    """
    wanted = params.inference
    if not (wanted.postprocessing or wanted.calibration):
        return segmenter, None
    changes: dict[str, Any] = {}
    sample = None
    if wanted.calibration:
        sample = PixelSample(TEMPERATURE_PIXELS, seed=params.train.seed)
    scans = predicted_scans(segmenter, arrays, arrays.rows("validation"), sample=sample)
    if wanted.postprocessing:
        choice = choose(scans, segmenter.num_classes)
        changes["postprocessing"], dice = choice.postprocessing, choice.dice[PLAIN]
    else:
        dice = plain_dice(scans, segmenter.num_classes)
    if sample is not None:
        fitted = fit_temperature(sample.log_probabilities, sample.truth)
        if not fitted.at_limit:
            changes["temperature"] = round(fitted.value, 6)
    return segmenter.changed(**changes), dice


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


def _make_repeatable() -> None:
    """Asks TensorFlow for operations that give the same bits every time."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def spread(rows: NDArray[np.int64], number: int | None) -> NDArray[np.int64]:
    """So many of the rows, evenly spaced; all for None."""
    if number is None or number >= len(rows):
        return rows
    return rows[np.linspace(0, len(rows) - 1, number).round().astype(np.int64)]


def _card(
    architecture: str, params: Params, arrays: Arrays, trainable: int, policy: str
) -> ModelCard:
    patch = params.train.sampling.patch_size
    rows = arrays.index[arrays.index["subset"] == "train"]
    return ModelCard(
        architecture=architecture,
        classes=arrays.classes,
        depth=params.train.model.depth,
        spacing_mm=(float(rows["spacing_y_mm"].median()), float(rows["spacing_x_mm"].median())),
        parameters=trainable,
        precision=policy,
        context=params.train.context,
        tiling=Tiling(patch, params.inference.overlap) if patch else None,
        flips=params.inference.flips,
        engine=params.inference.engine,
    )


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
