"""How sure a mean over patients is: the bootstrap interval that stands beside every mean."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

# Resamples are drawn in blocks of about this many values (32 MB of float64), so that a table of a
# hundred thousand values costs no more memory than one of ten.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: Mean of the values used, in their unit; NaN when there was none.
        low: Lower end of the interval; NaN with fewer than two values.
        high: Upper end of the interval; NaN with fewer than two values.
        n: How many values were used.
        num_dropped: How many values were NaN (not scored) and left out.
    """

    mean: float
    low: float
    high: float
    n: int
    num_dropped: int = 0


def bootstrap_interval(
    values: ArrayLike, *, seed: int, confidence: float = 0.95, resamples: int = 10_000
) -> Interval:
    """Return the mean of `values` with its percentile bootstrap interval.

    Each resample draws n values out of the n with replacement; the interval runs between the
    (1 - confidence) / 2 and (1 + confidence) / 2 quantiles of the resampled means. The answer
    depends on the values and the seed alone, not on their order. With fewer than about ten values
    the interval is somewhat too narrow, as percentile intervals are: for n = 5 from a normal
    distribution a nominal 95 % covers about 84 %.

    Args:
        values: (N,) numbers, one an independent unit (a patient); NaN marks a unit that was not
            scored, which is dropped and counted in `num_dropped`. May be empty.
        seed: Seed of the resampling.
        confidence: Nominal coverage, between 0 and 1, both excluded.
        resamples: Number of resamples, at least 1.

    Returns:
        The interval, in the unit of `values`. Without a scored value everything is NaN and n is 0;
        with a single one the mean is that value, and low and high are NaN.

    Raises:
        ValueError: If `values` is not one-dimensional or holds an infinity, or if `confidence` or
            `resamples` is out of range.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(
            f"values must be one number a patient, shape (N,), got shape {array.shape}. "
            "Pass one class and one quantity at a time."
        )
    if np.isinf(array).any():
        raise ValueError(
            f"values must be finite, or NaN where not scored, got {np.isinf(array).sum()} infinite "
            f"of {array.size}. Give an undefined score its written value before averaging."
        )
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}. Pass 0.95.")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}. Pass 10000.")

    # Sorted, so that the order of the patients in a table cannot move the interval.
    scored = np.sort(array[~np.isnan(array)])
    n, num_dropped = scored.size, array.size - scored.size
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0, num_dropped)
    mean = float(scored.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, num_dropped)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(_resampled_means(scored, seed, resamples), [tail, 1.0 - tail])
    return Interval(mean, float(low), float(high), n, num_dropped)


def _resampled_means(scored: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Return the (resamples,) means of resamples of the (N,) values."""
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // scored.size)
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        drawn = generator.integers(0, scored.size, size=(stop - start, scored.size))
        means[start:stop] = scored[drawn].mean(axis=1)
    return means
