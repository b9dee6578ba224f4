"""What a training starts from: the network, its loss and optimiser, and the slices it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src import terminal
from src.config.groups import Train
from src.data.arrays import Arrays
from src.data.augmentation import Augmentation
from src.data.sampling import Sampling

if TYPE_CHECKING:
    import keras

    from src.data.pipeline import Batches, TrainingCases
    from src.models.metrics import ConfusionMatrix
    from src.training import Optimisation


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


def _make_repeatable() -> None:
    """Asks TensorFlow for operations that give the same bits every time."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def slices_of(settings: Train, arrays: Arrays) -> tuple[TrainingCases, Batches]:
    """The cases of the training side, drawn anew each epoch, and those looked at after each.

    Args:
        settings: Of `train` in params.yaml.
        arrays: The prepared slices of the fold.
    """
    from src.data.pipeline import TrainingCases, whole_slices

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
    return cases, whole_slices(arrays, looked_at, **shared)


def spread(rows: NDArray[np.int64], number: int | None) -> NDArray[np.int64]:
    """So many of the rows, evenly spaced; all for None."""
    if number is None or number >= len(rows):
        return rows
    return rows[np.linspace(0, len(rows) - 1, number).round().astype(np.int64)]
