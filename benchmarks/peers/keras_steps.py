"""Training steps of stock Keras, for benchmarks/training.py: `compile` and `fit` by default.

That is float32 and, on a CPU, no XLA. A second argument `xla` switches XLA on.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import keras
import tensorflow as tf
from keras_networks import build, dice_cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.training_task import CHANNELS, CLASSES, Task, batch
from benchmarks.turns import Turns


def main() -> None:
    """Does the steps that it is told to."""
    task, turns = Task.from_argument(sys.argv[1]), Turns()
    jit_compile = "xla" in sys.argv[2:] or "auto"
    model = build(
        task.architecture, task.size, CHANNELS, CLASSES, normalisation=task.normalisation,
        filters=task.filters, depth=task.depth, dropout=task.dropout,
    )  # fmt: skip
    model.compile(
        keras.optimizers.AdamW(task.learning_rate, weight_decay=task.weight_decay),
        dice_cross_entropy,
        jit_compile=jit_compile,
    )
    batches = tf.data.Dataset.from_tensor_slices(batch(task)).batch(task.batch_size).cache()
    # Its wait at the end of an epoch would weigh more in a turn than in a training.
    options = tf.data.Options()
    options.autotune.enabled = False
    batches = batches.with_options(options)

    def run(steps: int) -> float:
        started = time.perf_counter()
        model.fit(batches.repeat(steps), verbose=0)
        return time.perf_counter() - started

    run(2)
    turns.serve(
        run,
        parameters=sum(int(keras.ops.size(weight)) for weight in model.trainable_weights),
        form="float32, XLA" if model.jit_compile else "float32",
        versions=f"Keras {keras.__version__}, TensorFlow {tf.__version__}",
    )


if __name__ == "__main__":
    main()
