import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from src.evaluation.calibration import (
    NUM_BINS,
    boundary_ring,
    calibration,
    count_calibration,
    reliability,
)


def binary(foreground):
    """Probabilities (N, 2) of a foreground class."""
    foreground = np.asarray(foreground, np.float64)
    return np.stack([1 - foreground, foreground], axis=-1)


def read(probabilities, truth):
    return calibration(count_calibration(probabilities, truth))


def softmax_slice(seed, shape=(40, 50), num_classes=3, sharpness=3.0):
    """A slice as networks make them: mostly sure, mostly right."""
    generator = np.random.default_rng(seed)
    logits = sharpness * generator.normal(size=(*shape, num_classes))
    logits[..., 0] += sharpness
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    noisy = logits + generator.gumbel(size=logits.shape) * 1.5
    return probabilities, noisy.argmax(axis=-1).astype(np.uint8)


def equal_width_by_hand(confidence, correct):
    """ECE with explicit bins (l, u], zero included."""
    total = 0.0
    for k in range(NUM_BINS):
        low, high = k / NUM_BINS, (k + 1) / NUM_BINS
        inside = (confidence > low) & (confidence <= high)
        if k == 0:
            inside |= confidence == 0
        if inside.any():
            gap = correct[inside].mean() - confidence[inside].mean()
            total += inside.mean() * abs(gap)
    return total


def equal_mass_by_hand(confidence, correct):
    """ACE by sorting; needs a number of pixels that the bins divide."""
    order = np.argsort(-confidence, kind="stable")
    gaps = [
        abs(correct[part].mean() - confidence[part].mean()) for part in np.split(order, NUM_BINS)
    ]
    return float(np.mean(gaps))


class TestNumbers:
    def test_everything_is_that_computed_by_hand(self):
        # Foreground 0.9, 0.9, 0.7, 0.2; truth 1, 0, 1, 0; most probable 1, 1, 1, 0.
        found = read(binary([0.9, 0.9, 0.7, 0.2]), np.array([1, 0, 1, 0]))

        # Bins of 1/15: 0.9 and 0.9 in (13/15, 14/15], one of two right; 0.7 in (10/15, 11/15] and
        # 0.8 in (11/15, 12/15], right. (2 |0.5 - 0.9| + |1 - 0.7| + |1 - 0.8|) / 4 = 1.3 / 4.
        assert found.ece == pytest.approx(1.3 / 4)
        # Squares of both classes: 2 (0.1^2 + 0.9^2 + 0.3^2 + 0.2^2) / 4 = 2 * 0.95 / 4.
        assert found.brier == pytest.approx(0.475)
        # Of the true class 0.9, 0.1, 0.7, 0.8.
        assert found.nll == pytest.approx(-math.log(0.9 * 0.1 * 0.7 * 0.8) / 4)
        # Probability of foreground: 0.9 twice, one true; 0.7, true; 0.2, not.
        # (2 |0.5 - 0.9| + 0.3 + 0.2) / 4.
        assert found.class_ece == pytest.approx((1.3 / 4,))
        assert found.num_pixels == 4

    def test_bins_of_equal_mass_are_shared_out_by_hand(self):
        # 15 pixels, a bin each: confidence 0.51, 0.53, ..., 0.79; every third is wrong.
        confidence = 0.51 + 0.02 * np.arange(15)
        truth = np.where(np.arange(15) % 3 == 0, 0, 1)
        expected = np.mean([abs(right - c) for right, c in zip(truth, confidence, strict=True)])

        assert read(binary(confidence), truth).ace == pytest.approx(expected, rel=1e-6)

    def test_pixels_of_one_confidence_are_shared_out_evenly_and_not_as_they_stand(self):
        # Confidence 0.8 throughout, 24 of 30 right: calibrated, whatever the order of the pixels.
        truth = np.array([1] * 24 + [0] * 6)

        assert read(binary(np.full(30, 0.8)), truth).ace == pytest.approx(0, abs=1e-7)
        # Sorted, the last three bins of two pixels would hold the wrong ones alone.
        assert equal_mass_by_hand(np.full(30, 0.8), truth) > 0.3

    def test_a_sure_and_right_network_has_no_error(self):
        found = read(binary([1.0, 0.0, 1.0]), np.array([1, 0, 1]))

        assert (found.ece, found.ace, found.brier, found.nll) == (0, 0, 0, 0)
        assert found.class_ece == (0,)

    def test_a_sure_and_wrong_network_has_the_largest_error_and_a_finite_nll(self):
        found = read(binary([1.0, 0.0]), np.array([0, 1]))

        assert (found.ece, found.ace, found.brier) == (1, 1, 2)
        # The smallest float32 is 2^-126.
        assert found.nll == pytest.approx(126 * math.log(2))

    def test_a_guess_among_four_that_is_right_once_in_four_is_calibrated(self):
        found = read(np.full((8, 4), 0.25), np.arange(8) % 4)

        assert found.ece == pytest.approx(0)
        assert found.brier == pytest.approx(0.75**2 + 3 * 0.25**2)
        assert found.nll == pytest.approx(math.log(4))
        assert found.class_ece == pytest.approx((0, 0, 0))

    def test_without_a_pixel_everything_is_nan(self):
        probabilities, truth = softmax_slice(0)
        counts = count_calibration(probabilities, truth, np.zeros(truth.shape, bool))
        found = calibration(counts)

        assert found.num_pixels == 0
        assert all(math.isnan(x) for x in (found.ece, found.ace, found.brier, found.nll))
        assert [math.isnan(x) for x in found.class_ece] == [True, True]

    @pytest.mark.parametrize("seed", range(5))
    def test_numbers_agree_with_plain_loops_over_all_pixels(self, seed):
        probabilities, truth = softmax_slice(seed, shape=(75, 80), num_classes=4)
        found = read(probabilities, truth)
        flat, labels = probabilities.reshape(-1, 4).astype(np.float64), truth.ravel()
        confidence, correct = flat.max(axis=1), flat.argmax(axis=1) == labels

        assert found.ece == pytest.approx(equal_width_by_hand(confidence, correct), abs=1e-9)
        assert found.ace == pytest.approx(equal_mass_by_hand(confidence, correct), abs=3e-4)
        assert found.brier == pytest.approx(((flat - np.eye(4)[labels]) ** 2).sum(axis=1).mean())
        assert found.nll == pytest.approx(-np.log(flat[np.arange(6000), labels]).mean())
        for index, error in enumerate(found.class_ece, start=1):
            expected = equal_width_by_hand(flat[:, index], labels == index)
            assert error == pytest.approx(expected, abs=1e-9)

    def test_pixels_crowded_within_a_millionth_of_1_still_fill_fifteen_bins(self):
        # Doubts from 1e-6 to 1e-3, wrong ten times as often as they say. In bins of one width,
        # ten thousand of them, a tenth of the pixels would decide.
        generator = np.random.default_rng(3)
        doubt = np.exp(generator.uniform(math.log(1e-6), math.log(1e-3), 150_000))
        confidence = (1 - doubt).astype(np.float32).astype(np.float64)
        correct = generator.uniform(size=doubt.size) >= 10 * doubt
        found = read(binary(confidence), correct.astype(int))

        assert found.ace == pytest.approx(equal_mass_by_hand(confidence, correct), rel=1e-3)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 1000), st.permutations([0, 1, 2]))
    def test_renaming_the_classes_changes_nothing_of_the_confidence(self, seed, order):
        probabilities, truth = softmax_slice(seed, shape=(10, 12))
        found = read(probabilities, truth)
        renamed = read(probabilities[..., order], np.argsort(order)[truth])

        assert renamed.ece == pytest.approx(found.ece, abs=1e-9)
        assert renamed.ace == pytest.approx(found.ace, abs=1e-9)
        assert renamed.brier == pytest.approx(found.brier)
        assert renamed.nll == pytest.approx(found.nll)

    def test_a_network_that_means_what_it_says_has_next_to_no_error(self):
        # 200,000 pixels whose class is drawn from their probabilities. What is left is chance: a
        # bin of 13,000 pixels has a standard error of at most 0.5 / sqrt(13000) = 0.004.
        generator = np.random.default_rng(1)
        foreground = generator.uniform(size=200_000)
        found = read(binary(foreground), (generator.uniform(size=200_000) < foreground).astype(int))

        assert found.ece < 0.005
        assert found.ace < 0.005
        # Of a calibrated p: mean of 2 p (1 - p) = 1/3; of -p log p - (1-p) log(1-p) = 1/2.
        assert found.brier == pytest.approx(1 / 3, abs=0.005)
        assert found.nll == pytest.approx(1 / 2, abs=0.005)


class TestCounts:
    def test_counts_of_slices_add_up_to_those_of_all_their_pixels(self):
        slices = [softmax_slice(seed) for seed in range(4)]
        added = calibration(sum(count_calibration(*pair) for pair in slices))
        at_once = read(*(np.stack(part) for part in zip(*slices, strict=True)))

        for name in ("ece", "ace", "brier", "nll", "class_ece", "num_pixels"):
            assert getattr(added, name) == pytest.approx(getattr(at_once, name), rel=1e-9)

    def test_a_region_counts_its_pixels_alone(self):
        probabilities, truth = softmax_slice(2)
        region = np.zeros(truth.shape, bool)
        region[5:9, 3:30] = True
        inside = calibration(count_calibration(probabilities, truth, region))

        assert inside == read(probabilities[5:9, 3:30], truth[5:9, 3:30])

    def test_counts_take_the_same_memory_however_many_pixels_they_hold(self):
        small = count_calibration(*softmax_slice(0, shape=(4, 4)))
        large = count_calibration(*softmax_slice(0, shape=(300, 300)))

        assert small.cells.nbytes + small.classes.nbytes < 400_000
        assert small.cells.shape == large.cells.shape
        assert large.num_pixels == 90_000

    def test_a_volume_is_counted_a_block_at_a_time(self):
        probabilities, truth = softmax_slice(0, shape=(2000, 1000), num_classes=2)
        tracemalloc.start()
        count_calibration(probabilities, truth)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        # Two million pixels in one piece would take 16 MB for their classes alone.
        assert peak_bytes < 16e6

    def test_counts_of_different_numbers_of_classes_do_not_add(self):
        two = count_calibration(binary([0.5]), np.array([0]))
        three = count_calibration(np.full((1, 3), 1 / 3), np.array([0]))

        with pytest.raises(ValueError, match="counts of 2 and 3 classes"):
            two + three

    def test_counts_do_not_add_to_a_number(self):
        with pytest.raises(TypeError):
            7 + count_calibration(binary([0.5]), np.array([0]))

    def test_logits_are_refused(self):
        with pytest.raises(ValueError, match="Pass the softmax"):
            count_calibration(np.array([[3.0, -2.0]]), np.array([0]))


class TestReliability:
    def test_edges_belong_to_the_bin_below_and_zero_to_the_first(self):
        # Foreground 0, 1/15, 0.2 = 3/15, a little more than 0.2, 0.6 = 9/15 and 1.
        table = reliability(
            count_calibration(
                binary([0.0, 1 / 15, 0.2, 0.2001, 0.6, 1.0]), np.array([0, 0, 1, 0, 1, 1])
            ),
            class_index=1,
        )

        assert table.count.tolist() == [2, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]
        assert table.confidence[[0, 2, 14]] == pytest.approx([1 / 30, 0.2, 1.0])
        assert table.accuracy[[0, 2, 3, 14]].tolist() == [0, 1, 0, 1]
        assert math.isnan(table.confidence[1])
        assert math.isnan(table.accuracy[1])
        assert (table.lower[3], table.upper[3]) == pytest.approx((0.2, 4 / 15))

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(500, 1000), min_size=1, max_size=40))
    def test_every_confidence_lies_in_the_bin_that_its_thousandths_say(self, thousandths):
        counts = count_calibration(
            binary(np.array(thousandths) / 1000), np.ones(len(thousandths), int)
        )
        # Bin k holds 1000 k < 15 t <= 1000 (k + 1), in integers.
        expected = np.bincount([(15 * t - 1) // 1000 for t in thousandths], minlength=15)

        np.testing.assert_array_equal(reliability(counts).count, expected)

    def test_means_over_bins_are_the_means_over_all(self):
        probabilities, truth = softmax_slice(4)
        table = reliability(count_calibration(probabilities, truth))
        correct = probabilities.argmax(axis=-1) == truth

        assert np.nansum(table.count * table.accuracy) == pytest.approx(correct.sum())
        total = probabilities.max(axis=-1).sum(dtype=np.float64)
        assert np.nansum(table.count * table.confidence) == pytest.approx(total)

    @pytest.mark.parametrize("index", [0, 3])
    def test_a_class_that_is_no_foreground_class_is_an_error(self, index):
        counts = count_calibration(np.full((1, 3), 1 / 3), np.array([0]))

        with pytest.raises(ValueError, match=rf"1..2 or None, got {index}"):
            reliability(counts, index)


class TestBoundaryRing:
    def test_a_ring_reaches_as_far_as_it_is_wide_on_both_sides(self):
        truth = np.zeros((1, 20), np.uint8)
        truth[0, 10:] = 1
        ring = boundary_ring(truth, truth, (1.0, 1.0), 3.0)

        # Pixels 9 and 10 are the boundary; three more on either side.
        assert np.flatnonzero(ring[0]).tolist() == list(range(6, 14))

    def test_distances_are_in_millimetres_of_each_axis(self):
        truth = np.zeros((41, 41), np.uint8)
        truth[20, 20] = 1
        ring = boundary_ring(truth, truth, (2.0, 0.5), 5.0)

        # The neighbours of the pixel are boundary too: rows 19 to 21 in column 20, and 2 more of
        # 2 mm; columns 19 to 21 in row 20, and 10 more of 0.5 mm.
        assert np.flatnonzero(ring[:, 20]).tolist() == list(range(17, 24))
        assert np.flatnonzero(ring[20]).tolist() == list(range(9, 32))

    def test_the_boundaries_of_truth_and_prediction_both_have_a_ring(self):
        truth, prediction = np.zeros((2, 1, 30), np.uint8)
        truth[0, 15:] = 1
        prediction[0, 5:] = 1
        ring = boundary_ring(truth, prediction, (1.0, 1.0), 1.0)

        assert np.flatnonzero(ring[0]).tolist() == [3, 4, 5, 6, 13, 14, 15, 16]

    def test_a_boundary_between_two_foreground_classes_has_a_ring(self):
        truth = np.repeat([[1, 2]], 10, axis=1).astype(np.uint8)
        ring = boundary_ring(truth, truth, (1.0, 1.0), 0.0)

        assert np.flatnonzero(ring[0]).tolist() == [9, 10]

    def test_the_edge_of_the_picture_is_no_boundary(self):
        everything = np.ones((8, 8), np.uint8)

        assert not boundary_ring(everything, everything, (1.0, 1.0)).any()

    def test_without_foreground_there_is_no_ring(self):
        nothing = np.zeros((8, 8), np.uint8)

        assert not boundary_ring(nothing, nothing, (1.0, 1.0)).any()

    def test_five_millimetres_are_fifty_pixels_of_a_tenth(self):
        truth = np.zeros((1, 200), np.uint8)
        truth[0, 100:] = 1

        assert boundary_ring(truth, truth, (0.1, 0.1), 5.0).sum() == 2 * 51

    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(0, 10_000),
        st.floats(0.3, 3),
        st.floats(0.3, 3),
        st.floats(0, 6),
    )
    def test_a_ring_is_what_measuring_every_distance_gives(self, seed, y_mm, x_mm, width_mm):
        generator = np.random.default_rng(seed)
        truth, prediction = (generator.uniform(size=(2, 12, 15)) < 0.04).astype(np.uint8)
        boundary = []
        for labels in (truth, prediction):
            for y, x in np.ndindex(labels.shape):
                for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                    inside = 0 <= y + dy < 12 and 0 <= x + dx < 15
                    if inside and labels[y, x] != labels[y + dy, x + dx]:
                        boundary.append((y, x))
        places = np.argwhere(np.ones(truth.shape)) * (y_mm, x_mm)
        expected = np.zeros(truth.size, bool)
        if boundary:
            nearest = cdist(places, np.array(boundary) * (y_mm, x_mm)).min(axis=1)
            expected = nearest <= width_mm * (1 + 1e-9)

        found = boundary_ring(truth, prediction, (y_mm, x_mm), width_mm)
        np.testing.assert_array_equal(found.ravel(), expected)

    def test_different_shapes_are_an_error(self):
        with pytest.raises(ValueError, match=r"same shape, got \(3, 4\) and \(4, 3\)"):
            boundary_ring(np.zeros((3, 4), int), np.zeros((4, 3), int), (1.0, 1.0))

    def test_a_volume_is_an_error(self):
        with pytest.raises(ValueError, match=r"slices \(H, W\).*one slice at a time"):
            boundary_ring(np.zeros((2, 3, 4), int), np.zeros((2, 3, 4), int), (1.0, 1.0))

    @pytest.mark.parametrize("spacing", [(0.0, 1.0), (1.0, -1.0), (math.nan, 1.0), (1.0, 1.0, 1.0)])
    def test_a_spacing_that_is_not_two_positive_numbers_is_an_error(self, spacing):
        with pytest.raises(ValueError, match="two positive numbers"):
            boundary_ring(np.zeros((3, 4), int), np.zeros((3, 4), int), spacing)

    @pytest.mark.parametrize("width", [-1.0, math.nan, math.inf])
    def test_a_width_that_is_no_length_is_an_error(self, width):
        with pytest.raises(ValueError, match="width_mm must be 0 or more"):
            boundary_ring(np.zeros((3, 4), int), np.zeros((3, 4), int), (1.0, 1.0), width)
