import keras
import numpy as np
import pytest
import tensorflow as tf

from src.models.losses import (
    LOSSES,
    SegmentationLoss,
    build_loss,
    categorical_cross_entropy,
    dice,
    dice_cross_entropy,
    focal,
    focal_tversky,
    tversky,
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


# Probability of the true class of each pixel of PREDICTION.
OF_TRUTH = np.array([0.5, 0.8, 0.5, 0.75])
WEIGHTS = (0.5, 2.0, 3.0)
OF_PIXELS = np.array([0.5, 2.0, 2.0, 3.0])


def test_class_weights_multiply_the_cross_entropy_of_their_pixels():
    expected = -(OF_PIXELS * np.log(OF_TRUTH)).mean()
    value = categorical_cross_entropy(TRUTH, PREDICTION, class_weights=WEIGHTS)
    assert float(value) == pytest.approx(expected, rel=1e-6)


def test_focal_counts_a_sure_pixel_less():
    expected = -((1 - OF_TRUTH) ** 2 * np.log(OF_TRUTH)).mean()
    assert float(focal(TRUTH, PREDICTION)) == pytest.approx(expected, rel=1e-6)


def test_class_weights_are_the_alpha_of_focal():
    expected = -(OF_PIXELS * (1 - OF_TRUTH) ** 1.5 * np.log(OF_TRUTH)).mean()
    value = focal(TRUTH, PREDICTION, class_weights=WEIGHTS, gamma=1.5)
    assert float(value) == pytest.approx(expected, rel=1e-6)


def test_focal_with_gamma_0_is_the_cross_entropy():
    expected = float(categorical_cross_entropy(TRUTH, PREDICTION))
    assert float(focal(TRUTH, PREDICTION, gamma=0.0)) == pytest.approx(expected, rel=1e-6)


def test_class_weights_weigh_the_dice_of_the_foreground_classes():
    # (2 x 3.6 / 4.8 + 3 x 2.5 / 3) / (2 + 3); see the test of dice above.
    expected = 1 - (2 * 3.6 / 4.8 + 3 * 2.5 / 3) / 5
    assert float(dice(TRUTH, PREDICTION, class_weights=WEIGHTS)) == pytest.approx(expected)
    other_background = float(dice(TRUTH, PREDICTION, class_weights=(9.0, 2.0, 3.0)))
    assert other_background == pytest.approx(expected)


def test_dice_without_batch_is_the_mean_over_slices():
    # Slice 1, truth 0 1: class 1 (2 x 0.8 + 1) / (1.05 + 1 + 1), class 2 absent 1 / (0.25 + 1).
    # Slice 2, truth 1 2: class 1 (2 x 0.5 + 1) / (0.75 + 1 + 1), class 2 (1.5 + 1) / (1.75 + 1).
    expected = 1 - (2.6 / 3.05 + 1 / 1.25 + 2 / 2.75 + 2.5 / 2.75) / 4
    slices = TRUTH.reshape(2, 1, 2), PREDICTION.reshape(2, 1, 2, 3)
    assert float(dice(*slices, batch=False)) == pytest.approx(expected, rel=1e-6)
    weighted = 1 - (2 * 2.6 / 3.05 + 3 * 1 / 1.25 + 2 * 2 / 2.75 + 3 * 2.5 / 2.75) / (2 * 5)
    value = dice(*slices, batch=False, class_weights=WEIGHTS)
    assert float(value) == pytest.approx(weighted, rel=1e-6)


# Class 1: TP 1.3, FP 0.5, FN 0.7. Class 2: TP 0.75, FP 0.25, FN 0.25.
INDICES = np.array([(1.3 + 1) / (1.3 + 0.15 + 0.49 + 1), (0.75 + 1) / (0.75 + 0.25 + 1)])


def test_tversky_prices_false_positives_at_alpha_and_false_negatives_at_beta():
    assert float(tversky(TRUTH, PREDICTION)) == pytest.approx(1 - INDICES.mean(), rel=1e-6)
    weighted = 1 - (2 * INDICES[0] + 3 * INDICES[1]) / 5
    value = tversky(TRUTH, PREDICTION, class_weights=WEIGHTS)
    assert float(value) == pytest.approx(weighted, rel=1e-6)


def test_false_negatives_alone_cost_nothing_without_beta():
    missed = np.array([[[[1.0, 0.0], [0.0, 1.0]]]], np.float32)
    truth = np.array([[[1, 1]]])
    assert float(tversky(truth, missed, alpha=1.0, beta=0.0)) == pytest.approx(0, abs=1e-6)
    # TP 1, FN 1: 1 - (1 + 1) / (1 + 1 + 1).
    assert float(tversky(truth, missed, alpha=0.0, beta=1.0)) == pytest.approx(1 / 3, rel=1e-6)


def test_focal_tversky_takes_the_power_of_each_class():
    expected = ((1 - INDICES) ** 0.75).mean()
    assert float(focal_tversky(TRUTH, PREDICTION)) == pytest.approx(expected, rel=1e-5)
    plain = float(tversky(TRUTH, PREDICTION))
    assert float(focal_tversky(TRUTH, PREDICTION, gamma=1.0)) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("size", [1, 64])
def test_an_empty_mask_has_a_finite_loss_and_gradient(loss, size):
    logits = tf.random.stateless_normal((2, size, size, 3), (0, 0)) * 30
    value, gradient = softmax_gradient(loss, np.zeros((2, size, size)), logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("true", [0, 1])
@pytest.mark.parametrize("predicted", [0, 1])
def test_a_mask_full_of_one_class_and_sure_probabilities_are_finite(loss, true, predicted):
    prediction = tf.one_hot(np.full((2, 8, 8), predicted), 3)  # exactly 0 and 1
    with tf.GradientTape() as tape:
        tape.watch(prediction)
        value = loss(np.full((2, 8, 8), true), prediction)
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, prediction)).all()


@pytest.mark.parametrize("loss", [focal, focal_tversky])
@pytest.mark.parametrize("gamma", [0.3, 0.5, 5.0])
def test_any_power_has_a_finite_gradient_where_all_is_right(loss, gamma):
    prediction = tf.one_hot(TRUTH, 3)
    with tf.GradientTape() as tape:
        tape.watch(prediction)
        value = loss(TRUTH, prediction, gamma=gamma)
    assert np.isfinite(tape.gradient(value, prediction)).all()


@pytest.mark.parametrize("name", LOSSES)
def test_300_classes_keep_their_index_under_mixed_bfloat16(name):
    # bfloat16 has 256 and 258, but no 257.
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    truth = np.array([[[0, 255, 256, 257, 258, 299]]], np.uint16)
    image = keras.Input((None, None, 300))
    model = keras.Model(image, keras.layers.Softmax(dtype="float32")(image))
    model.compile(loss=build_loss(name, num_classes=300), jit_compile=False)
    right, wrong = (
        model.evaluate(20 * np.eye(300, dtype=np.float32)[indices], truth, verbose=0)
        for indices in (truth, np.minimum(truth + (truth == 257), 299))
    )
    assert right < wrong / 100


def test_a_prediction_in_bfloat16_is_computed_in_float32():
    value = dice_cross_entropy(TRUTH, tf.cast(PREDICTION, tf.bfloat16))
    assert value.dtype == tf.float32
    assert float(value) == pytest.approx(float(dice_cross_entropy(TRUTH, PREDICTION)), rel=0.01)


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


@pytest.mark.parametrize(
    ("loss", "parameters"),
    [
        *((loss, {}) for loss in LOSSES.values()),
        *((loss, {"class_weights": WEIGHTS}) for loss in LOSSES.values()),
        *((loss, {"batch": False}) for loss in (dice, dice_cross_entropy, tversky, focal_tversky)),
    ],
)
def test_the_gradient_agrees_with_finite_differences_in_float64(loss, parameters):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (2, 2, 2))
    probabilities = rng.dirichlet(np.ones(3), (2, 2, 2))
    inputs = tf.constant(probabilities, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = loss(truth, inputs, **parameters)
    gradient = tape.gradient(value, inputs).numpy()
    step = 1e-6
    for place in np.ndindex(probabilities.shape):
        change = np.zeros_like(probabilities)
        change[place] = step
        up, down = (
            float(loss(truth, tf.constant(probabilities + sign * change), **parameters))
            for sign in (1, -1)
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


def test_an_unknown_loss_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"loss must be one of \['categorical_cross_entropy', 'dice'.*got 'l2'"
    ):
        build_loss("l2", num_classes=3)


@pytest.mark.parametrize("name", LOSSES)
def test_a_built_loss_is_the_function_with_its_parameters(name):
    weights = (0.5, 1.0, 2.0)
    expected = float(LOSSES[name](TRUTH, PREDICTION, class_weights=weights))
    built = build_loss(name, num_classes=3, class_weights=weights)
    assert float(built(TRUTH, PREDICTION)) == pytest.approx(expected, rel=1e-6)


def test_a_built_loss_survives_its_configuration():
    built = build_loss("focal_tversky", num_classes=3, class_weights=[1, 2, 3], beta=0.9)
    config = keras.saving.serialize_keras_object(built)
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again, SegmentationLoss)
    assert again.name == "focal_tversky"
    assert float(again(TRUTH, PREDICTION)) == float(built(TRUTH, PREDICTION))


def test_a_parameter_of_another_loss_is_refused_with_the_losses_that_have_it():
    with pytest.raises(
        ValueError,
        match=r"gamma is no parameter of the loss dice, which takes \['class_weights', 'batch'\]. "
        r"Leave it out, or choose one of \['focal', 'focal_tversky'\]",
    ):
        build_loss("dice", num_classes=3, gamma=2.0)


def test_a_parameter_of_no_loss_is_refused():
    with pytest.raises(
        ValueError, match=r"delta is no parameter of the loss focal.*Leave it out\.$"
    ):
        build_loss("focal", num_classes=3, delta=2.0)


@pytest.mark.parametrize(
    ("name", "parameter", "value", "bound"),
    [
        ("focal", "gamma", -1.0, "at least 0"),
        ("focal", "gamma", float("nan"), "at least 0"),
        ("focal_tversky", "gamma", 0.0, "above 0"),
        ("tversky", "alpha", -0.1, "at least 0"),
        ("tversky", "beta", float("inf"), "at least 0"),
    ],
)
def test_a_parameter_out_of_range_is_refused(name, parameter, value, bound):
    with pytest.raises(ValueError, match=f"{parameter} of the loss {name} must be {bound}, got"):
        build_loss(name, num_classes=3, **{parameter: value})


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            (1.0, 2.0),
            r"one number for each of the 3 classes, background first, got 2: \[1.0, 2.0\]",
        ),
        ((1.0, -2.0, 1.0), "class_weights must be at least 0"),
        ((1.0, float("nan"), 1.0), "class_weights must be at least 0"),
        ((0.0, 0.0, 0.0), "class_weights must be above 0 for a class"),
    ],
)
def test_wrong_class_weights_are_refused_when_built_and_when_called(name, weights, message):
    with pytest.raises(ValueError, match=message):
        build_loss(name, num_classes=3, class_weights=weights)
    with pytest.raises(ValueError, match=message):
        LOSSES[name](TRUTH, PREDICTION, class_weights=weights)


def test_a_loss_of_overlap_needs_a_weight_in_the_foreground():
    with pytest.raises(ValueError, match="above 0 for a class of the foreground"):
        build_loss("dice", num_classes=3, class_weights=(1.0, 0.0, 0.0))
