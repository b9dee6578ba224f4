"""Training metrics, all read from one exact table of counts."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from src.models.precision import gpu_compute_capability


@keras.saving.register_keras_serializable(package="ct_segmentation")
class ConfusionMatrix(keras.metrics.Metric):  # type: ignore[misc]  # Keras is untyped
    """Counts of pixels by true and predicted class, exact over an epoch of any length.

    Row t, column p counts the pixels of class t for which class p is the most probable. One more
    row, the last, counts the pixels whose truth is no class at all: a metric that drops them
    looks better than the model is. :func:`scores` refuses a matrix with such pixels.

    The counts are int64: a float32 count stops at 2 ** 24 pixels, a few hundred slices. (On the
    JAX backend int64 needs `jax_enable_x64`.)

    Args:
        num_classes: Number of classes, background included, at least 2.
        name: Name of the metric.
        **kwargs: Further arguments of `keras.metrics.Metric`.

    Raises:
        ValueError: There are fewer than two classes.
    """

    def __init__(self, num_classes: int, name: str = "confusion_matrix", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        if num_classes < 2:
            raise ValueError(
                f"num_classes must be at least 2, background included, got {num_classes}."
            )
        self.num_classes = num_classes
        self.matrix = self.add_variable(
            (num_classes + 1, num_classes), initializer="zeros", dtype="int64", name="matrix"
        )

    def update_state(
        self,
        truth: keras.KerasTensor,
        prediction: keras.KerasTensor,
        sample_weight: None = None,
    ) -> None:
        """Count the pixels of a batch.

        Args:
            truth: (B, H, W), class indices.
            prediction: (B, H, W, C), probabilities. Of equally probable classes the first
                counts.
            sample_weight: None; counts have no weights.

        Raises:
            ValueError: A weight was given.
        """
        if sample_weight is not None:
            raise ValueError("sample_weight must be None: the matrix counts whole pixels.")
        # Sums and products in place of `where` and `argmax`, which take three times as long on a
        # CPU: for a scalar, and along an axis as short as that of the classes.
        truth = ops.cast(truth, "int32")
        is_known = ops.cast(ops.logical_and(truth >= 0, truth < self.num_classes), "int32")
        rows = self.num_classes + is_known * (truth - self.num_classes)
        cells = rows * self.num_classes + _most_probable(prediction)
        counts = _bincount(cells, (self.num_classes + 1) * self.num_classes)
        self.matrix.assign_add(ops.reshape(counts, self.matrix.shape))

    def result(self) -> keras.KerasTensor:
        """Return the counts so far, (num_classes + 1, num_classes), int64."""
        return ops.convert_to_tensor(self.matrix)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build this metric again."""
        return {**super().get_config(), "num_classes": self.num_classes}


def _most_probable(prediction: keras.KerasTensor) -> keras.KerasTensor:
    """The class of the highest probability, (B, H, W), int32; of equal ones the first."""
    first, *others = ops.unstack(prediction, axis=-1)
    highest, winner = first, ops.zeros_like(first, dtype="int32")
    for number, probability in enumerate(others, start=1):
        # A later class that is higher has the higher number too.
        winner = ops.maximum(winner, number * ops.cast(probability > highest, "int32"))
        highest = ops.maximum(highest, probability)
    return winner


def _bincount(values: keras.KerasTensor, length: int) -> keras.KerasTensor:
    """How often 0, 1, … length - 1 occur in (B, H, W), int32; (length,), int64."""
    if gpu_compute_capability() is None:
        return ops.cast(ops.bincount(ops.reshape(values, (-1,)), minlength=length), "int64")
    # TensorFlow's is not deterministic on a GPU. float32 is exact here: no picture has more than
    # 2 ** 24 pixels, and pictures are added as int64.
    counts = ops.sum(ops.one_hot(values, length, dtype="float32"), axis=(1, 2))
    return ops.sum(ops.cast(counts, "int64"), axis=0)


def class_iou(matrix: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Intersection over union of every class.

        IoU_c = n_cc / (sum_p n_cp + sum_t n_tc - n_cc)

    Args:
        matrix: (C, C), counts by true (row) and predicted (column) class.

    Returns:
        (C,), float64, in [0, 1]; NaN for a class absent from truth and prediction.
    """
    overlap = np.diagonal(matrix)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - overlap
    iou = np.full(len(matrix), np.nan)
    np.divide(overlap, union, out=iou, where=union > 0)
    return iou


def scores(matrix: npt.ArrayLike, classes: list[str]) -> dict[str, float]:
    """Read the named numbers of an epoch from its counts.

    Args:
        matrix: (C + 1, C), the result of :class:`ConfusionMatrix`.
        classes: The C names of the classes, background first.

    Returns:
        `accuracy`: share of the pixels whose class is right, in [0, 1], NaN without any pixel;
        `iou/<class>` for every class, in [0, 1], NaN where the class is absent from truth and
        prediction; `mean_iou`: the mean of those of the foreground classes that are not NaN, NaN
        if all are.

    Raises:
        ValueError: The matrix has another shape, or counts pixels whose label is no class.
    """
    counts = np.asarray(matrix)
    if counts.shape != (len(classes) + 1, len(classes)):
        raise ValueError(
            f"matrix must be (classes + 1, classes) = {(len(classes) + 1, len(classes))} for "
            f"{classes}, got {counts.shape}. Build ConfusionMatrix with {len(classes)} classes."
        )
    if num_unknown := int(counts[-1].sum()):
        raise ValueError(
            f"truth must hold the class indices 0 to {len(classes) - 1} for {classes}, got "
            f"{num_unknown} pixels with another value. Map them in `labels` and prepare again."
        )
    counts = counts[:-1]
    total = int(counts.sum())
    iou = class_iou(counts)
    scored = iou[1:][~np.isnan(iou[1:])]
    return {
        "accuracy": int(np.trace(counts)) / total if total else float("nan"),
        **{f"iou/{name}": float(value) for name, value in zip(classes, iou, strict=True)},
        "mean_iou": float(scored.mean()) if scored.size else float("nan"),
    }
