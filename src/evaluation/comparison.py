"""Is one model better than another? Paired over patients, with an interval and a corrected p."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.evaluation.statistics import Interval, bootstrap_interval

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Comparison:
    """Two models on the same patients.

    Attributes:
        first: Name of a model.
        second: Name of the other.
        difference: Mean over patients of the score of the first less that of the second, with its
            bootstrap interval; `n` pairs, `num_dropped` with NaN on either side.
        num_one_sided: Of the dropped, those where one model alone has a score: it predicted a class
            that the truth does not hold, and the other rightly did not.
        p_value: Two-sided p of the Wilcoxon signed-rank test; 1 where no pair differs, NaN without
            a pair.
        p_holm: The same after Holm's correction over the table; NaN likewise.
        smallest_p: What p would be if all `n` pairs pointed the same way, 2 ** (1 - n); NaN without
            a pair.
    """

    first: str
    second: str
    difference: Interval
    num_one_sided: int
    p_value: float
    p_holm: float
    smallest_p: float

    @property
    def enough_pairs(self) -> bool:
        """Whether any result could reach p < 0.05, uncorrected: from 6 pairs on.

        Where it is False a high p says nothing about the models.
        """
        return self.smallest_p < SIGNIFICANCE


def compare(
    scores: Mapping[str, Mapping[str, float]],
    *,
    seed: int,
    reference: str | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> list[Comparison]:
    """Compare models in pairs over the patients that both score.

    A patient without a score for one of two models is left out of that pair, for a difference has
    no meaning there, and counted. Patients are paired by key, whatever their order.

    Args:
        scores: Model -> patient (a pseudonym) -> score, NaN where not scored; all with the same
            patients. One quantity of one class. At least two models.
        seed: Of the bootstrap, the same for each pair.
        reference: Model that all others are compared with; None for every pair. Fewer comparisons
            cost less in the correction.
        confidence: Nominal coverage of the intervals, between 0 and 1.
        resamples: Number of bootstrap resamples.

    Returns:
        A comparison for each pair, in the order of `scores`; with a reference it comes second, so
        that a positive difference means better than it. `p_holm` is over these pairs; where other
        classes stand in the same table, `corrected` makes it anew over all of them.

    Raises:
        ValueError: If there are fewer than two models, patients differ between them, a score is
            infinite, or there is no such reference.

    Source: Demsar 2006 for the test, Holm 1979 for the correction.
    """
    table = _checked_table(scores)
    if reference is None:
        pairs = list(combinations(table, 2))
    elif reference in table:
        pairs = [(name, reference) for name in table if name != reference]
    else:
        raise ValueError(f"reference must be one of {list(table)}, got {reference!r}.")
    found = []
    for first, second in pairs:
        difference = table[first] - table[second]
        one_sided = np.isnan(table[first]) != np.isnan(table[second])
        interval = bootstrap_interval(
            difference, seed=seed, confidence=confidence, resamples=resamples
        )
        p_value = signed_rank_p(difference)
        smallest = 2.0 ** (1 - interval.n) if interval.n else math.nan
        found.append(
            Comparison(first, second, interval, int(one_sided.sum()), p_value, p_value, smallest)
        )
    return corrected(found)


def corrected(table: Sequence[Comparison]) -> list[Comparison]:
    """Correct p once over all comparisons that stand in one table.

    Args:
        table: Every comparison shown together, such as those of all classes; what `p_holm` says
            before does not count.

    Returns:
        The comparisons in the same order, with `p_holm` for their number.
    """
    p_holm = holm([comparison.p_value for comparison in table])
    return [replace(one, p_holm=float(p)) for one, p in zip(table, p_holm, strict=True)]


def signed_rank_p(differences: ArrayLike) -> float:
    """Two-sided p of the Wilcoxon signed-rank test that differences lie symmetrically about 0.

    Exact for up to 50 differences without ties and up to 13 with them, else by the normal
    approximation. Differences of 0 are left out, as Wilcoxon did.

    Args:
        differences: (N,) numbers, one a patient; NaN is dropped.

    Returns:
        p in 0 to 1; 1 where all differences are 0, NaN where there is none.
    """
    array = np.asarray(differences, dtype=np.float64)
    # Scores that are equal on paper differ in their last bits, and would not tie.
    known = np.round(array[~np.isnan(array)], 12)
    if known.size == 0:
        return math.nan
    changed = known[known != 0]
    if changed.size == 0:
        return 1.0
    from scipy import stats

    return float(stats.wilcoxon(changed).pvalue)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Correct p-values for their number, step by step from the smallest (Holm).

    Args:
        p_values: (M,) p-values of one table; NaN is no test and does not count.

    Returns:
        (M,) float64, min(1, max over the smaller ones of (number of tests left) * p); NaN stays.

    Source: Holm 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    p_holm = np.full(p.shape, np.nan)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    stepped = p[order] * np.arange(order.size, 0, -1)
    p_holm[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return p_holm


def _checked_table(scores: Mapping[str, Mapping[str, float]]) -> dict[str, NDArray[np.float64]]:
    """Return model -> (N,) scores of the patients in one order."""
    names = list(scores)
    if len(names) < 2:
        raise ValueError(
            f"expected at least two models to compare, got {names}. Name more of them in "
            "architectures in params.yaml."
        )
    patients = list(scores[names[0]])
    table = {}
    for name, by_patient in scores.items():
        if set(by_patient) != set(patients):
            differing = sorted(set(by_patient) ^ set(patients))
            raise ValueError(
                f"models must be scored on the same patients, got {names[0]} and {name} that "
                f"differ in {differing[:5]}. Evaluate both on the same split."
            )
        table[name] = np.array([by_patient[patient] for patient in patients], dtype=np.float64)
        infinite = int(np.isinf(table[name]).sum())
        if infinite:
            raise ValueError(
                f"scores must be finite, or NaN where not scored, got {infinite} infinite of "
                f"{len(patients)} for {name}. Give them their written value first."
            )
    return table
