"""Data parallelism on a CPU: the two halves of a batch go through a network side by side.

By itself TensorFlow shares each operation out among all cores, which then wait for each other after
every one; small pictures give an operation little to share. With cores of its own for each half, a
step of a small U-Net takes a fifth less time. More than two parts were no quicker on two cores, and
a sum of two gradients is the same in either order, as results that are to be repeated need it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from src.processor import cores


@keras.saving.register_keras_serializable(package="ct_segmentation")
class DataParallel(keras.Model):  # type: ignore[misc]  # Keras is untyped
    """A network that computes the halves of a batch side by side, once `in_halves` is set.

    The result is the same, within rounding, where no layer looks at several pictures at once, as
    batch normalisation does in training.
    """

    in_halves = False

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """As of `keras.Model`."""

        def network(part: Any) -> Any:
            return super(DataParallel, self).call(part, training=training, mask=mask)

        return by_halves(network, inputs) if self.in_halves else network(inputs)


def by_halves(network: Callable[[Any], Any], batch: Any) -> Any:
    """What a network makes of a batch, computed in halves that do not wait for each other.

    Args:
        network: (B, H, W, channels) -> a tensor of B entries, or a list of such tensors.
        batch: (B, H, W, channels); not empty.

    Returns:
        What `network` returns for the whole batch.
    """
    size = ops.shape(batch)[0]
    half = (size + 1) // 2
    # Kernels refuse an empty half: a single picture goes through both, and is returned once.
    first, second = network(batch[:half]), network(batch[ops.minimum(half, size - 1) :])

    def joined(*halves: Any) -> Any:
        return ops.concatenate(halves)[:size]

    if not isinstance(first, list):
        return joined(first, second)
    return [joined(*halves) for halves in zip(first, second, strict=True)]


def gains_by_halves(normalisation: str) -> bool:
    """Whether this machine trains a network faster in halves, and to the same end.

    Not on a GPU, which computes the whole batch at once, nor on a single core; and not with batch
    normalisation, which wants the statistics of the whole batch.

    Args:
        normalisation: "batch", "instance" or "none".
    """
    if normalisation == "batch" or keras.backend.backend() != "tensorflow" or cores() < 2:
        return False
    import tensorflow as tf  # keras.ops has no question about devices

    return not tf.config.list_physical_devices("GPU")


def share_cores() -> None:
    """Gives each half cores of its own, from the start of TensorFlow to the end of the process.

    Where TensorFlow has started before, nothing changes: both halves share all cores.
    """
    import tensorflow as tf

    threading = tf.config.threading
    try:
        threading.set_inter_op_parallelism_threads(2)
        threading.set_intra_op_parallelism_threads(math.ceil(cores() / 2))
    except RuntimeError:
        return
