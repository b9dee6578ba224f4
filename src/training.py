"""The training loop: epochs, early stopping, and a checkpoint from which a killed run goes on.

A run that is killed and started again ends with the same weights as one that was not: the
checkpoint holds the weights, the optimiser, the dropout seeds and the loop's own counters, and the
order and augmentation of the slices depend on seed and epoch alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from src.files import whole_file
from src.models.losses import LOSSES
from src.models.metrics import ConfusionMatrix, scores


@dataclass(frozen=True)
class Optimisation:
    """How the weights are found; the fields are those of `train` in params.yaml."""

    loss: str
    optimizer: str
    learning_rate: float
    weight_decay: float
    epochs: int
    warmup_epochs: int
    patience: int


@dataclass
class Progress:
    """Where a training run stands after an epoch; what the checkpoint keeps beside the weights.

    Attributes:
        epoch: Number of epochs done.
        best_epoch: The epoch (counted from 1) with the lowest validation loss; 0 before the first.
        best_loss: That validation loss.
        history: A row per epoch: epoch, train/loss, validation/loss, … as plain floats.
        note: What the caller wants back when the run resumes, such as a run id.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    note: dict[str, str] = field(default_factory=dict)


def learning_rate_schedule(
    plan: Optimisation, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up to `learning_rate`, then half a cosine down to zero at the last step."""
    warmup = plan.warmup_epochs * steps_per_epoch
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=plan.learning_rate / max(warmup, 1) if warmup else plan.learning_rate,
        decay_steps=max(plan.epochs * steps_per_epoch - warmup, 1),
        warmup_target=plan.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def compile_for_training(
    model: keras.Model,
    plan: Optimisation,
    *,
    num_classes: int,
    steps_per_epoch: int,
    jit_compile: bool | str,
) -> ConfusionMatrix:
    """Gives `model` its optimiser, loss and metric, and the optimiser its variables.

    Args:
        model: (B, H, W, 1) -> (B, H, W, C) probabilities.
        plan: How to train.
        num_classes: C.
        steps_per_epoch: Batches an epoch, for the schedule.
        jit_compile: Passed on to Keras.

    Returns:
        The metric that counts pixels by true and predicted class over an epoch.
    """
    schedule = learning_rate_schedule(plan, steps_per_epoch)
    optimizer = (
        keras.optimizers.AdamW(schedule, weight_decay=plan.weight_decay)
        if plan.optimizer == "adamw"
        else keras.optimizers.Adam(schedule)
    )
    if plan.optimizer == "adamw":
        # Decay of a normalisation's scale and of biases would pull them to zero for nothing.
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    matrix = ConfusionMatrix(num_classes=num_classes, name="confusion")
    model.compile(
        optimizer=optimizer, loss=LOSSES[plan.loss], metrics=[matrix], jit_compile=jit_compile
    )
    optimizer.build(model.trainable_variables)
    return matrix


class Checkpoint:
    """The state of a run on disk, whole after every epoch."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Names the place.

        Args:
            folder: Holds state.npz, best.npz; nothing else.
            fingerprint: Of everything that decides the result (data, split, parameters, code). A
                checkpoint with another one is not taken up.
        """
        self._state = folder / "state.npz"
        self._best = folder / "best.npz"
        self._fingerprint = fingerprint

    def load(self, model: keras.Model) -> Progress | None:
        """Puts a kept state into a compiled model; None where there is none that fits."""
        if not self._state.is_file():
            return None
        with np.load(self._state, allow_pickle=False) as content:
            head = json.loads(str(content["progress"]))
            if head.pop("fingerprint") != self._fingerprint:
                return None
            variables = _state_of(model)
            for number, variable in enumerate(variables):
                variable.assign(content[f"v{number}"])
        return Progress(**head)

    def save(self, model: keras.Model, progress: Progress) -> None:
        """Keeps the state after an epoch."""
        head = json.dumps({**asdict(progress), "fingerprint": self._fingerprint})
        arrays: dict[str, Any] = {f"v{n}": _as_array(v) for n, v in enumerate(_state_of(model))}
        with whole_file(self._state) as aside:
            np.savez(aside, progress=np.array(head), **arrays)

    def save_best(self, model: keras.Model) -> None:
        """Keeps the weights of the best epoch so far."""
        arrays: dict[str, Any] = {f"v{n}": _as_array(v) for n, v in enumerate(model.weights)}
        with whole_file(self._best) as aside:
            np.savez(aside, **arrays)

    def load_best(self, model: keras.Model) -> None:
        """Puts the weights of the best epoch into the model."""
        with np.load(self._best, allow_pickle=False) as content:
            for number, variable in enumerate(model.weights):
                variable.assign(content[f"v{number}"])

    def remove(self) -> None:
        """Removes the files: the run is complete."""
        for path in (self._state, self._best):
            path.unlink(missing_ok=True)


def _state_of(model: keras.Model) -> list[Any]:
    # `weights` lacks the seeds of the dropout layers; `variables` has them.
    seeds = [v for v in model.variables if not any(v is weight for weight in model.weights)]
    return [*model.weights, *seeds, *model.optimizer.variables]


def _as_array(variable: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable.value))


def fit(
    model: keras.Model,
    plan: Optimisation,
    *,
    training_batches: Callable[[int], Any],
    validation_batches: Callable[[], Any],
    class_names: Sequence[str],
    matrix: ConfusionMatrix,
    checkpoint: Checkpoint,
    progress: Progress,
    on_batch: Callable[[], None] = lambda: None,
    on_epoch: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Trains until `plan.epochs` or until the validation loss has not fallen for `plan.patience`.

    Args:
        model: Compiled by `compile_for_training`, with the checkpoint already put in.
        plan: How to train.
        training_batches: Epoch number (from 0) -> its batches.
        validation_batches: The validation batches, not augmented, in one order.
        class_names: In the order of the class index.
        matrix: What `compile_for_training` returned.
        checkpoint: Where the state is kept after every epoch.
        progress: Where to go on; `Progress()` at the start.
        on_batch: Called after every training batch.
        on_epoch: Called after every epoch, before the checkpoint is written.

    Returns:
        The progress; the model holds the weights of the best epoch.

    Raises:
        ValueError: The loss is not finite.
    """
    tick = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: on_batch())
    while progress.epoch < plan.epochs:
        if progress.epoch - progress.best_epoch >= plan.patience:
            break
        started = time.perf_counter()
        epoch = progress.epoch
        fitted = model.fit(
            training_batches(epoch),
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose=0,
            callbacks=[tick],
            shuffle=False,
        )
        row: dict[str, float] = {"train/loss": float(fitted.history["loss"][-1])}
        row |= {
            f"train/{k}": v for k, v in scores(_as_array(matrix.matrix), list(class_names)).items()
        }
        trained = time.perf_counter()
        validation = model.evaluate(validation_batches(), verbose=0, return_dict=True)
        row["validation/loss"] = float(validation["loss"])
        row |= {
            f"validation/{k}": v
            for k, v in scores(_as_array(matrix.matrix), list(class_names)).items()
        }
        row["learning_rate"] = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
        row["seconds/train"] = trained - started
        row["seconds/validation"] = time.perf_counter() - trained
        if not (math.isfinite(row["train/loss"]) and math.isfinite(row["validation/loss"])):
            raise ValueError(
                f"the loss is not finite after epoch {epoch + 1} (train {row['train/loss']}, "
                f"validation {row['validation/loss']}). Lower train.learning_rate "
                f"({plan.learning_rate}), or set train.precision: float32."
            )
        progress.epoch += 1
        progress.history.append({"epoch": progress.epoch, **row})
        if row["validation/loss"] < progress.best_loss:
            progress.best_loss, progress.best_epoch = row["validation/loss"], progress.epoch
            checkpoint.save_best(model)
        on_epoch(progress)
        checkpoint.save(model, progress)
    checkpoint.load_best(model)
    return progress
