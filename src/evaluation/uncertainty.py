"""How unsure a network is, of a pixel and of a case, and what that is worth: does it find errors?

Uncertainty of a pixel is an entropy. Of a case it is a mean over the pixels that matter, or how
much several predictions of it disagree. Its worth is read off cases whose truth is known:
correlation with the error, and the risk-coverage curve.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.evaluation.overlap import count, mean_foreground, overlap

LIKELY = 0.1  # a pixel may well be foreground where all foreground classes together have as much


@dataclass(frozen=True)
class CaseUncertainty:
    """Entropy over the pixels of a case that matter; those of slices add up to those of a scan.

    Attributes:
        total: Sum of the normalised entropy over the pixels.
        num_pixels: How many there are.
    """

    total: float
    num_pixels: int

    @property
    def mean(self) -> float:
        """Mean normalised entropy, 0 to 1; 0 without a pixel: sure that there is nothing."""
        return self.total / self.num_pixels if self.num_pixels else 0.0

    def __add__(self, other: "CaseUncertainty") -> "CaseUncertainty":
        return CaseUncertainty(self.total + other.total, self.num_pixels + other.num_pixels)

    def __radd__(self, start: int) -> "CaseUncertainty":
        # sum() begins with the integer 0; any other number is a mistake.
        if start != 0:
            return NotImplemented
        return self


@dataclass(frozen=True)
class Correlation:
    """How closely uncertainty goes with error over cases, -1 to 1; 1 is what one wishes for.

    Attributes:
        spearman: Of the ranks; NaN with fewer than 3 cases or where one side is constant.
        pearson: Of the values; NaN likewise.
        n: Number of cases used.
        num_dropped: Cases with NaN on either side, left out.
    """

    spearman: float
    pearson: float
    n: int
    num_dropped: int


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """What is gained when the most uncertain cases are looked at by a person instead.

    Attributes:
        coverage: (n,) float64, 1 / n to 1: the share left to the network, the surest first.
        risk: (n,) float64, the mean error of these, in the unit of the error.
        aurc: Area under it, the mean of `risk`: the lower the better; NaN without a case.
        ideal: The area if the order by uncertainty were that by error: no lower one is possible.
        random: The area expected of an order that knows nothing: the mean error.
        num_dropped: Cases with NaN on either side, left out.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    aurc: float
    ideal: float
    random: float
    num_dropped: int

    @property
    def gain(self) -> float:
        """1 for the ideal order, 0 for one that knows nothing, negative for worse.

        NaN where all cases have the same error: there is nothing to gain.
        """
        room = self.random - self.ideal
        # Means of equal numbers differ in their last bits.
        if not room > 1e-12 * abs(self.random):
            return math.nan
        return (self.random - self.aurc) / room


def normalised_entropy(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Predictive entropy over the logarithm of the number of classes.

    H = -sum_c p_c log p_c / log C: 0 where one class is certain, 1 where all are alike.

    Args:
        probabilities: (..., C) floats, summing to 1 over C >= 2.

    Returns:
        (...) float32 in 0 to 1.
    """
    # Class by class in memory: NumPy is slow over a short last axis.
    planes = np.ascontiguousarray(np.moveaxis(probabilities, -1, 0))
    terms = np.log(np.clip(planes, np.finfo(np.float32).tiny, np.inf))
    terms *= planes
    entropy = -reduce(np.add, terms)
    return np.clip(entropy / np.log(len(planes)), 0.0, 1.0).astype(np.float32)


def case_uncertainty(
    probabilities: NDArray[np.floating[Any]], region: NDArray[np.bool_] | None = None
) -> CaseUncertainty:
    """Sum up the entropy of a slice over the pixels that are, or may well be, foreground.

    A mean over the whole picture says how large the foreground is, for nearly all of the rest is
    certain; and one over the predicted foreground has nothing to say of the case one would most
    like to find, a lesion that is missed. So the pixels count where foreground has a probability of
    0.1 or more: what is predicted, the outer half of its blurred border, and faint spots that are
    no prediction yet. Where there is no such pixel the network is sure, and the score is 0.

    Args:
        probabilities: (..., C) floats, background first, summing to 1 over C >= 2.
        region: (...) bool, other pixels to sum up over, such as the `boundary_ring` of the
            prediction with itself, where the size of the object counts for less; None for these.

    Returns:
        The sum over this slice; those of the slices of a patient add up, and `.mean` is the score.

    Source: Jungo et al. 2020 and Zenk et al. 2025: uncertainty of single pixels is a poor guide to
    errors, of use is what is aggregated over a case, and over what decides how much.
    """
    probabilities = np.asarray(probabilities)
    counts = 1 - probabilities[..., 0] >= LIKELY if region is None else region
    entropy = normalised_entropy(probabilities[counts])
    return CaseUncertainty(float(entropy.sum(dtype=np.float64)), entropy.size)


def pairwise_disagreement(masks: Sequence[NDArray[np.integer[Any]]], num_classes: int) -> float:
    """1 - mean Dice between the masks that several members predict for one case.

    Args:
        masks: (...) class indices of at least two members: of a slice, or better of a whole scan.
        num_classes: C, background included.

    Returns:
        The mean over pairs of 1 - mean Dice of the foreground classes, 0 to 1. A class in neither
        of a pair is left out; a pair without any foreground agrees, 0: a case that all members
        leave empty is one they are sure of, right or wrong, and stays in the comparison.

    Raises:
        ValueError: If there are fewer than two masks, or as `overlap.count` does.

    Source: Roy et al. 2019; of many scores the best at finding failed segmentations in Zenk et al.
    2025.
    """
    if len(masks) < 2:
        raise ValueError(
            f"expected the masks of at least two members to compare, got {len(masks)}. Use "
            "case_uncertainty where there is one."
        )
    agreement = [
        mean_foreground(overlap(count(one, other, num_classes)).dice)
        for one, other in combinations(masks, 2)
    ]
    return float(1 - np.mean(np.nan_to_num(agreement, nan=1.0)))


def correlation(uncertainty: ArrayLike, error: ArrayLike) -> Correlation:
    """Correlate uncertainty with error over cases.

    Args:
        uncertainty: (N,) score of each case; NaN where there is none.
        error: (N,) error of each, such as 1 - Dice; NaN where it is not scored.

    Returns:
        Rank and linear correlation. Cases with NaN on either side are dropped and counted.

    Raises:
        ValueError: If the two differ in shape or are not (N,).
    """
    score, loss, num_dropped = _pairs(uncertainty, error)
    spearman = pearson = math.nan
    if score.size >= 3 and np.ptp(score) > 0 and np.ptp(loss) > 0:
        from scipy import stats

        spearman = float(stats.spearmanr(score, loss).statistic)
        pearson = float(stats.pearsonr(score, loss).statistic)
    return Correlation(spearman, pearson, score.size, num_dropped)


def risk_coverage(uncertainty: ArrayLike, error: ArrayLike) -> RiskCoverage:
    """Mean error of the cases left when the most uncertain ones are taken out, at each share.

    Cases of the same uncertainty have no order: each counts with the mean error of them all, which
    is what a random order among them gives on average. So a constant score has the random area.

    Args:
        uncertainty: (N,) score of each case; NaN where there is none.
        error: (N,) error of each, such as 1 - Dice; NaN where it is not scored.

    Returns:
        The curve and its area beside the ideal and the random one; NaN and empty without a case.

    Raises:
        ValueError: If the two differ in shape or are not (N,).

    Source: Geifman and El-Yaniv 2017 for the curve, Geifman et al. 2019 for the ideal area, Jaeger
    et al. 2023 and Zenk et al. 2025 for it as the measure of failure detection.
    """
    score, loss, num_dropped = _pairs(uncertainty, error)
    n = score.size
    if n == 0:
        return RiskCoverage(loss, loss, math.nan, math.nan, math.nan, num_dropped)
    kept = np.arange(1, n + 1)
    _, place, size = np.unique(score, return_inverse=True, return_counts=True)
    shared = (np.bincount(place, weights=loss) / size)[place]
    risk = np.cumsum(shared[np.argsort(score, kind="stable")]) / kept
    ideal = np.cumsum(np.sort(loss)) / kept
    return RiskCoverage(
        kept / n, risk, float(risk.mean()), float(ideal.mean()), float(loss.mean()), num_dropped
    )


def _pairs(
    uncertainty: ArrayLike, error: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Return both as float64 without the cases that have NaN on either side, and their number."""
    score, loss = np.asarray(uncertainty, np.float64), np.asarray(error, np.float64)
    if score.ndim != 1 or score.shape != loss.shape:
        raise ValueError(
            "uncertainty and error must be one number a case each, shape (N,), got "
            f"{score.shape} and {loss.shape}. Give both of the same cases in one order."
        )
    known = ~(np.isnan(score) | np.isnan(loss))
    return score[known], loss[known], int((~known).sum())
