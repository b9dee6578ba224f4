"""Losses for segmentation: pure functions of truth and prediction, built by name.

In all of them `truth` is (B, H, W), class indices of any dtype, and `prediction` is
(B, H, W, C), probabilities; the arithmetic is float32 at least, in any precision of the network.
An index outside 0 ... C - 1 makes the loss NaN. The data were checked long before; should one get
here all the same, training must stop, not go on with a pixel that counts for nothing (the zero
vector that a one-hot encoding would make of it).

`class_weights` are C numbers, one a class in the order of the class index, at least 0; None: all
alike. The losses of overlap (dice, Tversky) average over the foreground alone, so that the weight
of the background, the first, counts for nothing in them.

`batch` says over which pixels the losses of overlap count. True: over all pixels of the batch
("batch Dice"). The many slices without a structure then do not decide the loss. False: slice by
slice, then the mean over the slices ("sample Dice"). Small structures then weigh as much as large
ones; but a slice without the structure costs 0 or nearly 1, with or without a stray pixel in it.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

Loss = Callable[..., keras.KerasTensor]
ClassWeights = Sequence[float] | None

# Probabilities below this count as this: the logarithm stays finite, at most 16.1 a pixel.
SMALLEST_PROBABILITY = 1e-7
# Added to both sides of the soft Dice ratio, in pixels. One pixel is nothing beside a structure,
# and bounds the gradient at a class that is absent (see `dice`).
SMOOTH_PIXELS = 1.0


def categorical_cross_entropy(
    truth: keras.KerasTensor,
    prediction: keras.KerasTensor,
    *,
    class_weights: ClassWeights = None,
) -> keras.KerasTensor:
    """Cross entropy between the truth and the prediction, the mean over all pixels.

        L = -1/n sum_i w_i log max(p_i, 1e-7)

    with p_i the probability and w_i the weight of the true class of pixel i.

    Args:
        truth: (B, H, W), class indices.
        prediction: (B, H, W, C), probabilities in [0, 1].
        class_weights: See the module; None: 1 each.

    Returns:
        A scalar in [0, 16.1] (times the largest weight), in nats; NaN where the truth holds an
        index outside 0 ... C - 1.

    Raises:
        ValueError: There are not C weights, or one is negative.

    Example:
        >>> float(categorical_cross_entropy(truth=[[[1]]], prediction=[[[[0.5, 0.5]]]]))
        0.6931471824645996
    """
    prediction = _probabilities(prediction)
    expected = _one_hot(truth, prediction)
    loss = _cross_entropy(expected * prediction, expected, class_weights)
    return _nan_where_unknown(loss, truth, prediction)


def focal(
    truth: keras.KerasTensor,
    prediction: keras.KerasTensor,
    *,
    class_weights: ClassWeights = None,
    gamma: float = 2.0,
) -> keras.KerasTensor:
    """Focal loss: cross entropy in which a pixel counts the less, the surer it is right.

        L = -1/n sum_i w_i (1 - p_i)^gamma log p_i

    with p_i, in [1e-7, 1 - 1e-7], the probability and w_i the weight (the paper's alpha) of the
    true class of pixel i. With gamma 0 it is the cross entropy.

    The paper divides by the number of anchors that hold an object, since nearly all of its anchors
    are easy ones; here it is the mean over all pixels, which is also defined without an object.

    Args:
        truth: (B, H, W), class indices.
        prediction: (B, H, W, C), probabilities in [0, 1].
        class_weights: See the module; None: 1 each.
        gamma: At least 0.

    Returns:
        A scalar in [0, 16.1] (times the largest weight); NaN where the truth holds an index
        outside 0 ... C - 1.

    Raises:
        ValueError: There are not C weights, or one is negative.

    Source: Lin et al. 2017, arXiv:1708.02002, equation 5.
    """
    prediction = _probabilities(prediction)
    expected = _one_hot(truth, prediction)
    # Below 1, since the derivative of (1 - p)^gamma at p = 1 is infinite with gamma below 1.
    probability = ops.clip(
        ops.sum(expected * prediction, axis=-1), SMALLEST_PROBABILITY, 1.0 - SMALLEST_PROBABILITY
    )
    loss = ops.power(1.0 - probability, gamma) * ops.log(probability)
    loss = -ops.mean(_weight_of_pixels(expected, class_weights) * loss)
    return _nan_where_unknown(loss, truth, prediction)


def dice(
    truth: keras.KerasTensor,
    prediction: keras.KerasTensor,
    *,
    class_weights: ClassWeights = None,
    batch: bool = True,
) -> keras.KerasTensor:
    """Soft Dice loss: the mean over the foreground classes.

        L = 1 - sum_{c >= 1} w_c (2 sum_i p_ic g_ic + s) / (sum_i p_ic + sum_i g_ic + s)

    with g the one-hot truth, s = 1 pixel, w the weights divided by their sum over c >= 1, and i
    over all pixels of the batch, or of one slice (see `batch` in the module).

    A class that is absent from the truth scores s / (sum p + s): 1 if it is not predicted either,
    near 0 if it is. Its gradient is at most 1/s a probability and, added up over all pixels, at
    most 1/4 after the softmax: no more than that of a present class.

    Args:
        truth: (B, H, W), class indices.
        prediction: (B, H, W, C), probabilities in [0, 1].
        class_weights: See the module.
        batch: Whether to count over the whole batch; otherwise slice by slice.

    Returns:
        A scalar in [0, 1]; 0 for empty truth and empty prediction; NaN where the truth holds an
        index outside 0 ... C - 1.

    Raises:
        ValueError: There are not C weights, one is negative, or all of the foreground are 0.

    Source: Milletari et al. 2016, arXiv:1606.04797, section 3 (without squares in the
        denominator), over several classes as in Drozdzal et al. 2016, arXiv:1608.04117.
    """
    prediction = _probabilities(prediction)
    expected = _one_hot(truth, prediction)
    loss = _dice(expected * prediction, prediction, expected, class_weights, batch=batch)
    return _nan_where_unknown(loss, truth, prediction)


def dice_cross_entropy(
    truth: keras.KerasTensor,
    prediction: keras.KerasTensor,
    *,
    class_weights: ClassWeights = None,
    batch: bool = True,
) -> keras.KerasTensor:
    """Sum of :func:`dice` and :func:`categorical_cross_entropy`.

    Args:
        truth: (B, H, W), class indices.
        prediction: (B, H, W, C), probabilities in [0, 1].
        class_weights: Of both; see the module.
        batch: Whether dice counts over the whole batch; otherwise slice by slice.

    Returns:
        A scalar in [0, 17.1]; NaN where the truth holds an index outside 0 ... C - 1.

    Raises:
        ValueError: There are not C weights, one is negative, or all of the foreground are 0.

    Source: Isensee et al. 2021, DOI 10.1038/s41592-020-01008-z, methods, "blueprint parameters".
    """
    prediction = _probabilities(prediction)
    expected = _one_hot(truth, prediction)
    # Shared by both: the pass over all pixels is made once, and no tensor has more than two
    # consumers (see `blocks`).
    product = expected * prediction
    overlap = _dice(product, prediction, expected, class_weights, batch=batch)
    return _nan_where_unknown(
        overlap + _cross_entropy(product, expected, class_weights), truth, prediction
    )


def tversky(
    truth: keras.KerasTensor,
    prediction: keras.KerasTensor,
    *,
    class_weights: ClassWeights = None,
    batch: bool = True,
    alpha: float = 0.3,
    beta: float = 0.7,
) -> keras.KerasTensor:
    """Tversky loss: dice with a price of its own for false positives and for false negatives.

        L = 1 - sum_{c >= 1} w_c T_c,  T_c = (TP + s) / (TP + alpha FP + beta FN + s)

        TP = sum_i p_ic g_ic,  FP = sum_i p_ic (1 - g_ic),  FN = sum_i (1 - p_ic) g_ic

    with g, s, w and i as in :func:`dice`. beta above alpha, as in the defaults, the best of the
    paper, finds more of a small structure at the price of false positives; 1/2 each is the Dice.

    Args:
        truth: (B, H, W), class indices.
        prediction: (B, H, W, C), probabilities in [0, 1].
        class_weights: See the module.
        batch: Whether to count over the whole batch; otherwise slice by slice.
        alpha: Price of a false positive, at least 0.
        beta: Price of a false negative, at least 0.

    Returns:
        A scalar in [0, 1]; 0 for empty truth and empty prediction; NaN where the truth holds an
        index outside 0 ... C - 1.

    Raises:
        ValueError: There are not C weights, one is negative, or all of the foreground are 0.

    Source: Salehi et al. 2017, arXiv:1706.05721, equation 4.
    """
    index = _tversky_index(truth, prediction, batch=batch, alpha=alpha, beta=beta)
    loss = 1.0 - _mean_over_foreground(index, class_weights)
    return _nan_where_unknown(loss, truth, prediction)


def focal_tversky(
    truth: keras.KerasTensor,
    prediction: keras.KerasTensor,
    *,
    class_weights: ClassWeights = None,
    batch: bool = True,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
) -> keras.KerasTensor:
    """Focal Tversky loss: the classes that overlap badly count more.

        L = sum_{c >= 1} w_c max(1 - T_c, 1e-7)^(1 / gamma)

    with T and w as in :func:`tversky`. (The letters alpha and beta are those of Salehi et al.;
    Abraham and Khan have them the other way round, and sum over the classes.) The power of a
    class that is right has an infinite derivative: hence the 1e-7.

    Args:
        truth: (B, H, W), class indices.
        prediction: (B, H, W, C), probabilities in [0, 1].
        class_weights: See the module.
        batch: Whether to count over the whole batch; otherwise slice by slice.
        alpha: Price of a false positive, at least 0.
        beta: Price of a false negative, at least 0.
        gamma: Above 0; the paper's range is 1 to 3.

    Returns:
        A scalar in [0, 1], above 0 by 1e-7 ** (1 / gamma) (5.6e-6 with the default) at least; NaN
        where the truth holds an index outside 0 ... C - 1.

    Raises:
        ValueError: There are not C weights, one is negative, or all of the foreground are 0.

    Source: Abraham and Khan 2018, arXiv:1810.07842, equation 4.
    """
    index = _tversky_index(truth, prediction, batch=batch, alpha=alpha, beta=beta)
    loss = ops.power(ops.maximum(1.0 - index, SMALLEST_PROBABILITY), 1.0 / gamma)
    return _nan_where_unknown(_mean_over_foreground(loss, class_weights), truth, prediction)


LOSSES: dict[str, Loss] = {
    "categorical_cross_entropy": categorical_cross_entropy,
    "dice": dice,
    "dice_cross_entropy": dice_cross_entropy,
    "focal": focal,
    "tversky": tversky,
    "focal_tversky": focal_tversky,
}
for _loss in LOSSES.values():  # so that a saved model finds its loss again
    keras.saving.register_keras_serializable(package="ct_segmentation")(_loss)


@keras.saving.register_keras_serializable(package="ct_segmentation")
class SegmentationLoss(keras.losses.Loss):  # type: ignore[misc]  # Keras is untyped
    """A loss with its parameters, as Keras compiles and saves it; see :func:`build_loss`.

    Args:
        loss: A key of `LOSSES`.
        parameters: The keyword arguments of that function.
        **kwargs: Further arguments of `keras.losses.Loss`.
    """

    def __init__(self, loss: str, parameters: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**{"name": loss, **kwargs})
        self.loss = loss
        self.parameters = dict(parameters)

    def call(self, truth: keras.KerasTensor, prediction: keras.KerasTensor) -> keras.KerasTensor:
        """Return the scalar loss of (B, H, W) class indices and (B, H, W, C) probabilities."""
        return LOSSES[self.loss](truth, prediction, **self.parameters)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build this loss again."""
        return {**super().get_config(), "loss": self.loss, "parameters": self.parameters}


def build_loss(
    name: str, *, num_classes: int, class_weights: ClassWeights = None, **parameters: Any
) -> SegmentationLoss:
    """Build a loss by its name.

    Args:
        name: A key of `LOSSES`.
        num_classes: Number of classes, background included: how many weights there must be.
        class_weights: See the module.
        **parameters: Further keyword arguments of that function, e.g. `gamma` of :func:`focal`;
            those left out have the values of the papers.

    Returns:
        What `keras.Model.compile` takes as `loss`.

    Raises:
        ValueError: There is no such loss or no such parameter of it, or a value is out of range.

    Example:
        >>> loss = build_loss("focal", num_classes=3, class_weights=(0.2, 1.0, 1.0), gamma=1.5)
    """
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {sorted(LOSSES)}, got {name!r}.")
    known = set(inspect.signature(LOSSES[name]).parameters)
    for parameter, value in parameters.items():
        if parameter not in known:
            owners = [other for other in LOSSES if parameter in _parameters_of(other)]
            raise ValueError(
                f"{parameter} is no parameter of the loss {name}, which takes "
                f"{_parameters_of(name)}. Leave it out"
                + (f", or choose one of {owners}." if owners else ".")
            )
        smallest_is_fine = not (name == "focal_tversky" and parameter == "gamma")
        if parameter in ("alpha", "beta", "gamma") and not (
            math.isfinite(value) and (value > 0 or (value == 0 and smallest_is_fine))
        ):
            bound = "at least 0" if smallest_is_fine else "above 0"
            raise ValueError(f"{parameter} of the loss {name} must be {bound}, got {value}.")
    if class_weights is not None:
        _check_class_weights(class_weights, num_classes, overlap="batch" in known)
        class_weights = tuple(float(weight) for weight in class_weights)
    return SegmentationLoss(name, {"class_weights": class_weights, **parameters})


def _parameters_of(name: str) -> list[str]:
    return list(inspect.signature(LOSSES[name]).parameters)[2:]


def _check_class_weights(
    class_weights: Sequence[float], num_classes: int, *, overlap: bool
) -> None:
    if len(class_weights) != num_classes:
        raise ValueError(
            f"class_weights must have one number for each of the {num_classes} classes, background "
            f"first, got {len(class_weights)}: {list(class_weights)}."
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in class_weights):
        raise ValueError(f"class_weights must be at least 0, got {list(class_weights)}.")
    if not any(class_weights[1:] if overlap else class_weights):
        raise ValueError(
            f"class_weights must be above 0 for a class{' of the foreground' if overlap else ''} "
            f"at least, got {list(class_weights)}."
        )


def _probabilities(prediction: keras.KerasTensor) -> keras.KerasTensor:
    """The prediction as a float32 or float64 tensor: three digits of bfloat16 are too few."""
    prediction = ops.convert_to_tensor(prediction)
    if keras.backend.standardize_dtype(prediction.dtype) in ("float32", "float64"):
        return prediction
    return ops.cast(prediction, "float32")


def _one_hot(truth: keras.KerasTensor, prediction: keras.KerasTensor) -> keras.KerasTensor:
    """Encode class indices as (B, H, W, C) of the prediction's dtype, unknown ones as zeros."""
    # Never by way of bfloat16, which has no 257.
    return ops.one_hot(ops.cast(truth, "int32"), prediction.shape[-1], dtype=prediction.dtype)


def _nan_where_unknown(
    loss: keras.KerasTensor, truth: keras.KerasTensor, prediction: keras.KerasTensor
) -> keras.KerasTensor:
    """The loss; NaN where the truth holds an index that is no class."""
    truth = ops.cast(truth, "int32")
    is_known = ops.all(ops.logical_and(truth >= 0, truth < prediction.shape[-1]))
    return ops.where(is_known, loss, ops.cast(float("nan"), loss.dtype))


def _cross_entropy(
    product: keras.KerasTensor, expected: keras.KerasTensor, class_weights: ClassWeights
) -> keras.KerasTensor:
    """The scalar of :func:`categorical_cross_entropy`; product is truth times prediction."""
    probability = ops.maximum(ops.sum(product, axis=-1), SMALLEST_PROBABILITY)
    return -ops.mean(_weight_of_pixels(expected, class_weights) * ops.log(probability))


def _dice(
    product: keras.KerasTensor,
    prediction: keras.KerasTensor,
    expected: keras.KerasTensor,
    class_weights: ClassWeights,
    *,
    batch: bool,
) -> keras.KerasTensor:
    """The scalar of :func:`dice`; product is truth times prediction."""
    overlap, predicted, true = (
        _foreground_sum(tensor, batch=batch) for tensor in (product, prediction, expected)
    )
    score = (2.0 * overlap + SMOOTH_PIXELS) / (true + predicted + SMOOTH_PIXELS)
    return 1.0 - _mean_over_foreground(score, class_weights)


def _weight_of_pixels(
    expected: keras.KerasTensor, class_weights: ClassWeights
) -> keras.KerasTensor | float:
    """The weight of the true class of each pixel, (B, H, W); 1 without weights."""
    if class_weights is None:
        return 1.0
    _check_class_weights(class_weights, expected.shape[-1], overlap=False)
    weights = ops.convert_to_tensor(class_weights, dtype=expected.dtype)
    return ops.sum(expected * weights, axis=-1)


def _foreground_sum(tensor: keras.KerasTensor, *, batch: bool) -> keras.KerasTensor:
    """Sum over the pixels, of the foreground classes, (C - 1,) or (B, C - 1).

    The background is left out of the sums: to cut it off before costs a copy of all pixels.
    """
    return ops.sum(tensor, axis=(0, 1, 2) if batch else (1, 2))[..., 1:]


def _tversky_index(
    truth: keras.KerasTensor,
    prediction: keras.KerasTensor,
    *,
    batch: bool,
    alpha: float,
    beta: float,
) -> keras.KerasTensor:
    """T of :func:`tversky`, with FP = predicted - TP and FN = true - TP put in."""
    prediction = _probabilities(prediction)
    expected = _one_hot(truth, prediction)
    overlap, predicted, true = (
        _foreground_sum(tensor, batch=batch)
        for tensor in (expected * prediction, prediction, expected)
    )
    # One sum of a stack, not of three terms, so that its order is fixed (see `blocks`).
    terms = ops.stack([overlap, predicted, true], axis=-1)
    prices = ops.convert_to_tensor((1.0 - alpha - beta, alpha, beta), dtype=terms.dtype)
    return (overlap + SMOOTH_PIXELS) / (ops.sum(terms * prices, axis=-1) + SMOOTH_PIXELS)


def _mean_over_foreground(
    values: keras.KerasTensor, class_weights: ClassWeights
) -> keras.KerasTensor:
    """The weighted mean of (C - 1,) or (B, C - 1), a value for each class of the foreground."""
    if class_weights is None:
        return ops.mean(values)
    _check_class_weights(class_weights, values.shape[-1] + 1, overlap=True)
    weights = ops.convert_to_tensor(class_weights[1:], dtype=values.dtype)
    return ops.mean(ops.sum(values * weights, axis=-1)) / sum(class_weights[1:])
