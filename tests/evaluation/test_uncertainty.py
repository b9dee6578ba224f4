import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from src.evaluation.uncertainty import (
    case_uncertainty,
    correlation,
    normalised_entropy,
    pairwise_disagreement,
    risk_coverage,
)

# Entropy of (0.9, 0.1) over log 2.
NINE_TO_ONE = -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))


def members(seed, number=3, num_classes=3):
    return np.random.default_rng(seed).dirichlet([0.5] * num_classes, (number, 6, 5))


class TestEntropy:
    def test_it_is_zero_where_one_class_is_certain_and_one_where_all_are_alike(self):
        found = normalised_entropy(np.array([[0, 1, 0], [1 / 3, 1 / 3, 1 / 3]], np.float32))
        np.testing.assert_allclose(found, [0, 1], atol=1e-6)

    def test_that_of_a_half_and_two_quarters_is_one_and_a_half_bits(self):
        found = normalised_entropy(np.array([0.25, 0.5, 0.25], np.float32))
        assert found == pytest.approx(1.5 * math.log(2) / math.log(3))

    @pytest.mark.parametrize("num_classes", [2, 3, 7])
    def test_it_is_the_same_in_whatever_order_the_classes_lie_in_memory(self, num_classes):
        last = members(1, num_classes=num_classes).astype(np.float32)
        first = np.moveaxis(np.ascontiguousarray(np.moveaxis(last, -1, 0)), 0, -1)
        np.testing.assert_array_equal(normalised_entropy(first), normalised_entropy(last))


class TestCaseUncertainty:
    def test_it_is_the_mean_over_what_may_well_be_foreground(self):
        # Foreground 0, 0.05, 0.25, 0.5, 1: the first two do not count, of the others the entropies
        # are those of (0.75, 0.25), 1 and 0.
        foreground = np.array([0, 0.05, 0.25, 0.5, 1.0])
        three_to_one = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
        found = case_uncertainty(np.stack([1 - foreground, foreground], axis=-1))

        assert found.num_pixels == 3
        assert found.mean == pytest.approx((three_to_one + 1 + 0) / 3)

    def test_all_foreground_classes_together_decide_what_counts(self):
        assert case_uncertainty(np.array([[0.88, 0.06, 0.06]])).num_pixels == 1

    def test_slices_add_up_to_the_scan(self):
        slices = members(0)
        added = sum(case_uncertainty(one) for one in slices)

        assert added.mean == pytest.approx(case_uncertainty(slices).mean)
        assert added.num_pixels == case_uncertainty(slices).num_pixels

    def test_a_case_that_is_surely_empty_is_certain_and_has_a_score(self):
        found = case_uncertainty(np.tile([0.99, 0.01], (5, 1)))

        assert (found.num_pixels, found.mean) == (0, 0.0)

    def test_a_faint_spot_that_is_not_predicted_raises_the_score(self):
        probabilities = np.tile([0.99, 0.01], (5, 1))
        probabilities[2] = [0.7, 0.3]

        assert case_uncertainty(probabilities).mean > 0.8

    def test_a_region_takes_the_place_of_the_likely_foreground(self):
        probabilities = np.tile([0.9, 0.1], (4, 1))
        probabilities[3] = [0.5, 0.5]
        found = case_uncertainty(probabilities, np.array([True, False, False, True]))

        assert found.mean == pytest.approx((NINE_TO_ONE + 1) / 2)

    def test_it_does_not_add_to_a_number(self):
        with pytest.raises(TypeError):
            7 + case_uncertainty(members(0))


class TestPairwiseDisagreement:
    def test_it_is_one_less_the_mean_dice_of_all_pairs(self):
        # Dice of the first two 2 * 2 / (2 + 4) = 2/3; of the third with either 0.
        masks = np.zeros((3, 10), np.uint8)
        masks[0, :2] = 1
        masks[1, :4] = 1
        masks[2, 8:] = 1

        assert pairwise_disagreement(masks, 2) == pytest.approx(1 - (2 / 3) / 3)

    def test_a_class_that_neither_of_a_pair_has_is_left_out(self):
        masks = np.array([[0, 1, 1, 0], [0, 1, 1, 1]])

        assert pairwise_disagreement(masks, 3) == pytest.approx(1 - 4 / 5)

    def test_members_that_all_leave_a_case_empty_agree(self):
        assert pairwise_disagreement(np.zeros((3, 4, 4), np.uint8), 2) == 0.0

    def test_one_that_finds_something_where_the_other_does_not_disagrees_wholly(self):
        assert pairwise_disagreement(np.array([[0, 0], [0, 1]]), 2) == 1.0

    def test_a_single_member_is_an_error(self):
        with pytest.raises(ValueError, match="at least two members to compare, got 1"):
            pairwise_disagreement([np.zeros((4, 4), np.uint8)], 2)


class TestCorrelation:
    def test_ranks_and_values_are_correlated(self):
        # A rising curve that is no line: ranks agree wholly.
        found = correlation([1, 2, 3, 4], [1, 4, 9, 16])

        assert found.spearman == pytest.approx(1)
        # Covariance 25 / 4, variances 5 / 4 and 129 / 4.
        assert found.pearson == pytest.approx(25 / math.sqrt(5 * 129))
        assert (found.n, found.num_dropped) == (4, 0)

    def test_it_agrees_with_scipy_where_values_tie(self):
        generator = np.random.default_rng(0)
        score, error = generator.integers(0, 5, (2, 30)) / 5
        found = correlation(score, error)

        assert found.spearman == pytest.approx(spearmanr(score, error).statistic)
        assert found.pearson == pytest.approx(pearsonr(score, error).statistic)

    def test_cases_without_a_number_are_dropped_and_counted(self):
        nan = math.nan
        found = correlation([0.1, nan, 0.2, 0.3, 0.4, nan], [0.1, 0.2, nan, 0.3, 0.5, nan])

        assert (found.n, found.num_dropped) == (3, 3)
        assert found.spearman == pytest.approx(1)

    @pytest.mark.parametrize(
        ("score", "error"),
        [([], []), ([0.1, 0.2], [0.3, 0.4]), ([0.5] * 4, [0.1, 0.2, 0.3, 0.4]),
         ([0.1, 0.2, 0.3], [0.0, 0.0, 0.0])],
    )  # fmt: skip
    def test_too_few_cases_or_a_constant_side_have_no_correlation(self, score, error):
        found = correlation(score, error)

        assert math.isnan(found.spearman)
        assert math.isnan(found.pearson)
        assert found.n == len(score)

    def test_different_lengths_are_an_error(self):
        with pytest.raises(ValueError, match=r"got \(2,\) and \(3,\)"):
            correlation([0.1, 0.2], [0.1, 0.2, 0.3])


class TestRiskCoverage:
    def test_the_curve_is_that_computed_by_hand(self):
        # The surest first: errors 0.1, 0.5, 0.0, 0.4.
        found = risk_coverage([0.3, 0.1, 0.9, 0.2], [0.0, 0.1, 0.4, 0.5])

        assert found.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
        assert found.risk.tolist() == pytest.approx([0.1, 0.3, 0.2, 0.25])
        assert found.aurc == pytest.approx(0.85 / 4)
        # Ordered by error 0, 0.1, 0.4, 0.5: means 0, 0.05, 1/6, 0.25.
        assert found.ideal == pytest.approx((0.05 + 1 / 6 + 0.25) / 4)
        assert found.random == pytest.approx(0.25)

    def test_an_uncertainty_that_orders_as_the_error_does_is_ideal(self):
        error = np.array([0.3, 0.1, 0.9, 0.2])
        found = risk_coverage(error**2, error)

        assert found.aurc == found.ideal
        assert found.gain == 1.0

    def test_a_constant_uncertainty_is_worth_nothing(self):
        found = risk_coverage([0.5] * 5, [0.3, 0.1, 0.9, 0.2, 0.4])

        assert found.aurc == pytest.approx(found.random)
        assert found.gain == pytest.approx(0)

    def test_the_wrong_way_round_is_worse_than_nothing(self):
        assert risk_coverage([3, 2, 1], [0.1, 0.2, 0.9]).gain < 0

    def test_the_random_area_is_the_mean_over_all_orders(self):
        error = [0.0, 0.2, 0.3, 0.9]
        areas = [risk_coverage(order, error).aurc for order in permutations(range(4))]

        assert np.mean(areas) == pytest.approx(risk_coverage(range(4), error).random)

    def test_ties_count_as_the_mean_over_their_orders(self):
        error = [0.0, 0.2, 0.3, 0.9]
        one, other = (risk_coverage(order, error).aurc for order in ([0, 1, 2, 3], [0, 2, 1, 3]))

        assert risk_coverage([0, 1, 1, 2], error).aurc == pytest.approx((one + other) / 2)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1)), min_size=1, max_size=20))
    def test_no_order_is_better_than_the_ideal_one_and_all_cases_have_the_mean_error(self, cases):
        score, error = np.array(cases).T
        found = risk_coverage(score, error)

        assert found.aurc >= found.ideal - 1e-9
        assert found.risk[-1] == pytest.approx(error.mean())

    def test_cases_without_a_number_are_dropped_and_counted(self):
        found = risk_coverage([0.1, math.nan, 0.3], [0.2, 0.9, math.nan])

        assert (found.aurc, found.num_dropped) == (0.2, 2)

    def test_without_a_case_there_is_no_curve(self):
        found = risk_coverage([math.nan], [0.5])

        assert found.coverage.size == found.risk.size == 0
        assert all(math.isnan(x) for x in (found.aurc, found.ideal, found.random, found.gain))

    def test_equal_errors_leave_nothing_to_gain(self):
        assert math.isnan(risk_coverage([1, 2, 3], [0.1, 0.1, 0.1]).gain)

    def test_a_table_in_place_of_a_column_is_an_error(self):
        with pytest.raises(ValueError, match="one number a case"):
            risk_coverage(np.zeros((2, 2)), np.zeros((2, 2)))
