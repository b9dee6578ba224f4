"""Temperature scaling: one number, fitted on validation, that mends how sure a network is.

The network's logits are not needed: the logarithm of a softmax is the logits up to a constant, and
a constant changes no softmax. Nor does a temperature change which class is the most probable, so no
mask and no Dice changes either.

    sample = PixelSample(size=100_000, seed=2026)
    for probabilities, truth in validation_slices:
        sample.add(probabilities, truth)
    fitted = fit_temperature(sample.log_probabilities, sample.truth)
    calibrated = apply_temperature(probabilities, fitted.value)
"""

import math
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.evaluation.pixels import FLOOR, pixel_blocks

LIMITS = (0.05, 20.0)  # where the temperature is sought; a network worth using lies in 0.5 to 5


class PixelSample:
    """Pixels drawn alike from all that are shown, in bounded memory and the same for the same seed.

    Every pixel gets a random number, and those with the smallest numbers stay: each pixel of each
    slice has the same chance, however many slices come.

    Attributes:
        log_probabilities: (N, C) float32, the logarithm of the probabilities; (0, 0) before any.
        truth: (N,) class indices, intp.
        num_seen: How many pixels were shown.
    """

    def __init__(self, size: int, seed: int) -> None:
        """Begin an empty sample.

        Args:
            size: At most how many pixels are kept, each in 16 bytes and 4 more a class.
            seed: Of the draw.

        Raises:
            ValueError: If size is below 1.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {size}. Pass 100000.")
        self.log_probabilities: NDArray[np.float32] = np.empty((0, 0), np.float32)
        self.truth: NDArray[np.intp] = np.empty(0, np.intp)
        self.num_seen = 0
        self._size = size
        self._generator = np.random.default_rng(seed)
        self._keys: NDArray[np.float64] = np.empty(0)

    def add(
        self,
        probabilities: NDArray[np.floating[Any]],
        truth: NDArray[np.integer[Any]],
        region: NDArray[np.bool_] | None = None,
    ) -> None:
        """Show the pixels of a slice.

        Args:
            probabilities: (..., C) floats in 0 to 1 that sum to 1 over C >= 2.
            truth: (...) class indices in 0..C - 1.
            region: (...) bool, the pixels that may be drawn; None for all.

        Raises:
            ValueError: If the shapes do not fit, the classes are not those of the slices before, a
                label is out of range, or what is given are not probabilities.
            TypeError: If an array is not of the type named above.
        """
        for pixels in pixel_blocks(probabilities, truth, region):
            num_classes = len(pixels.probabilities)
            if self.num_seen and num_classes != self.log_probabilities.shape[1]:
                raise ValueError(
                    f"probabilities must have the {self.log_probabilities.shape[1]} classes of the "
                    f"slices before, got {num_classes}. Draw a sample for each model."
                )
            self.num_seen += pixels.truth.size
            keys = self._generator.random(pixels.truth.size)
            if self._keys.size == self._size:  # full: only those that drive out another matter
                chosen = np.flatnonzero(keys < self._keys.max())
            else:
                chosen = np.arange(keys.size)
            drawn = np.log(np.maximum(pixels.probabilities[:, chosen].T, np.float32(FLOOR)))
            before = self.log_probabilities.reshape(-1, num_classes)
            self._keep(
                np.concatenate([self._keys, keys[chosen]]),
                np.concatenate([before, drawn]),
                np.concatenate([self.truth, pixels.truth[chosen]]),
            )

    def _keep(
        self, keys: NDArray[np.float64], logs: NDArray[np.float32], truth: NDArray[np.intp]
    ) -> None:
        """Keep the pixels with the smallest keys."""
        if keys.size > self._size:
            smallest = np.argpartition(keys, self._size)[: self._size]
            keys, logs, truth = keys[smallest], logs[smallest], truth[smallest]
        self._keys, self.log_probabilities, self.truth = keys, logs, truth


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature.

    Attributes:
        value: T; above 1 the network was too sure of itself, below 1 not sure enough.
        nll_before: Mean negative log likelihood of the sample as it is.
        nll_after: The same at this temperature; never more.
        num_pixels: How many pixels it was fitted on.
        at_limit: Whether it lies at an end of `LIMITS`, or no pixel of the sample is wrong: there
            is no minimum. Such a temperature should not be used.
    """

    value: float
    nll_before: float
    nll_after: float
    num_pixels: int
    at_limit: bool


def fit_temperature(
    log_probabilities: NDArray[np.floating[Any]], truth: NDArray[np.integer[Any]]
) -> Temperature:
    """Fit the temperature that minimises the negative log likelihood.

    That of softmax(z / T) is convex in 1 / T, so there is one minimum. It is of the pixels given:
    drawn from whole pictures they stand for all that will be predicted, drawn from the boundary
    ring for those in doubt.

    Args:
        log_probabilities: (N, C) finite logarithms of probabilities, or logits; at least one pixel,
            of validation patients, never of test patients. A hundred thousand are plenty.
        truth: (N,) class indices in 0..C - 1.

    Returns:
        The temperature, 1 where no other is better.

    Raises:
        ValueError: If there is no pixel, the shapes do not fit, a label is out of range, or a
            logarithm is not finite.

    Source: Guo et al. 2017, section 4.2; for probabilities averaged over several networks or flips
    the average is calibrated, not what enters it: Rahaman and Thiery 2021.
    """
    logits, labels = np.asarray(log_probabilities, dtype=np.float64), np.asarray(truth)
    _check_sample(logits, labels)
    from scipy.optimize import minimize_scalar

    # Less the highest of each pixel, so that no exponential overflows at a low temperature.
    logits = logits - logits.max(axis=1, keepdims=True)
    of_truth = logits[np.arange(labels.size), labels]

    def nll(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        normaliser = np.log(np.exp(logits * inverse).sum(axis=1))
        return float((normaliser - of_truth * inverse).mean())

    ends = (math.log(LIMITS[0]), math.log(LIMITS[1]))
    found = minimize_scalar(nll, bounds=ends, method="bounded", options={"xatol": 1e-6})
    before = nll(0.0)
    best, after = (float(found.x), float(found.fun)) if found.fun < before else (0.0, before)
    near_end = min(abs(best - end) for end in ends) < 1e-3
    # Of a sure network the likelihood is 1 to the last bit before the end is reached.
    never_wrong = bool((of_truth == 0).all())
    return Temperature(math.exp(best), before, after, labels.size, near_end or never_wrong)


def apply_temperature(
    probabilities: NDArray[np.floating[Any]], temperature: float
) -> NDArray[np.float32]:
    """Return the probabilities at another temperature, p ** (1 / T) over their sum.

    Args:
        probabilities: (..., C) floats in 0 to 1 that sum to 1 over C. Zeros count as 1.2e-38, the
            smallest number of float32.
        temperature: T > 0; 1 changes nothing.

    Returns:
        (..., C) float32 that sum to 1, in the same order of size.

    Raises:
        ValueError: If the temperature is not a positive number.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(
            f"temperature must be a positive number, got {temperature}. Pass 1 to change nothing."
        )
    # In memory class by class, also what is returned: NumPy is slow over a short last axis.
    values = np.array(np.moveaxis(probabilities, -1, 0), np.float32, order="C")
    np.log(np.clip(values, FLOOR, np.inf, out=values), out=values)
    # The highest becomes 1 before it is exponentiated: at a low temperature all would vanish.
    values -= reduce(np.maximum, values)
    values /= np.float32(temperature)
    np.exp(values, out=values)
    values /= reduce(np.add, values)
    return np.moveaxis(values, 0, -1)


def _check_sample(logits: NDArray[np.float64], labels: NDArray[Any]) -> None:
    """Refuse what no temperature can be fitted to."""
    if logits.ndim != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            "expected log probabilities (N, C) of two or more classes and truth (N,), got shapes "
            f"{logits.shape} and {labels.shape}. Draw them with PixelSample."
        )
    if labels.size == 0:
        raise ValueError(
            "expected at least one pixel to fit a temperature to, got none. Show the sample the "
            "slices of the validation patients."
        )
    if not np.isfinite(logits).all():
        raise ValueError(
            f"log probabilities must be finite, got {np.count_nonzero(~np.isfinite(logits))} that "
            "are not. Raise probabilities of 0 before the logarithm, as PixelSample does."
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"truth must hold labels 0..{logits.shape[1] - 1}, got {labels.min()} to "
            f"{labels.max()}. Map the values of the mask files to classes with labels: in "
            "params.yaml."
        )
