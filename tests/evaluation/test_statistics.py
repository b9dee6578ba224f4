import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.evaluation.statistics import bootstrap_interval

scores = st.lists(st.floats(0, 1), min_size=2, max_size=30)


def test_the_mean_is_that_of_the_values():
    interval = bootstrap_interval([0.2, 0.4, 0.9], seed=0)

    assert interval.mean == pytest.approx(0.5)  # (0.2 + 0.4 + 0.9) / 3
    assert interval.n == 3
    assert interval.num_dropped == 0


def test_two_values_give_the_interval_that_can_be_listed_by_hand():
    # The four resamples of (0, 1) have means 0, 0.5, 0.5, 1, a quarter of them at either end,
    # so the 2.5 % and the 97.5 % quantile are 0 and 1, and the 30 % and 70 % quantiles 0.5.
    wide = bootstrap_interval([0.0, 1.0], seed=1)
    narrow = bootstrap_interval([0.0, 1.0], seed=1, confidence=0.4)

    assert (wide.low, wide.high) == (0.0, 1.0)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_unscored_values_are_dropped_and_counted():
    interval = bootstrap_interval([math.nan, 0.2, 0.4, math.nan, 0.9], seed=3)
    same_without = bootstrap_interval([0.2, 0.4, 0.9], seed=3)

    assert (interval.n, interval.num_dropped) == (3, 2)
    assert (interval.mean, interval.low, interval.high) == (
        same_without.mean,
        same_without.low,
        same_without.high,
    )


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_without_a_scored_value_everything_is_nan(values):
    interval = bootstrap_interval(values, seed=0)

    assert math.isnan(interval.mean)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert (interval.n, interval.num_dropped) == (0, len(values))


def test_a_single_value_has_a_mean_and_no_interval():
    interval = bootstrap_interval([0.7], seed=0)

    assert interval.mean == 0.7
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


@settings(max_examples=25, deadline=None)
@given(scores, st.integers(0, 2**32), st.randoms())
def test_the_interval_depends_on_values_and_seed_and_not_on_their_order(values, seed, random):
    shuffled = list(values)
    random.shuffle(shuffled)

    assert bootstrap_interval(values, seed=seed, resamples=200) == bootstrap_interval(
        shuffled, seed=seed, resamples=200
    )


def test_another_seed_gives_another_interval():
    values = np.linspace(0, 1, 17) ** 2

    assert bootstrap_interval(values, seed=0).low != bootstrap_interval(values, seed=1).low


@settings(max_examples=25, deadline=None)
@given(scores)
def test_the_interval_stays_within_the_range_of_the_values(values):
    interval = bootstrap_interval(values, seed=0, resamples=200)

    tiny = 1e-12  # a mean of equal values may differ from them in the last bit
    assert min(values) - tiny <= interval.low <= interval.high <= max(values) + tiny


def test_equal_values_give_an_interval_of_no_width():
    interval = bootstrap_interval([0.25] * 6, seed=0)

    assert (interval.low, interval.mean, interval.high) == (0.25, 0.25, 0.25)


def test_the_half_width_agrees_with_the_normal_one_where_that_holds():
    # Standard error of the mean of 400 normal values: 1 / sqrt(400) = 0.05; times 1.96 is 0.098.
    values = np.random.default_rng(5).normal(size=400)
    interval = bootstrap_interval(values, seed=0)

    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.05)


def test_a_95_percent_interval_covers_the_true_mean_about_95_times_in_100():
    # 30 normal values with mean 1, 500 times over. A percentile interval falls a little short of
    # 95 %; one at 90 % confidence would fall below the band and one at 99 % above it.
    generator = np.random.default_rng(11)
    covered = 0
    for seed in range(500):
        interval = bootstrap_interval(generator.normal(1.0, 0.5, 30), seed=seed, resamples=500)
        covered += interval.low <= 1.0 <= interval.high

    assert 0.91 <= covered / 500 <= 0.97


def test_many_values_are_resampled_in_blocks_and_not_all_at_once():
    # In one piece the drawing would hold 200,000 x 200 indices of 8 bytes, 320 MB.
    values = np.random.default_rng(0).uniform(size=200_000)
    tracemalloc.start()
    interval = bootstrap_interval(values, seed=0, resamples=200)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 150e6
    # Standard error of a uniform mean: 0.2887 / sqrt(200000) = 0.000646.
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.000646, rel=0.15)


def test_a_table_in_place_of_a_column_is_an_error():
    with pytest.raises(ValueError, match=r"shape \(N,\), got shape \(2, 2\).*one class"):
        bootstrap_interval([[0.1, 0.2], [0.3, 0.4]], seed=0)


def test_an_infinite_value_is_an_error():
    with pytest.raises(ValueError, match="got 1 infinite of 2"):
        bootstrap_interval([0.5, math.inf], seed=0)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_outside_0_to_1_is_an_error(confidence):
    with pytest.raises(ValueError, match=f"between 0 and 1, got {confidence}"):
        bootstrap_interval([0.1, 0.2], seed=0, confidence=confidence)


def test_no_resamples_is_an_error():
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        bootstrap_interval([0.1, 0.2], seed=0, resamples=0)
