"""Losses for segmentation: pure functions of truth and prediction, looked up by name.

In all of them `truth` is (B, H, W), class indices of any dtype, and `prediction` is
(B, H, W, C), float32 probabilities. An index outside 0 ... C - 1 makes the loss NaN. The data
were checked long before; should one get here all the same, training must stop, not go on with a
pixel that counts for nothing (the zero vector that a one-hot encoding would make of it).
"""

from collections.abc import Callable

import keras
from keras import ops

Loss = Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]

# Probabilities below this count as this: the logarithm stays finite, at most 16.1 a pixel.
SMALLEST_PROBABILITY = 1e-7
# Added to both sides of the soft Dice ratio, in pixels. One pixel is nothing beside a structure,
# and bounds the gradient at a class that is absent (see `dice`).
SMOOTH_PIXELS = 1.0


def categorical_cross_entropy(
    truth: keras.KerasTensor, prediction: keras.KerasTensor
) -> keras.KerasTensor:
    """Cross entropy between the truth and the prediction, the mean over all pixels.

        L = -1/n sum_i log max(p_i, 1e-7),  p_i: probability of the true class of pixel i

    Args:
        truth: (B, H, W), class indices.
        prediction: (B, H, W, C), probabilities in [0, 1].

    Returns:
        A scalar in [0, 16.1], in nats; NaN where the truth holds an index outside 0 ... C - 1.

    Example:
        >>> float(categorical_cross_entropy(truth=[[[1]]], prediction=[[[[0.5, 0.5]]]]))
        0.6931471824645996
    """
    prediction = ops.convert_to_tensor(prediction)
    clipped = ops.clip(prediction, SMALLEST_PROBABILITY, 1.0)
    return -ops.mean(ops.sum(_one_hot(truth, prediction) * ops.log(clipped), axis=-1))


def dice(truth: keras.KerasTensor, prediction: keras.KerasTensor) -> keras.KerasTensor:
    """Soft Dice loss: the mean over the foreground classes, each pooled over the batch.

        L = 1 - 1/(C - 1) sum_{c >= 1} (2 sum_i p_ic g_ic + s) / (sum_i p_ic + sum_i g_ic + s)

    with i over all pixels of the batch, g one-hot truth and s = 1 pixel. Pooling over the batch
    (not picture by picture) keeps the many slices without a structure from deciding the loss.

    A class that is absent from the batch's truth scores s / (sum p + s): 1 if it is not predicted
    either, near 0 if it is. Its gradient is at most 1/s a probability and, added up over all
    pixels of the batch, at most 1/4 after the softmax: no more than that of a present class.

    Args:
        truth: (B, H, W), class indices.
        prediction: (B, H, W, C), probabilities in [0, 1].

    Returns:
        A scalar in [0, 1]; 0 for empty truth and empty prediction; NaN where the truth holds an
        index outside 0 ... C - 1.

    Source: Milletari et al. 2016, arXiv:1606.04797, section 3 (without squares in the
        denominator), over several classes as in Drozdzal et al. 2016, arXiv:1608.04117.
    """
    prediction = ops.convert_to_tensor(prediction)
    overlap_axes = (0, 1, 2)
    expected = _one_hot(truth, prediction)[..., 1:]
    found = prediction[..., 1:]
    overlap = ops.sum(expected * found, axis=overlap_axes)
    size = ops.sum(expected, axis=overlap_axes) + ops.sum(found, axis=overlap_axes)
    return 1.0 - ops.mean((2.0 * overlap + SMOOTH_PIXELS) / (size + SMOOTH_PIXELS))


def dice_cross_entropy(
    truth: keras.KerasTensor, prediction: keras.KerasTensor
) -> keras.KerasTensor:
    """Sum of :func:`dice` and :func:`categorical_cross_entropy`.

    Args:
        truth: (B, H, W), class indices.
        prediction: (B, H, W, C), probabilities in [0, 1].

    Returns:
        A scalar in [0, 17.1]; NaN where the truth holds an index outside 0 ... C - 1.

    Source: Isensee et al. 2021, DOI 10.1038/s41592-020-01008-z, methods, "blueprint parameters".
    """
    return dice(truth, prediction) + categorical_cross_entropy(truth, prediction)


LOSSES: dict[str, Loss] = {
    "categorical_cross_entropy": categorical_cross_entropy,
    "dice": dice,
    "dice_cross_entropy": dice_cross_entropy,
}
for _loss in LOSSES.values():  # so that a saved model finds its loss again
    keras.saving.register_keras_serializable(package="ct_segmentation")(_loss)


def loss_by_name(name: str) -> Loss:
    """Look a loss up.

    Args:
        name: A key of `LOSSES`.

    Returns:
        The function of (truth, prediction).

    Raises:
        ValueError: There is no such loss.
    """
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {sorted(LOSSES)}, got {name!r}.")
    return LOSSES[name]


def _one_hot(truth: keras.KerasTensor, prediction: keras.KerasTensor) -> keras.KerasTensor:
    """Encode class indices as (B, H, W, C) of the prediction's dtype, unknown ones as NaN."""
    num_classes = prediction.shape[-1]
    truth = ops.cast(truth, "int32")
    is_known = ops.logical_and(truth >= 0, truth < num_classes)
    encoded = ops.one_hot(truth, num_classes, dtype=prediction.dtype)
    return ops.where(is_known[..., None], encoded, ops.cast(float("nan"), prediction.dtype))
