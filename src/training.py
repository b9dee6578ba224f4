"""The training loop: epochs, early stopping, and a checkpoint from which a killed run goes on.

A run that is killed and started again ends with the same weights as one that was not: the
checkpoint holds the weights, the optimiser and the loop's own counters, and the order and
augmentation of the slices and the dropout of an epoch depend on seed and epoch alone.
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
from src.models.checks import check_weights
from src.models.dropout import reseed_dropout
from src.models.metrics import ConfusionMatrix, scores
from src.models.optimizer import FusedAdam


@dataclass(frozen=True)
class Optimisation:
    """How the weights are found; the fields are those of `train` in params.yaml."""

    optimizer: str
    learning_rate: float
    weight_decay: float
    epochs: int
    warmup_epochs: int
    patience: int
    monitor: str
    max_minutes: float | None


@dataclass
class Progress:
    """Where a training run stands after an epoch; what the checkpoint keeps beside the weights.

    Attributes:
        epoch: Number of epochs done.
        best_epoch: The epoch (counted from 1) with the best validation value; 0 before the first.
        best_value: That value of what `Optimisation.monitor` names; None before the first.
        seconds: That training took so far.
        history: A row per epoch: epoch, train/loss, validation/loss, … as plain floats.
        note: What the caller wants back when the run resumes, such as a run id.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_value: float | None = None
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    note: dict[str, str] = field(default_factory=dict)


def learning_rate(plan: Optimisation, share: float) -> float:
    """The learning rate when a share of the training is done.

    It rises in a line over the warm-up epochs, then falls by half a cosine to zero at the end
    (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts).

    Args:
        plan: How to train.
        share: Of the steps, or of the minutes where they are limited, done; 0 to 1.

    Returns:
        The rate, from 0 to `plan.learning_rate`.
    """
    warmup = plan.warmup_epochs / plan.epochs
    if share < warmup:
        return plan.learning_rate * share / warmup
    fallen = min((share - warmup) / (1 - warmup), 1.0)
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * fallen))


def compile_for_training(
    model: keras.Model,
    plan: Optimisation,
    loss: keras.losses.Loss,
    *,
    num_classes: int,
    jit_compile: bool | str,
) -> ConfusionMatrix:
    """Gives `model` its optimiser, loss and metric, and the optimiser its variables.

    Args:
        model: (B, H, W, channels) -> (B, H, W, C) probabilities.
        plan: How to train.
        loss: Of (truth, prediction).
        num_classes: C.
        jit_compile: Passed on to Keras.

    Returns:
        The metric that counts pixels by true and predicted class over an epoch.
    """
    decay = plan.weight_decay if plan.optimizer == "adamw" else None
    optimizer = FusedAdam(plan.learning_rate, weight_decay=decay)
    # Decay of a normalisation's scale and of biases would pull them to zero for nothing.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    matrix = ConfusionMatrix(num_classes=num_classes, name="confusion")
    model.compile(optimizer=optimizer, loss=loss, metrics=[matrix], jit_compile=jit_compile)
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
            _put(content, model, _state_of(model))
        return Progress(**head)

    def note(self) -> dict[str, str] | None:
        """What `Progress.note` held of a kept state, be it that it does not fit; None without."""
        if not self._state.is_file():
            return None
        with np.load(self._state, allow_pickle=False) as content:
            note: dict[str, str] = json.loads(str(content["progress"]))["note"]
        return note

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
            _put(content, model, model.weights)

    def remove(self) -> None:
        """Removes the files: the run is complete."""
        for path in (self._state, self._best):
            path.unlink(missing_ok=True)


def _put(content: Any, model: keras.Model, variables: Sequence[Any]) -> None:
    """Puts kept arrays into variables, the model's weights first, after a look at their shapes."""
    arrays = [content[name] for name in content.files if name != "progress"]
    surplus = len(variables) - len(model.weights)
    check_weights(model, [array.shape for array in arrays[: len(arrays) - surplus]])
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _state_of(model: keras.Model) -> list[Any]:
    return [*model.weights, *model.optimizer.variables]


def _as_array(variable: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable.value))


class _Clock(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Sets the learning rate of every step, and stops where the minutes are used up."""

    def __init__(
        self, plan: Optimisation, progress: Progress, steps: int, on_batch: Callable[[], None]
    ) -> None:
        super().__init__()
        self._plan, self._progress, self._on_batch = plan, progress, on_batch
        self._steps = steps
        self._started = time.perf_counter() - progress.seconds

    @property
    def seconds(self) -> float:
        """Since training began, without the time between a kill and its resumption."""
        return time.perf_counter() - self._started

    @property
    def is_over(self) -> bool:
        """Whether the minutes are used up."""
        limit = self._plan.max_minutes
        return limit is not None and self.seconds >= 60 * limit

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        done = self._progress.epoch * self._steps + batch + 1
        share = done / (self._plan.epochs * self._steps)
        if self._plan.max_minutes is not None:
            share = max(share, self.seconds / (60 * self._plan.max_minutes))
        self.model.optimizer.learning_rate = learning_rate(self._plan, share)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._on_batch()
        if self.is_over:
            self.model.stop_training = True


def fit(
    model: keras.Model,
    plan: Optimisation,
    *,
    seed: int,
    steps_per_epoch: int,
    training_batches: Callable[[int], Any],
    validation_batches: Callable[[], Any],
    class_names: Sequence[str],
    matrix: ConfusionMatrix,
    checkpoint: Checkpoint,
    progress: Progress,
    on_batch: Callable[[], None] = lambda: None,
    on_epoch: Callable[[Progress], None] = lambda _: None,
    on_end: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Trains until the epochs or minutes are used up, or the validation value stops improving.

    Args:
        model: Compiled by `compile_for_training`, with the checkpoint already put in.
        plan: How to train.
        seed: Of dropout, together with the number of the epoch.
        steps_per_epoch: Batches an epoch.
        training_batches: Epoch number (from 0) -> its batches.
        validation_batches: The validation batches, not augmented, in one order.
        class_names: In the order of the class index.
        matrix: What `compile_for_training` returned.
        checkpoint: Where the state is kept after every epoch.
        progress: Where to go on; `Progress()` at the start.
        on_batch: Called after every training batch.
        on_epoch: Called after every epoch, before the checkpoint is written.
        on_end: Called when no epoch follows, while the model holds the weights of the last one.

    Returns:
        The progress; the model holds the weights of the best epoch.

    Raises:
        ValueError: The loss is not finite.
    """
    clock = _Clock(plan, progress, steps_per_epoch, on_batch)
    while progress.epoch < plan.epochs and not clock.is_over:
        if progress.epoch - progress.best_epoch >= plan.patience:
            break
        started = time.perf_counter()
        epoch = progress.epoch
        reseed_dropout(model, seed=seed, epoch=epoch)
        fitted = model.fit(
            training_batches(epoch),
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose=0,
            callbacks=[clock],
            shuffle=False,
        )
        row: dict[str, float] = {"train/loss": float(fitted.history["loss"][-1])}
        row |= _named_scores("train", matrix, class_names)
        trained = time.perf_counter()
        validation = model.evaluate(validation_batches(), verbose=0, return_dict=True)
        row["validation/loss"] = float(validation["loss"])
        row |= _named_scores("validation", matrix, class_names)
        row["train/learning_rate"] = float(
            keras.ops.convert_to_numpy(model.optimizer.learning_rate)
        )
        row["train/seconds"] = trained - started
        row["validation/seconds"] = time.perf_counter() - trained
        if not (math.isfinite(row["train/loss"]) and math.isfinite(row["validation/loss"])):
            raise ValueError(
                f"the loss is not finite after epoch {epoch + 1} (train {row['train/loss']}, "
                f"validation {row['validation/loss']}). Lower train.learning_rate "
                f"({plan.learning_rate}), or set train.precision: float32."
            )
        progress.epoch += 1
        progress.seconds = clock.seconds
        progress.history.append({"epoch": progress.epoch, **row})
        value = row[f"validation/{plan.monitor}"]
        if _is_better(value, progress.best_value, plan.monitor):
            progress.best_value, progress.best_epoch = value, progress.epoch
            checkpoint.save_best(model)
        on_epoch(progress)
        checkpoint.save(model, progress)
    on_end(progress)
    checkpoint.load_best(model)
    return progress


def _named_scores(
    side: str, matrix: ConfusionMatrix, class_names: Sequence[str]
) -> dict[str, float]:
    """The scores of the epoch that the metric has just counted, under the names of MLflow."""
    counts = _as_array(matrix.matrix)
    return {f"{side}/{key}": value for key, value in scores(counts, list(class_names)).items()}


def _is_better(value: float, best: float | None, monitor: str) -> bool:
    # NaN (no foreground in truth and prediction) is better than nothing, never than a number.
    if best is None or math.isnan(best):
        return best is None or not math.isnan(value)
    return value < best if monitor == "loss" else value > best
