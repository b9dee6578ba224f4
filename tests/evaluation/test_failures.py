import math

import numpy as np
import pytest

from src.evaluation.failures import (
    ABSENT,
    AREA_RATIO,
    AT_BORDER,
    FRAGMENTED,
    HALLUCINATED,
    MISSED,
    OVER_SEGMENTED,
    TINY,
    TINY_MM2,
    UNDER_SEGMENTED,
    dice_by_size,
    dice_by_source,
    failure_tags,
)

# Squares away from the edge; pixels of 2 mm, so that 20 x 20 pixels are 1600 mm2.
SPACING = (2.0, 2.0)


def square(top, left, height, width=None, label=1):
    mask = np.zeros((60, 60), np.uint8)
    mask[top : top + height, left : left + (width or height)] = label
    return mask


def tags(truth, prediction, **limits):
    return failure_tags(truth, prediction, 2, SPACING, **limits)[1]


NOTHING = square(0, 0, 0)
LESION = square(20, 20, 20)


class TestTags:
    def test_a_prediction_that_is_right_has_none(self):
        assert tags(LESION, LESION) == ()

    def test_a_class_in_neither_has_none(self):
        assert tags(NOTHING, NOTHING) == ()

    def test_a_lesion_without_a_prediction_is_missed(self):
        assert tags(LESION, NOTHING) == (MISSED,)

    def test_a_lesion_whose_prediction_lies_elsewhere_is_missed(self):
        assert tags(LESION, square(45, 45, 10)) == (MISSED,)

    def test_a_prediction_without_a_lesion_is_hallucinated(self):
        assert tags(NOTHING, LESION) == (HALLUCINATED,)

    @pytest.mark.parametrize(
        ("rows", "expected"),
        [(13, (UNDER_SEGMENTED,)), (14, ()), (30, ()), (31, (OVER_SEGMENTED,))],
    )
    def test_an_area_more_than_one_and_a_half_times_off_is_named(self, rows, expected):
        # 20 rows in the truth; 20 / 1.5 = 13.3 and 20 * 1.5 = 30.
        assert tags(LESION, square(20, 20, rows, 20)) == expected

    def test_such_an_area_alone_limits_dice_to_four_fifths(self):
        assert 2 / (1 + AREA_RATIO) == 0.8

    def test_more_parts_than_the_truth_has_are_fragments(self):
        assert tags(LESION, LESION | square(5, 5, 1)) == (FRAGMENTED,)

    def test_as_many_parts_as_the_truth_has_are_not(self):
        assert tags(LESION | square(5, 5, 4), LESION | square(5, 5, 2)) == ()

    def test_parts_that_touch_at_a_corner_are_one(self):
        assert tags(LESION, LESION | square(40, 40, 1)) == ()
        assert tags(LESION, LESION | square(41, 41, 1)) == (FRAGMENTED,)

    def test_an_area_below_that_of_a_disc_of_ten_millimetres_is_tiny(self):
        # 78.5 mm2 are 19.6 pixels of 4 mm2.
        assert pytest.approx(78.54, abs=0.01) == TINY_MM2
        assert tags(square(20, 20, 1, 19), square(20, 20, 1, 19)) == (TINY,)
        assert tags(square(20, 20, 4, 5), square(20, 20, 4, 5)) == ()

    def test_a_tiny_hallucination_is_tiny_and_a_large_one_of_a_tiny_lesion_is_too(self):
        assert tags(NOTHING, square(20, 20, 2)) == (HALLUCINATED, TINY)
        assert tags(square(20, 20, 2), LESION) == (OVER_SEGMENTED, TINY)

    @pytest.mark.parametrize("place", [(0, 20), (40, 20), (20, 0), (20, 40)])
    def test_a_lesion_or_a_prediction_at_any_edge_is_at_the_border(self, place):
        inside = LESION | square(*place, 20)
        assert tags(inside, inside) == (AT_BORDER,)
        assert AT_BORDER in tags(LESION, inside)
        assert AT_BORDER in tags(inside, LESION)

    def test_classes_are_tagged_one_by_one(self):
        found = failure_tags(LESION, square(20, 20, 20, label=2), 4, SPACING)

        assert found == {1: (MISSED,), 2: (HALLUCINATED,), 3: ()}

    def test_limits_can_be_others(self):
        assert tags(LESION, LESION, tiny_mm2=1601.0) == (TINY,)
        assert tags(LESION, square(20, 20, 19, 20), area_ratio=1.05) == (UNDER_SEGMENTED,)

    def test_a_volume_is_an_error(self):
        with pytest.raises(ValueError, match=r"slice \(H, W\), got shape \(1, 60, 60\)"):
            tags(LESION[None], LESION[None])

    def test_different_shapes_are_an_error(self):
        with pytest.raises(ValueError, match="same shape"):
            tags(LESION, LESION[:30])

    @pytest.mark.parametrize("limits", [{"area_ratio": 1.0}, {"tiny_mm2": -1.0}])
    def test_limits_without_sense_are_an_error(self, limits):
        with pytest.raises(ValueError, match="area_ratio above 1, got"):
            tags(LESION, LESION, **limits)

    def test_a_spacing_of_zero_is_an_error(self):
        with pytest.raises(ValueError, match="spacing_mm must be positive"):
            failure_tags(LESION, LESION, 2, (0.0, 1.0))


class TestDiceBySize:
    def test_bins_hold_equally_many_cases_from_small_to_large(self):
        areas = [80, 10, 60, 30, 20, 70, 40, 50]
        dice = [0.8, 0.1, 0.6, 0.3, 0.2, 0.7, 0.4, 0.5]
        found = dice_by_size(areas, dice, list("abcdefgh"), seed=0)

        assert [one.name for one in found] == [
            "10 to 20 mm²",
            "20 to 40 mm²",
            "40 to 60 mm²",
            "60 to 80 mm²",
        ]
        assert [one.num_cases for one in found] == [2, 2, 2, 2]
        assert [one.dice.mean for one in found] == pytest.approx([0.15, 0.35, 0.55, 0.75])
        assert (found[1].low_mm2, found[1].high_mm2) == (20, 40)

    def test_cases_of_one_patient_are_averaged_first(self):
        # Patient a has Dice 0.2 and 0.4, patient b 0.9: (0.3 + 0.9) / 2.
        (found,) = dice_by_size([1, 2, 3], [0.2, 0.4, 0.9], ["a", "a", "b"], seed=0, num_bins=1)

        assert found.num_cases == 3
        assert found.dice.n == 2
        assert found.dice.mean == pytest.approx(0.6)

    def test_cases_without_the_class_in_the_truth_are_a_stratum_of_their_own(self):
        # Of the two, one is a false positive and the other was rightly left empty: not scored.
        found = dice_by_size([0, 0, 5, 9], [0.0, math.nan, 0.5, 0.7], list("abcd"), seed=0,
                             num_bins=1)  # fmt: skip

        assert [(one.name, one.num_cases) for one in found] == [(ABSENT, 1), ("5 to 9 mm²", 2)]
        assert found[0].dice.mean == 0.0
        assert (found[0].low_mm2, found[0].high_mm2) == (0, 0)

    def test_cases_of_one_area_are_never_torn_apart(self):
        found = dice_by_size([5, 5, 5, 5, 9, 9], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], list("abcdef"),
                             seed=0, num_bins=3)  # fmt: skip

        assert [(one.name, one.num_cases) for one in found] == [
            ("5 to 5 mm²", 4),
            ("5 to 9 mm²", 2),
        ]

    def test_every_scored_case_is_in_one_stratum(self):
        generator = np.random.default_rng(0)
        areas = np.round(generator.exponential(20, 200)) * generator.integers(0, 2, 200)
        dice = np.where(generator.uniform(size=200) < 0.1, np.nan, generator.uniform(size=200))
        patients = [f"P-{number % 17}" for number in range(200)]
        found = dice_by_size(areas, dice, patients, seed=0, num_bins=5, resamples=10)

        assert sum(one.num_cases for one in found) == np.count_nonzero(~np.isnan(dice))

    def test_where_nothing_is_scored_there_is_no_stratum(self):
        assert dice_by_size([1, 0], [math.nan, math.nan], ["a", "b"], seed=0) == []

    def test_different_lengths_are_an_error(self):
        with pytest.raises(ValueError, match=r"got shapes \(2,\), \(1,\) and \(2,\)"):
            dice_by_size([1, 2], [0.1, 0.2], ["a"], seed=0)

    @pytest.mark.parametrize("area", [-1.0, math.nan, math.inf])
    def test_an_area_that_is_none_is_an_error(self, area):
        with pytest.raises(ValueError, match="numbers from 0 up"):
            dice_by_size([area], [0.1], ["a"], seed=0)

    def test_no_bins_are_an_error(self):
        with pytest.raises(ValueError, match="at least 1, got 0"):
            dice_by_size([1.0], [0.1], ["a"], seed=0, num_bins=0)


class TestDiceBySource:
    def test_each_source_has_the_mean_over_its_patients(self):
        found = dice_by_source(
            ["west", "east", "west", "west"], [0.2, 0.7, 0.4, 0.9], ["a", "b", "a", "c"], seed=0
        )

        assert [one.name for one in found] == ["east", "west"]
        assert [one.dice.mean for one in found] == pytest.approx([0.7, (0.3 + 0.9) / 2])
        assert [one.num_cases for one in found] == [1, 3]
        assert math.isnan(found[0].low_mm2)

    def test_a_source_without_a_scored_case_is_left_out(self):
        found = dice_by_source(["west", "east"], [0.2, math.nan], ["a", "b"], seed=0)

        assert [one.name for one in found] == ["west"]

    def test_different_lengths_are_an_error(self):
        with pytest.raises(ValueError, match="one Dice, one patient and one area or source"):
            dice_by_source(["west"], [0.1, 0.2], ["a", "b"], seed=0)
