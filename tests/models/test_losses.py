import keras
import numpy as np
import pytest
import tensorflow as tf

from src.models.losses import (
    LOSSES,
    categorical_cross_entropy,
    dice,
    dice_cross_entropy,
    loss_by_name,
)

# One picture of 1 x 4 pixels, three classes.
TRUTH = np.array([[[0, 1, 1, 2]]], np.uint8)
PREDICTION = np.array(
    [[[[0.5, 0.25, 0.25], [0.2, 0.8, 0.0], [0.5, 0.5, 0.0], [0.0, 0.25, 0.75]]]], np.float32
)


def softmax_gradient(loss, truth, logits):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(truth, tf.nn.softmax(logits))
    return value, tape.gradient(value, logits)


def test_cross_entropy_is_the_mean_logarithm_of_the_true_class():
    expected = -np.log([0.5, 0.8, 0.5, 0.75]).mean()
    assert float(categorical_cross_entropy(TRUTH, PREDICTION)) == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_of_an_impossible_truth_stays_finite():
    impossible = np.array([[[[1.0, 0.0]]]], np.float32)
    value = float(categorical_cross_entropy(np.array([[[1]]]), impossible))
    assert value == pytest.approx(-np.log(1e-7), rel=1e-6)  # 16.1


def test_dice_is_pooled_over_the_batch_for_each_foreground_class():
    # Class 1: overlap 0.8 + 0.5, predicted 0.25 + 0.8 + 0.5 + 0.25, true 2: (2.6 + 1) / (3.8 + 1).
    # Class 2: overlap 0.75, predicted 0.25 + 0.75, true 1: (1.5 + 1) / (2 + 1).
    expected = 1 - (3.6 / 4.8 + 2.5 / 3) / 2
    assert float(dice(TRUTH, PREDICTION)) == pytest.approx(expected, rel=1e-6)
    in_two = float(dice(TRUTH.reshape(2, 1, 2), PREDICTION.reshape(2, 1, 2, 3)))
    assert in_two == pytest.approx(expected, rel=1e-6)


def test_dice_of_a_perfect_prediction_is_0():
    assert float(dice(TRUTH, np.eye(3, dtype=np.float32)[TRUTH])) == pytest.approx(0, abs=1e-6)


def test_dice_cross_entropy_is_the_sum_of_both():
    both = float(dice(TRUTH, PREDICTION)) + float(categorical_cross_entropy(TRUTH, PREDICTION))
    assert float(dice_cross_entropy(TRUTH, PREDICTION)) == pytest.approx(both, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("size", [1, 64])
def test_an_empty_mask_has_a_finite_loss_and_gradient(loss, size):
    logits = tf.random.stateless_normal((2, size, size, 3), (0, 0)) * 30
    value, gradient = softmax_gradient(loss, np.zeros((2, size, size)), logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("background", [0.0, 5.0, 10.0, 15.0])
def test_a_class_absent_from_the_truth_pulls_no_harder_than_a_present_one(background):
    # Softmax: |dD/dlogit| summed over the pixels of an absent class is s sum(p) / (sum(p) + s)^2
    # <= 1/4; halved by the mean over two classes, and as much again on the background's logits.
    logits = tf.constant([background, 0.0, 0.0]) * tf.ones((2, 32, 32, 3))
    _, gradient = softmax_gradient(dice, np.zeros((2, 32, 32)), logits)
    assert np.abs(gradient[..., 1]).sum() <= 0.125 + 1e-6


def test_a_false_positive_of_an_absent_class_is_pushed_down():
    _, gradient = softmax_gradient(dice, np.zeros((1, 8, 8)), tf.zeros((1, 8, 8, 3)))
    assert (gradient.numpy()[..., 1:] > 0).all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_gradient_agrees_with_finite_differences_in_float64(loss):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (2, 3, 2))
    probabilities = rng.dirichlet(np.ones(3), (2, 3, 2))
    inputs = tf.constant(probabilities, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = loss(truth, inputs)
    gradient = tape.gradient(value, inputs).numpy()
    step = 1e-6
    for place in np.ndindex(probabilities.shape):
        change = np.zeros_like(probabilities)
        change[place] = step
        up, down = (
            float(loss(truth, tf.constant(probabilities + sign * change))) for sign in (1, -1)
        )
        assert gradient[place] == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("label", [3, -1, 255])
def test_a_label_that_is_no_class_makes_the_loss_nan(loss, label):
    truth = TRUTH.astype(np.int32)
    truth[0, 0, 0] = label
    assert np.isnan(float(loss(truth, PREDICTION)))


def test_float_labels_count_like_integers():
    # Keras casts the truth to float32 before it calls the loss.
    assert float(dice(TRUTH.astype(np.float32), PREDICTION)) == float(dice(TRUTH, PREDICTION))


def test_a_loss_is_found_by_its_name_also_in_a_saved_model():
    assert loss_by_name("dice") is dice
    assert keras.saving.get_registered_object("ct_segmentation>dice") is dice


def test_an_unknown_loss_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"loss must be one of \['categorical_cross_entropy', 'dice'.*got 'l2'"
    ):
        loss_by_name("l2")
