import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.evaluation.pixels import NUM_FINE, fine_bins, pixel_blocks

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.25, 0.5, 0.25]], np.float32)
TRUTH = np.array([0, 1, 1], np.uint8)


def only_block(*arrays):
    (block,) = pixel_blocks(*arrays)
    return block


def test_probabilities_of_the_true_class_and_of_the_most_probable_one_are_picked():
    pixels = only_block(PROBABILITIES, TRUTH)
    labels, highest = pixels.most_probable()

    assert pixels.of_truth().tolist() == pytest.approx([0.7, 0.3, 0.5])
    assert labels.tolist() == [0, 2, 1]
    assert highest.tolist() == pytest.approx([0.7, 0.6, 0.5])


def test_of_equally_probable_classes_the_first_is_taken_as_argmax_does():
    pixels = only_block(np.array([[0.2, 0.4, 0.4], [0.5, 0.5, 0.0]]), np.array([0, 0]))

    assert pixels.most_probable()[0].tolist() == [1, 0]


def test_a_region_keeps_its_pixels_in_order():
    pixels = only_block(PROBABILITIES, TRUTH, np.array([True, False, True]))

    np.testing.assert_array_equal(pixels.probabilities.T, PROBABILITIES[[0, 2]])
    assert pixels.truth.tolist() == [0, 1]


def test_a_region_without_a_pixel_gives_no_block():
    assert list(pixel_blocks(PROBABILITIES, TRUTH, np.zeros(3, bool))) == []


def test_a_large_slice_comes_in_blocks_that_make_it_up():
    generator = np.random.default_rng(0)
    foreground = generator.uniform(size=(600, 500)).astype(np.float32)
    probabilities = np.stack([1 - foreground, foreground], axis=-1)
    truth = generator.integers(0, 2, (600, 500))
    blocks = list(pixel_blocks(probabilities, truth))

    assert len(blocks) > 1
    together = np.concatenate([block.probabilities for block in blocks], axis=1)
    np.testing.assert_array_equal(together.T.reshape(600, 500, 2), probabilities)
    labels = np.concatenate([block.truth for block in blocks])
    np.testing.assert_array_equal(labels.reshape(600, 500), truth)


@settings(max_examples=200)
@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=20))
def test_fine_bins_never_fall_where_values_rise(values):
    ordered = np.sort(np.array(values, np.float32))
    bins = fine_bins(ordered)

    assert (np.diff(bins) >= 0).all()
    assert bins.min() >= 0
    assert bins.max() < NUM_FINE


@settings(max_examples=200)
@given(st.floats(2**-24, 1, width=32), st.floats(2**-24, 1, width=32))
def test_values_of_one_fine_bin_differ_by_less_than_one_part_in_512(one, other):
    first, second = fine_bins(np.array([one, other], np.float32))

    if first == second:
        assert abs(one - other) <= max(one, other) / 512
    if abs(one - other) > max(one, other) / 256:
        assert first != second


def test_zero_and_one_have_the_first_and_the_last_fine_bin_to_themselves():
    just_below_1 = np.nextafter(np.float32(1), np.float32(0))
    bins = fine_bins(np.array([0, 2**-24, just_below_1, 1], np.float32))

    assert bins.tolist() == [0, 1, NUM_FINE - 2, NUM_FINE - 1]


def refused(error, match, probabilities=PROBABILITIES, truth=TRUTH, region=None):
    with pytest.raises(error, match=match):
        list(pixel_blocks(probabilities, truth, region))


def test_a_mask_in_place_of_probabilities_is_an_error():
    refused(TypeError, "must be floats, got dtype uint8", PROBABILITIES.astype(np.uint8))


def test_a_truth_of_floats_is_an_error():
    refused(TypeError, "must hold integer class indices, got dtype float64", truth=TRUTH * 1.0)


def test_a_single_class_is_an_error():
    refused(ValueError, r"background included, got shape \(3, 1\)", PROBABILITIES[:, :1])


def test_a_truth_of_another_shape_is_an_error():
    refused(ValueError, r"truth must have the shape \(3,\).*got \(2,\)", truth=TRUTH[:2])


def test_a_region_of_another_shape_is_an_error():
    refused(ValueError, r"region must be bool of shape \(3,\)", region=np.ones(2, bool))


def test_a_region_that_is_not_bool_is_an_error():
    refused(TypeError, "region must be bool.*got uint8", region=np.ones(3, np.uint8))


def test_a_label_without_a_class_is_an_error():
    refused(ValueError, r"labels 0..2, got also \[7\]", truth=np.array([0, 7, 1]))


@pytest.mark.parametrize(
    "wrong",
    [[2.0, -1.0, 0.0], [0.5, 0.5, 0.5], [np.nan, 0.5, 0.5], [3.1, -0.3, 7.0]],
    ids=["negative", "sum", "not a number", "logits"],
)
def test_what_is_no_probability_is_an_error(wrong):
    refused(ValueError, "Pass the softmax", np.array([*PROBABILITIES[:2], wrong], np.float32))
