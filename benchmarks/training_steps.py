"""Training steps of this project, for benchmarks/training.py: its network, loss, and loop.

They are driven by `src.training.fit` as the stage `train` drives it, each turn an epoch of so many
steps; told are the seconds that it writes down for an epoch's training. The counts of pixels for
IoU are part of it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import tensorflow as tf

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this is started as a file, and the project is not installed

from benchmarks.training_task import CHANNELS, CLASSES, Task, batch  # noqa: E402
from benchmarks.turns import Turns  # noqa: E402
from src.config import load_params  # noqa: E402
from src.models import build_loss, build_model  # noqa: E402
from src.models.data_parallel import gains_by_halves, share_cores  # noqa: E402
from src.models.precision import choose_jit_compile, choose_precision  # noqa: E402
from src.training import (  # noqa: E402
    Checkpoint,
    Optimisation,
    Progress,
    compile_for_training,
    fit,
)

FOREVER = 10**6  # epochs
WARM_UP = 2  # steps, in which the graph is made


class NoMoreTurnsError(Exception):
    """Ends the training."""


def optimisation(task: Task) -> Optimisation:
    """How to train: as params.yaml has it, but with no end."""
    settings = load_params(ROOT / "params.yaml").train
    plan = Optimisation(
        **{name: getattr(settings, name) for name in Optimisation.__dataclass_fields__}
    )
    return replace(
        plan,
        optimizer="adamw",
        learning_rate=task.learning_rate,
        weight_decay=task.weight_decay,
        epochs=FOREVER,
        patience=FOREVER,
        monitor="loss",
        max_minutes=None,
    )


def main() -> None:
    """Does the steps that it is told to."""
    task, turns = Task.from_argument(sys.argv[1]), Turns()
    policy, _ = choose_precision("auto")
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    tf.config.experimental.enable_op_determinism()
    in_halves = gains_by_halves(task.normalisation)
    if in_halves:
        share_cores()
    model = build_model(
        task.architecture, in_channels=CHANNELS, num_classes=CLASSES, depth=task.depth,
        filters=task.filters, dropout=task.dropout, normalisation=task.normalisation,
        upsampling="transpose",
    )  # fmt: skip
    model.in_halves = in_halves
    plan = optimisation(task)
    loss = build_loss("dice_cross_entropy", num_classes=CLASSES)
    matrix = compile_for_training(
        model, plan, loss, num_classes=CLASSES, jit_compile=choose_jit_compile()
    )
    batches = tf.data.Dataset.from_tensor_slices(batch(task)).batch(task.batch_size).cache()
    # As src.data.pipeline has it: TensorFlow's tuner makes the end of an epoch wait for it.
    options = tf.data.Options()
    options.autotune.enabled = False
    batches = batches.with_options(options)
    steps = WARM_UP

    def on_epoch(now: Progress) -> None:
        nonlocal steps
        if now.epoch == 1:
            turns.ready(
                parameters=sum(int(keras.ops.size(weight)) for weight in model.trainable_weights),
                form=f"{policy}, in halves" if in_halves else policy,
                versions=f"Keras {keras.__version__}, TensorFlow {tf.__version__}",
            )
        else:
            turns.took(now.history[-1]["train/seconds"])
        steps = turns.next()
        if not steps:
            raise NoMoreTurnsError

    with TemporaryDirectory() as folder, suppress(NoMoreTurnsError):
        fit(
            model,
            plan,
            seed=0,
            steps_per_epoch=WARM_UP,
            training_batches=lambda _: batches.repeat(steps),
            validation_batches=lambda: batches,
            class_names=["background", "organ", "lesion"],
            matrix=matrix,
            checkpoint=Checkpoint(Path(folder), "benchmark"),
            progress=Progress(),
            on_epoch=on_epoch,
        )


if __name__ == "__main__":
    main()
