import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from src.evaluation.comparison import compare, corrected, holm, signed_rank_p

NAN = math.nan


def scored(*values):
    return {f"P-{number}": value for number, value in enumerate(values)}


class TestCompare:
    def test_the_difference_is_the_mean_over_patients_of_the_first_less_the_second(self):
        (found,) = compare({"unet": scored(0.9, 0.8, 0.4), "other": scored(0.7, 0.8, 0.3)}, seed=0)

        assert (found.first, found.second) == ("unet", "other")
        assert found.difference.mean == pytest.approx((0.2 + 0 + 0.1) / 3)
        assert found.difference.n == 3

    def test_patients_are_resampled_in_pairs(self):
        # Scores spread over 0 to 1, and a difference of 0.1 for every patient: unpaired, the
        # interval would be wide.
        first = np.linspace(0, 0.9, 20)
        (found,) = compare({"a": scored(*(first + 0.1)), "b": scored(*first)}, seed=0)

        assert found.difference.low == pytest.approx(0.1)
        assert found.difference.high == pytest.approx(0.1)

    def test_patients_are_paired_by_name_and_not_by_order(self):
        first = {"P-1": 0.9, "P-2": 0.5}
        (found,) = compare({"a": first, "b": {"P-2": 0.4, "P-1": 0.8}}, seed=0)

        # 0.1 for both; by order they would be 0.5 and -0.3.
        assert (found.difference.low, found.difference.high) == pytest.approx((0.1, 0.1))

    def test_pairs_without_a_score_on_either_side_are_dropped_and_counted(self):
        (found,) = compare(
            {"a": scored(0.9, NAN, 0.5, NAN), "b": scored(0.7, 0.6, 0.4, NAN)}, seed=0
        )

        assert (found.difference.n, found.difference.num_dropped) == (2, 2)
        assert found.num_one_sided == 1
        assert found.difference.mean == pytest.approx(0.15)

    def test_models_that_score_alike_everywhere_have_p_1(self):
        (found,) = compare({"a": scored(*[0.5] * 8), "b": scored(*[0.5] * 8)}, seed=0)

        assert (found.p_value, found.p_holm) == (1.0, 1.0)
        assert found.difference.mean == found.difference.low == found.difference.high == 0.0

    @pytest.mark.parametrize(("pairs", "smallest"), [(5, 0.0625), (6, 0.03125)])
    def test_five_pairs_cannot_reach_significance_and_six_can(self, pairs, smallest):
        # All differences point the same way: p is 2 of the 2^n sign patterns.
        better = scored(*(0.5 + 0.01 * np.arange(1, pairs + 1)))
        (found,) = compare({"a": better, "b": scored(*[0.5] * pairs)}, seed=0)

        assert found.p_value == pytest.approx(smallest)
        assert found.smallest_p == smallest
        assert found.enough_pairs == (pairs >= 6)

    def test_dropped_pairs_do_not_count_towards_enough(self):
        (found,) = compare({"a": scored(*[0.5] * 5, NAN), "b": scored(*[0.4] * 6)}, seed=0)

        assert not found.enough_pairs

    def test_without_a_pair_everything_is_nan(self):
        (found,) = compare({"a": scored(NAN, 0.5), "b": scored(0.5, NAN)}, seed=0)

        assert math.isnan(found.difference.mean)
        assert math.isnan(found.p_value)
        assert math.isnan(found.p_holm)
        assert math.isnan(found.smallest_p)
        assert not found.enough_pairs
        assert found.num_one_sided == 2

    def test_three_models_have_three_pairs_corrected_together(self):
        generator = np.random.default_rng(0)
        base = generator.uniform(0.3, 0.7, 12)
        found = compare(
            {
                "a": scored(*base),
                "b": scored(*(base + generator.uniform(0.01, 0.1, 12))),
                "c": scored(*(base + generator.normal(0, 0.05, 12))),
            },
            seed=0,
        )

        assert [(one.first, one.second) for one in found] == [("a", "b"), ("a", "c"), ("b", "c")]
        np.testing.assert_allclose(
            [one.p_holm for one in found], holm([one.p_value for one in found])
        )
        assert found[0].p_holm == pytest.approx(3 * 2 / 2**12)

    def test_comparisons_of_several_classes_are_corrected_once_over_all(self):
        # All of six pairs and all of seven point one way: p of 2 / 2**6 and 2 / 2**7.
        (of_six,) = compare({"a": scored(*[0.5] * 6), "b": scored(*np.arange(6) / 20)}, seed=0)
        (of_seven,) = compare({"a": scored(*[0.5] * 7), "b": scored(*np.arange(7) / 20)}, seed=0)
        assert of_six.p_holm == of_six.p_value

        found = corrected([of_six, of_seven])

        # The smaller p times two, the larger times one, which is the same.
        assert [one.p_holm for one in found] == pytest.approx([1 / 32, 2 / 64])
        assert [one.p_value for one in found] == [of_six.p_value, of_seven.p_value]
        assert corrected(found) == found

    def test_with_a_reference_the_others_are_compared_with_it_alone(self):
        found = compare(
            {"a": scored(0.2, 0.3), "champion": scored(0.1, 0.1), "c": scored(0.0, 0.1)},
            seed=0,
            reference="champion",
        )

        assert [(one.first, one.second) for one in found] == [("a", "champion"), ("c", "champion")]
        assert [one.difference.mean for one in found] == pytest.approx([0.15, -0.05])

    def test_exchanging_the_models_turns_the_sign_and_keeps_p(self):
        generator = np.random.default_rng(4)
        one, other = (scored(*values) for values in generator.uniform(size=(2, 9)))
        (forth,), (back,) = (
            compare({"a": one, "b": other}, seed=0),
            compare({"b": other, "a": one}, seed=0),
        )

        assert back.difference.mean == pytest.approx(-forth.difference.mean)
        assert back.p_value == forth.p_value

    def test_a_single_model_is_an_error(self):
        with pytest.raises(ValueError, match=r"at least two models to compare, got \['a'\]"):
            compare({"a": scored(0.5)}, seed=0)

    def test_other_patients_are_an_error(self):
        with pytest.raises(ValueError, match=r"a and b that differ in \['P-1'\]"):
            compare({"a": scored(0.5, 0.6), "b": scored(0.5)}, seed=0)

    def test_an_unknown_reference_is_an_error(self):
        with pytest.raises(ValueError, match=r"one of \['a', 'b'\], got 'c'"):
            compare({"a": scored(0.5), "b": scored(0.5)}, seed=0, reference="c")

    def test_an_infinite_score_is_an_error(self):
        with pytest.raises(ValueError, match="got 1 infinite of 2 for b"):
            compare({"a": scored(0.5, math.inf * 0), "b": scored(0.5, math.inf)}, seed=0)


class TestSignedRank:
    def test_p_is_that_counted_by_hand(self):
        # Ranks 1, 2, 3, the first negative: rank sum 1 against 5. Of the 8 sign patterns two have a
        # smaller side of at most 1 on the left (0 and 1), two on the right: 4 / 8.
        assert signed_rank_p([-0.1, 0.2, 0.3]) == pytest.approx(0.5)

    def test_ties_are_counted_exactly_too(self):
        # Four equal differences, all positive: 2 of 16 patterns.
        assert signed_rank_p([0.1, 0.1, 0.1, 0.1]) == pytest.approx(2 / 16)

    def test_differences_of_zero_are_left_out(self):
        assert signed_rank_p([0.0, -0.1, 0.2, 0.0, 0.3]) == signed_rank_p([-0.1, 0.2, 0.3])

    def test_differences_that_are_zero_but_for_rounding_are_zero(self):
        assert signed_rank_p([0.3 - (0.1 + 0.2)] * 6) == 1.0

    def test_values_that_are_no_numbers_are_dropped(self):
        assert signed_rank_p([NAN, -0.1, 0.2, 0.3]) == signed_rank_p([-0.1, 0.2, 0.3])

    def test_nothing_has_no_p(self):
        assert math.isnan(signed_rank_p([NAN]))

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(-5, 5), min_size=1, max_size=10))
    def test_small_samples_agree_with_trying_every_sign(self, differences):
        values = np.array([d for d in differences if d])
        size = np.abs(values)
        ranks = np.array([(size < s).sum() + ((size == s).sum() + 1) / 2 for s in size])
        signs = (np.arange(2**values.size)[:, None] >> np.arange(values.size)) & 1
        smaller = np.minimum(signs @ ranks, (1 - signs) @ ranks)
        observed = min(ranks[values > 0].sum(), ranks[values < 0].sum())
        expected = (smaller <= observed + 1e-9).mean()

        assert signed_rank_p(differences) == pytest.approx(min(1.0, expected))


class TestHolm:
    def test_steps_are_those_computed_by_hand(self):
        # Sorted 0.01 * 4, 0.02 * 3, 0.03 * 2, 0.9 * 1: 0.04, 0.06, max(0.06, 0.06), 0.9.
        assert holm([0.03, 0.9, 0.01, 0.02]).tolist() == pytest.approx([0.06, 0.9, 0.04, 0.06])

    def test_a_larger_p_is_never_corrected_to_a_smaller_one(self):
        assert holm([0.02, 0.021]).tolist() == pytest.approx([0.04, 0.04])

    def test_nothing_exceeds_1(self):
        assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]

    def test_what_was_not_tested_does_not_count(self):
        corrected = holm([0.02, NAN])

        assert corrected[0] == 0.02
        assert math.isnan(corrected[1])

    def test_no_test_has_no_correction(self):
        assert holm([]).size == 0

    @settings(max_examples=50)
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
    def test_it_lies_between_benjamini_hochberg_and_bonferroni(self, p_values):
        corrected, p = holm(p_values), np.array(p_values)

        assert (corrected <= np.minimum(1, p * p.size) + 1e-12).all()
        assert (corrected >= false_discovery_control(p) - 1e-12).all()
