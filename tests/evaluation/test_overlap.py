import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from src.evaluation.overlap import (
    MEAN_FOREGROUND,
    QUANTITIES,
    Counts,
    count,
    mean_foreground,
    overlap,
    summarise,
)

CLASS_NAMES = ["background", "organ", "lesion"]

# Truth and prediction of 3 classes on 12 pixels. Shared: three 0, two 1, one 2.
TRUTH = np.array([[0, 0, 0, 0], [1, 1, 1, 2], [2, 2, 0, 1]], np.uint8)
PREDICTION = np.array([[0, 0, 1, 0], [1, 1, 2, 2], [1, 0, 1, 0]], np.uint8)


def counts_of(true_positives, false_positives, false_negatives):
    return Counts(
        np.array(true_positives, np.int64),
        np.array(false_positives, np.int64),
        np.array(false_negatives, np.int64),
    )


def assert_same_counts(one, other):
    np.testing.assert_array_equal(one.true_positives, other.true_positives)
    np.testing.assert_array_equal(one.false_positives, other.false_positives)
    np.testing.assert_array_equal(one.false_negatives, other.false_negatives)


def masks(num_classes=3):
    return hnp.arrays(np.uint8, (5, 7), elements=st.integers(0, num_classes - 1))


class TestCount:
    def test_counts_are_those_counted_by_hand(self):
        # Truth holds 5, 4, 3 pixels of the classes, the prediction 5, 5, 2, both 3, 2, 1.
        counts = count(TRUTH, PREDICTION, 3)

        assert counts.true_positives.tolist() == [3, 2, 1]
        assert counts.false_positives.tolist() == [2, 3, 1]
        assert counts.false_negatives.tolist() == [2, 2, 2]
        assert counts.true_positives.dtype == np.int64

    def test_a_class_that_no_pixel_has_is_counted_as_zero(self):
        assert count(TRUTH, PREDICTION, 5).false_positives.tolist() == [2, 3, 1, 0, 0]

    def test_arrays_without_a_pixel_count_nothing(self):
        empty = np.zeros((0, 4), np.uint8)

        assert_same_counts(count(empty, empty, 2), counts_of([0, 0], [0, 0], [0, 0]))

    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.uint64])
    def test_every_integer_type_counts_alike(self, dtype):
        assert_same_counts(count(TRUTH.astype(dtype), PREDICTION, 3), count(TRUTH, PREDICTION, 3))

    def test_a_hundred_and_fifty_classes_in_uint8_do_not_overflow(self):
        labels = np.arange(150, dtype=np.uint8)
        counts = count(labels, labels[::-1].copy(), 150)

        # Reversing an even number of labels moves every one of them.
        assert counts.true_positives.sum() == 0
        assert counts.false_positives.tolist() == [1] * 150

    def test_a_big_uint8_image_does_not_overflow(self):
        truth = np.ones((3000, 3000), np.uint8)

        assert count(truth, truth, 2).true_positives.tolist() == [0, 9_000_000]

    def test_counts_beyond_32_bits_add_and_score_exactly(self):
        half = counts_of([0, 2**40], [0, 0], [0, 2**41])
        total = sum([half, half])

        # 2 * 2^41 / (2 * 2^41 + 2^42) = 1 / 2
        assert total.true_positives[1] == 2**41
        assert overlap(total).dice[1] == 0.5

    @settings(max_examples=50)
    @given(masks(), masks(), masks(), masks())
    def test_pooled_counts_are_the_counts_of_the_arrays_side_by_side(self, t1, p1, t2, p2):
        pooled = sum([count(t1, p1, 3), count(t2, p2, 3)])

        assert_same_counts(pooled, count(np.stack([t1, t2]), np.stack([p1, p2]), 3))

    @settings(max_examples=50)
    @given(masks(), masks(), st.permutations([0, 1, 2]))
    def test_renaming_the_labels_permutes_the_counts(self, truth, prediction, order):
        order = np.array(order, np.uint8)
        plain, renamed = count(truth, prediction, 3), count(order[truth], order[prediction], 3)

        assert_same_counts(
            plain,
            Counts(
                renamed.true_positives[order],
                renamed.false_positives[order],
                renamed.false_negatives[order],
            ),
        )

    def test_different_shapes_are_an_error(self):
        with pytest.raises(ValueError, match=r"same shape, got \(3, 4\) and \(4, 3\)"):
            count(TRUTH, PREDICTION.T, 3)

    @pytest.mark.parametrize("label", [3, 255])
    def test_a_label_too_high_is_an_error_in_truth_and_prediction(self, label):
        strange = TRUTH.copy()
        strange[0, 0] = label

        with pytest.raises(ValueError, match=rf"truth must hold labels 0..2, got also \[{label}\]"):
            count(strange, PREDICTION, 3)
        with pytest.raises(ValueError, match="prediction must hold labels"):
            count(TRUTH, strange, 3)

    def test_a_negative_label_is_an_error(self):
        with pytest.raises(ValueError, match=r"got also \[-1\].*labels:"):
            count(TRUTH.astype(np.int16) - 1, PREDICTION, 3)

    @pytest.mark.parametrize("dtype", [np.float32, np.bool_])
    def test_an_array_that_is_not_of_integers_is_an_error(self, dtype):
        with pytest.raises(TypeError, match="integer class indices, got dtype"):
            count(TRUTH, PREDICTION.astype(dtype), 3)

    def test_a_single_class_is_an_error(self):
        with pytest.raises(ValueError, match=r"at least 2.*got 1"):
            count(TRUTH, PREDICTION, 1)

    def test_counts_of_different_numbers_of_classes_do_not_add(self):
        with pytest.raises(ValueError, match="counts of 3 and 4 classes"):
            count(TRUTH, PREDICTION, 3) + count(TRUTH, PREDICTION, 4)

    def test_counts_do_not_add_to_a_number(self):
        with pytest.raises(TypeError):
            7 + count(TRUTH, PREDICTION, 3)


class TestOverlap:
    def test_scores_are_those_computed_by_hand(self):
        scores = overlap(count(TRUTH, PREDICTION, 3))

        # Class 1: TP 2, FP 3, FN 2. Class 2: TP 1, FP 1, FN 2.
        assert scores.dice.tolist() == pytest.approx([6 / 10, 4 / 9, 2 / 5])
        assert scores.iou.tolist() == pytest.approx([3 / 7, 2 / 7, 1 / 4])
        assert scores.precision.tolist() == pytest.approx([3 / 5, 2 / 5, 1 / 2])
        assert scores.recall.tolist() == pytest.approx([3 / 5, 2 / 4, 1 / 3])
        assert not scores.false_positive.any()

    @pytest.mark.parametrize("quantity", QUANTITIES)
    def test_a_class_absent_from_both_is_not_scored(self, quantity):
        scores = overlap(counts_of([12, 0], [0, 0], [0, 0]))

        assert getattr(scores, quantity)[0] == 1.0
        assert math.isnan(getattr(scores, quantity)[1])
        assert scores.false_positive.tolist() == [False, False]

    @pytest.mark.parametrize("quantity", QUANTITIES)
    def test_a_class_absent_from_the_truth_alone_scores_0_and_is_flagged(self, quantity):
        scores = overlap(counts_of([8, 0], [0, 4], [4, 0]))

        assert getattr(scores, quantity)[1] == 0.0
        assert scores.false_positive.tolist() == [False, True]

    @pytest.mark.parametrize("quantity", QUANTITIES)
    def test_a_class_absent_from_the_prediction_alone_scores_0_and_is_not_flagged(self, quantity):
        scores = overlap(counts_of([8, 0], [4, 0], [0, 4]))

        assert getattr(scores, quantity)[1] == 0.0
        assert not scores.false_positive.any()

    @settings(max_examples=50)
    @given(masks(), masks())
    def test_dice_is_symmetric_and_precision_mirrors_recall(self, truth, prediction):
        scores = overlap(count(truth, prediction, 3))
        swapped = overlap(count(prediction, truth, 3))

        np.testing.assert_array_equal(scores.dice, swapped.dice)
        np.testing.assert_array_equal(scores.precision, swapped.recall)

    @settings(max_examples=50)
    @given(masks(), masks())
    def test_scores_lie_in_0_to_1_and_iou_is_dice_over_2_minus_dice(self, truth, prediction):
        scores = overlap(count(truth, prediction, 3))

        scored = ~np.isnan(scores.dice)
        assert ((scores.dice[scored] >= 0) & (scores.dice[scored] <= 1)).all()
        np.testing.assert_allclose(scores.iou, scores.dice / (2 - scores.dice), atol=1e-15)

    @settings(max_examples=50)
    @given(masks(), masks())
    def test_dice_is_the_harmonic_mean_of_precision_and_recall(self, truth, prediction):
        scores = overlap(count(truth, prediction, 3))
        hit = np.nan_to_num(scores.dice) > 0
        assume(hit.any())

        precision, recall = scores.precision[hit], scores.recall[hit]
        np.testing.assert_allclose(scores.dice[hit], 2 / (1 / precision + 1 / recall))

    @settings(max_examples=20)
    @given(masks())
    def test_a_perfect_prediction_scores_1_wherever_it_is_scored(self, truth):
        scores = overlap(count(truth, truth, 3))

        present = np.isin([0, 1, 2], truth)
        np.testing.assert_array_equal(scores.dice, np.where(present, 1.0, np.nan))

    @pytest.mark.parametrize("seed", range(5))
    def test_scores_agree_with_scikit_learn(self, seed):
        generator = np.random.default_rng(seed)
        truth, prediction = generator.integers(0, 4, (2, 40, 30))
        scores = overlap(count(truth, prediction, 4))

        for quantity, reference in (
            ("dice", f1_score),
            ("iou", jaccard_score),
            ("precision", precision_score),
            ("recall", recall_score),
        ):
            expected = reference(truth.ravel(), prediction.ravel(), average=None)
            np.testing.assert_allclose(getattr(scores, quantity), expected)


class TestMeanForeground:
    def test_background_is_left_out(self):
        assert mean_foreground(np.array([1.0, 0.2, 0.6])) == pytest.approx(0.4)

    def test_unscored_classes_are_left_out(self):
        assert mean_foreground(np.array([1.0, math.nan, 0.6])) == 0.6

    def test_nothing_scored_gives_nan(self):
        assert math.isnan(mean_foreground(np.array([1.0, math.nan, math.nan])))


class TestSummarise:
    # Patient A: two slices; organ Dice 1 in the first (10 of 10), 0 in the second (missed 10).
    # Patient B: one slice; organ Dice 1 (40 of 40) and a lesion predicted where there is none.
    # No slice holds lesion in truth, so patient A is not scored for lesion.
    SLICES = (
        counts_of([90, 10, 0], [0, 0, 0], [0, 0, 0]),
        counts_of([90, 0, 0], [10, 0, 0], [0, 10, 0]),
        counts_of([55, 40, 0], [0, 0, 5], [5, 0, 0]),
    )
    PATIENTS = {"A": sum(SLICES[:2]), "B": SLICES[2]}  # noqa: RUF012 - read only

    def summary(self):
        return summarise(self.PATIENTS, self.SLICES, class_names=CLASS_NAMES, seed=0)

    def test_the_headline_is_the_mean_over_patients(self):
        # A: 2 * 10 / (2 * 10 + 10) = 2 / 3; B: 1. Mean 5 / 6.
        organ = self.summary().scores["dice"]["organ"]

        assert organ.patients.mean == pytest.approx(5 / 6)
        assert organ.patients.low == pytest.approx(2 / 3)
        assert organ.patients.high == 1.0

    def test_slices_and_pixels_are_averaged_beside_it(self):
        organ = self.summary().scores["dice"]["organ"]

        assert organ.slice_mean == pytest.approx(2 / 3)  # (1 + 0 + 1) / 3
        assert organ.pooled == pytest.approx(10 / 11)  # 2 * 50 / (2 * 50 + 10)

    def test_the_foreground_is_averaged_within_a_patient_first(self):
        # A: organ alone, 2 / 3. B: (1 + 0) / 2. Mean (2 / 3 + 1 / 2) / 2 = 7 / 12.
        foreground = self.summary().scores["dice"][MEAN_FOREGROUND]

        assert foreground.patients.mean == pytest.approx(7 / 12)
        assert foreground.slice_mean == pytest.approx((1 + 0 + 1 / 2) / 3)
        assert foreground.pooled == pytest.approx((10 / 11 + 0) / 2)

    def test_unscored_and_false_positives_are_counted_for_patients_and_slices(self):
        summary = self.summary()
        patients, slices = summary.patients["lesion"], summary.slices["lesion"]

        assert (patients.num_scored, patients.num_unscored, patients.num_false_positive) == (
            1,
            1,
            1,
        )
        assert (slices.num_scored, slices.num_unscored, slices.num_false_positive) == (1, 2, 1)
        assert summary.patients["organ"].num_false_positive == 0
        assert summary.patients[MEAN_FOREGROUND].num_false_positive == 1

    def test_the_dictionary_is_json_grouped_by_quantity_and_class(self):
        numbers = json.loads(json.dumps(self.summary().to_dict(), allow_nan=False))

        assert numbers["dice"]["organ"] == pytest.approx(5 / 6)
        assert numbers["dice_low"]["organ"] == pytest.approx(2 / 3)
        assert numbers["iou_pooled"]["organ"] == pytest.approx(50 / 60)
        assert numbers["num_unscored"]["lesion"] == 1
        assert numbers["num_false_positive_cases"]["lesion"] == 1
        assert {name for group in numbers.values() for name in group} == {
            *CLASS_NAMES,
            MEAN_FOREGROUND,
        }

    def test_a_number_that_does_not_exist_becomes_null(self):
        # One patient alone has a score for lesion: a mean, and no interval.
        numbers = self.summary().to_dict()

        assert numbers["dice"]["lesion"] == 0.0
        assert numbers["dice_low"]["lesion"] is None

    def test_a_class_that_nobody_has_is_nan_and_all_unscored(self):
        only = counts_of([10, 5, 0], [0, 0, 0], [0, 0, 0])
        summary = summarise([only], [only], class_names=CLASS_NAMES, seed=0)

        assert math.isnan(summary.scores["dice"]["lesion"].patients.mean)
        assert math.isnan(summary.scores["dice"]["lesion"].slice_mean)
        assert math.isnan(summary.scores["dice"]["lesion"].pooled)
        assert summary.patients["lesion"].num_unscored == 1
        assert summary.scores["dice"][MEAN_FOREGROUND].patients.mean == 1.0

    def test_the_same_seed_gives_the_same_summary(self):
        assert self.summary().to_dict() == self.summary().to_dict()

    def test_a_forgotten_slice_is_an_error(self):
        with pytest.raises(
            ValueError, match=r"same pixels, got true_positives \[235, 50, 0\].*\[180, 10, 0\]"
        ):
            summarise(self.PATIENTS, self.SLICES[:2], class_names=CLASS_NAMES, seed=0)

    def test_no_patients_is_an_error(self):
        with pytest.raises(ValueError, match="got 0 patients and 3 slices"):
            summarise({}, self.SLICES, class_names=CLASS_NAMES, seed=0)

    def test_too_few_class_names_is_an_error(self):
        with pytest.raises(ValueError, match=r"the 3 classes counted, got \['background'\]"):
            summarise(self.PATIENTS, self.SLICES, class_names=["background"], seed=0)

    def test_two_classes_of_one_name_is_an_error(self):
        with pytest.raises(ValueError, match="must differ from each other"):
            summarise(self.PATIENTS, self.SLICES, class_names=["a", "b", "b"], seed=0)
