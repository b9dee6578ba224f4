import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.evaluation.calibration import calibration, count_calibration
from src.evaluation.temperature import LIMITS, PixelSample, apply_temperature, fit_temperature


def drawn(temperature, number=50_000, seed=0):
    """Log probabilities of a network that is `temperature` times too sure, and the truth."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(number, 3)) * 2
    truth = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)  # a draw from softmax
    powers = np.exp(logits * temperature)
    return np.log(powers / powers.sum(axis=1, keepdims=True)), truth


class TestFit:
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
    def test_a_network_that_is_too_sure_or_not_sure_enough_is_found_out(self, temperature):
        fitted = fit_temperature(*drawn(temperature))

        assert fitted.value == pytest.approx(temperature, rel=0.02)
        assert not fitted.at_limit
        assert fitted.num_pixels == 50_000

    def test_two_classes_have_the_temperature_that_can_be_computed_by_hand(self):
        # Odds 9 to 1 throughout, right 3 times of 4, odds 3 to 1: 9 ** (1 / T) = 3, T = 2.
        logs = np.log(np.tile([0.9, 0.1], (4, 1)))
        fitted = fit_temperature(logs, np.array([0, 0, 0, 1]))

        assert fitted.value == pytest.approx(2.0, rel=1e-4)
        assert fitted.nll_before == pytest.approx(-(3 * math.log(0.9) + math.log(0.1)) / 4)
        assert fitted.nll_after == pytest.approx(-(3 * math.log(0.75) + math.log(0.25)) / 4)

    def test_a_network_that_means_what_it_says_is_left_as_it_is(self):
        # Odds 3 to 1 throughout, right 3 times of 4.
        fitted = fit_temperature(np.log(np.tile([0.75, 0.25], (4, 1))), np.array([0, 0, 0, 1]))

        assert fitted.value == 1.0
        assert fitted.nll_after == fitted.nll_before

    def test_logits_give_the_temperature_of_their_softmax(self):
        logs, truth = drawn(2.0, number=2000)
        shifted = logs + np.random.default_rng(1).normal(size=(2000, 1)) * 5

        assert fit_temperature(shifted, truth).value == pytest.approx(
            fit_temperature(logs, truth).value, rel=1e-5
        )

    @settings(max_examples=30, deadline=None)
    @given(st.floats(0.2, 5), st.integers(0, 1000))
    def test_the_likelihood_is_never_worse_than_before(self, temperature, seed):
        fitted = fit_temperature(*drawn(temperature, number=30, seed=seed))

        assert fitted.nll_after <= fitted.nll_before

    @pytest.mark.parametrize("sure", [0.8, 0.99, 0.999999])
    def test_however_sure_a_sample_without_a_wrong_pixel_has_no_minimum(self, sure):
        # Of the surer ones the likelihood is 1 in floating point long before the limit.
        logs = np.log(np.tile([sure, 1 - sure], (10, 1)))

        assert fit_temperature(logs, np.zeros(10, int)).at_limit

    @pytest.mark.parametrize(("right", "limit"), [(True, LIMITS[0]), (False, LIMITS[1])])
    def test_a_sample_that_is_all_right_or_all_wrong_has_no_minimum_and_says_so(self, right, limit):
        logs = np.log(np.tile([0.8, 0.2], (10, 1)))
        fitted = fit_temperature(logs, np.full(10, 0 if right else 1))

        assert fitted.at_limit
        assert fitted.value == pytest.approx(limit, rel=1e-3)

    def test_no_pixel_is_an_error(self):
        with pytest.raises(ValueError, match=r"at least one pixel.*validation patients"):
            fit_temperature(np.empty((0, 2)), np.empty(0, int))

    def test_shapes_that_do_not_fit_are_an_error(self):
        with pytest.raises(ValueError, match=r"got shapes \(4, 2\) and \(3,\)"):
            fit_temperature(np.zeros((4, 2)), np.zeros(3, int))

    def test_the_logarithm_of_zero_is_an_error(self):
        with pytest.raises(ValueError, match="must be finite, got 1"):
            fit_temperature(np.array([[0.0, -np.inf]]), np.array([0]))

    def test_a_label_without_a_class_is_an_error(self):
        with pytest.raises(ValueError, match=r"labels 0..1, got 0 to 2"):
            fit_temperature(np.zeros((2, 2)), np.array([0, 2]))


class TestApply:
    def test_the_power_is_that_computed_by_hand(self):
        # T = 2: roots of 0.64, 0.32 and 0.04 over their sum; T = 1/2: squares over theirs.
        probabilities = np.array([0.64, 0.32, 0.04], np.float32)

        roots = np.array([0.8, math.sqrt(0.32), 0.2])
        np.testing.assert_allclose(
            apply_temperature(probabilities, 2.0), roots / roots.sum(), rtol=1e-6
        )
        squares = np.array([0.4096, 0.1024, 0.0016])
        np.testing.assert_allclose(
            apply_temperature(probabilities, 0.5), squares / squares.sum(), rtol=1e-6
        )

    def test_one_changes_nothing(self):
        probabilities = np.exp(drawn(1.0, number=500)[0]).astype(np.float32)

        np.testing.assert_allclose(apply_temperature(probabilities, 1.0), probabilities, rtol=1e-5)

    @settings(max_examples=50, deadline=None)
    @given(st.floats(0.05, 20), st.integers(0, 1000))
    def test_sums_stay_1_and_the_most_probable_class_stays_the_same(self, temperature, seed):
        probabilities = np.exp(drawn(3.0, number=50, seed=seed)[0]).astype(np.float32)
        changed = apply_temperature(probabilities, temperature)

        np.testing.assert_allclose(changed.sum(axis=-1), 1, rtol=1e-5)
        np.testing.assert_array_equal(changed.argmax(axis=-1), probabilities.argmax(axis=-1))

    @pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
    def test_a_probability_of_zero_gives_numbers(self, temperature):
        changed = apply_temperature(np.array([[1.0, 0.0], [0.5, 0.5]], np.float32), temperature)

        assert np.isfinite(changed).all()
        assert changed[0, 0] > 0.98
        assert changed[1].tolist() == [0.5, 0.5]
        assert changed.dtype == np.float32

    def test_a_thousand_classes_do_not_vanish_at_a_low_temperature(self):
        # 0.001 ** 20 is no float32.
        changed = apply_temperature(np.full(1000, 0.001, np.float32), 0.05)

        np.testing.assert_allclose(changed, 0.001, rtol=1e-5)

    def test_a_slice_without_a_pixel_stays_without(self):
        assert apply_temperature(np.empty((0, 4, 3), np.float32), 2.0).shape == (0, 4, 3)

    @pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
    def test_a_temperature_that_is_no_positive_number_is_an_error(self, temperature):
        with pytest.raises(ValueError, match="must be a positive number"):
            apply_temperature(np.array([0.5, 0.5]), temperature)

    def test_scaled_probabilities_are_calibrated(self):
        logs, truth = drawn(3.0)
        probabilities = np.exp(logs).astype(np.float32)
        fitted = fit_temperature(logs, truth)
        before = calibration(count_calibration(probabilities, truth))
        after = calibration(
            count_calibration(apply_temperature(probabilities, fitted.value), truth)
        )

        assert before.ece > 0.1
        assert after.ece < 0.01
        assert after.nll == pytest.approx(fitted.nll_after, rel=1e-4)


class TestPixelSample:
    @staticmethod
    def slices(number, seed=0):
        generator = np.random.default_rng(seed)
        for _ in range(number):
            foreground = generator.uniform(size=(20, 30)).astype(np.float32)
            yield (
                np.stack([1 - foreground, foreground], axis=-1),
                generator.integers(0, 2, (20, 30)),
            )

    @staticmethod
    def sample_of(slices, size, seed=0):
        sample = PixelSample(size, seed)
        for probabilities, truth in slices:
            sample.add(probabilities, truth)
        return sample

    def test_no_more_are_kept_than_wanted_however_many_are_shown(self):
        sample = self.sample_of(self.slices(5), 100)

        assert sample.log_probabilities.shape == (100, 2)
        assert sample.truth.shape == (100,)
        assert sample.num_seen == 3000

    def test_fewer_than_wanted_are_all_kept(self):
        ((probabilities, truth),) = self.slices(1)
        sample = self.sample_of([(probabilities, truth)], 1000)

        np.testing.assert_allclose(
            np.exp(sample.log_probabilities), probabilities.reshape(-1, 2), rtol=1e-5
        )
        np.testing.assert_array_equal(sample.truth, truth.ravel())

    def test_the_same_seed_draws_the_same_pixels_and_another_does_not(self):
        one, same, other = (self.sample_of(self.slices(4), 50, seed) for seed in (1, 1, 2))

        np.testing.assert_array_equal(one.log_probabilities, same.log_probabilities)
        np.testing.assert_array_equal(one.truth, same.truth)
        assert not np.array_equal(one.log_probabilities, other.log_probabilities)

    def test_pixels_of_the_first_and_of_the_last_slice_have_the_same_chance(self):
        # Ten slices of 600 pixels, told apart by their probability; 2000 of 6000 are drawn. Of a
        # slice 200 are expected, with a standard deviation of sqrt(200 * 2/3) = 11.5.
        levels = np.arange(1, 11) / 20
        slices = [(np.tile([1 - level, level], (600, 1)), np.zeros(600, int)) for level in levels]
        sample = self.sample_of(slices, 2000)
        places = np.rint(np.exp(sample.log_probabilities[:, 1]) * 20).astype(int) - 1

        drawn_of = np.bincount(places, minlength=10)
        assert drawn_of.sum() == 2000
        assert np.abs(drawn_of - 200).max() < 4 * 11.5

    def test_truth_stays_with_its_pixel(self):
        slices = [(p, (p[..., 1] > 0.5).astype(int)) for p, _ in self.slices(6)]
        sample = self.sample_of(slices, 200)

        np.testing.assert_array_equal(sample.truth, sample.log_probabilities.argmax(axis=1))

    def test_a_region_alone_is_drawn_from(self):
        probabilities = np.tile([0.75, 0.25], (100, 1))
        probabilities[40:50] = 0.5
        sample = PixelSample(50, seed=0)
        sample.add(probabilities, np.zeros(100, int), probabilities[:, 0] == 0.5)

        np.testing.assert_allclose(np.exp(sample.log_probabilities), np.full((10, 2), 0.5))

    def test_a_probability_of_zero_has_a_finite_logarithm(self):
        sample = self.sample_of([(np.array([[1.0, 0.0]]), np.array([0]))], 5)

        assert sample.log_probabilities[0].tolist() == pytest.approx([0, -126 * math.log(2)])

    def test_memory_does_not_grow_with_what_is_shown(self):
        probabilities = np.full((200_000, 2), 0.5, np.float32)
        truth = np.zeros(200_000, np.uint8)
        sample = PixelSample(1000, seed=0)
        sample.add(probabilities, truth)
        tracemalloc.start()
        for _ in range(5):
            sample.add(probabilities, truth)
        kept_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert sample.num_seen == 1_200_000
        assert kept_bytes < 100_000

    def test_slices_of_other_classes_are_an_error(self):
        sample = self.sample_of(self.slices(1), 10)

        with pytest.raises(ValueError, match="the 2 classes of the slices before, got 3"):
            sample.add(np.full((4, 3), 1 / 3), np.zeros(4, int))

    def test_a_size_below_one_is_an_error(self):
        with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
            PixelSample(0, seed=0)
