import keras
import numpy as np
import pytest

from src.models import ARCHITECTURES, build_loss, build_model, inference_model
from src.models.metrics import ConfusionMatrix
from src.models.supervision import DeeplySupervised
from tests.models.networks import EVERYTHING, SMALL, batch, trained

# Two outputs: of 4 x 4 pixels, and of 2 x 2. Class 1 is the lower right pixel of each square.
TRUTH = np.array([[[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]]], np.uint8)
FINE = np.full((1, 4, 4, 2), 0.5, np.float32)
COARSE = np.broadcast_to(np.float32([0.75, 0.25]), (1, 2, 2, 2))


def two_outputs(weights=(1.0, 0.5)):
    image = keras.Input((None, None, 1))
    fine = keras.layers.Conv2D(2, 1, name="fine")(image)
    coarse = keras.layers.Conv2D(2, 2, strides=2, name="coarse")(image)
    outputs = [keras.layers.Softmax()(fine), keras.layers.Softmax()(coarse)]
    model = DeeplySupervised(image, outputs, strides=(1, 2), weights=weights)
    loss = build_loss("categorical_cross_entropy", num_classes=2)
    model.compile("sgd", loss=loss, metrics=[ConfusionMatrix(2, name="counts")])
    return model


def loss_of(model, *, training):
    return float(model.compute_loss(None, TRUTH, [FINE, COARSE], training=training))


def test_the_loss_is_the_weighted_mean_and_a_coarse_truth_is_one_pixel_of_each_square():
    # Fine: -ln 0.5 everywhere. Coarse: all four true pixels are class 1, -ln 0.25 each.
    expected = (1.0 * np.log(2) + 0.5 * np.log(4)) / 1.5
    assert loss_of(two_outputs(), training=True) == pytest.approx(expected, rel=1e-6)


def test_an_output_of_weight_0_counts_for_nothing():
    assert loss_of(two_outputs((1.0, 0.0)), training=True) == pytest.approx(np.log(2), rel=1e-6)


def test_in_validation_the_main_output_counts_alone():
    assert loss_of(two_outputs(), training=False) == pytest.approx(np.log(2), rel=1e-6)


def test_metrics_count_the_pixels_of_the_main_output_once():
    model = two_outputs()
    history = model.fit(np.zeros((1, 4, 4, 1)), TRUTH, verbose=0).history
    assert int(np.sum(history["counts"][0])) == 16
    found = model.evaluate(np.zeros((1, 4, 4, 1)), TRUTH, verbose=0, return_dict=True)
    assert int(np.sum(found["counts"])) == 16


@pytest.mark.parametrize(
    ("architecture", "sizes"),
    [
        ("unet", [(16, 24), (8, 12)]),
        ("attention_unet", [(16, 24), (8, 12)]),
        ("unetpp", [(16, 24), (16, 24)]),
    ],
)
def test_a_network_has_depth_outputs_the_main_one_first(architecture, sizes):
    model = build_model(architecture, **EVERYTHING)
    outputs = model(np.zeros((2, 16, 24, 1)))
    assert [tuple(output.shape) for output in outputs] == [(2, *size, 3) for size in sizes]
    assert [16 // size[0] for size in sizes] == list(model.output_strides)


def test_weights_halve_with_the_size_and_are_equal_at_one_size():
    weights = {
        name: build_model(name, **{**EVERYTHING, "depth": 3}).output_weights
        for name in ARCHITECTURES
    }
    halving = (1.0, 0.5, 0.25)
    assert weights == {"unet": halving, "attention_unet": halving, "unetpp": (1.0, 1.0, 1.0)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_of_ones_own_take_the_place_of_those_of_the_paper(architecture):
    weights = (1.0, 0.3, 0.1)
    model = build_model(architecture, **{**EVERYTHING, "depth": 3, "deep_supervision": weights})
    assert model.output_weights == weights


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_moves_every_kernel_and_halves_the_loss(architecture):
    # Every kernel: no head, gate or node stands beside the path of the gradients.
    model, losses = trained(architecture, steps=40, residual=True, deep_supervision=True)
    assert losses[-1] < losses[0] / 2
    start = trained(architecture, steps=0, residual=True, deep_supervision=True)[0]
    for weight, before in zip(model.trainable_weights, start.trainable_weights, strict=True):
        if weight.name == "kernel":
            assert not np.array_equal(weight, before), weight.path


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_inference_model_is_the_main_output_with_the_same_weights(architecture):
    model = build_model(architecture, **EVERYTHING)
    alone = inference_model(model)
    model.get_layer("logits").bias.assign([0.0, 1.0, 2.0])
    images = batch()[0]
    np.testing.assert_array_equal(alone(images), model(images)[0])
    plain = build_model(architecture, **SMALL, residual=True)
    assert alone.count_params() == plain.count_params() < model.count_params()


def test_the_inference_model_of_a_network_without_further_outputs_shares_its_weights():
    model = build_model("unet", **SMALL)
    alone = inference_model(model)
    assert [id(weight) for weight in alone.weights] == [id(weight) for weight in model.weights]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_inference_model_predicts_as_before(tmp_path, architecture):
    model = build_model(architecture, **EVERYTHING)
    inference_model(model).save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    images = batch()[0]
    np.testing.assert_array_equal(again(images), model(images)[0])


def test_a_saved_training_model_trains_on_as_before(tmp_path):
    model, _ = trained("unetpp", steps=2, dropout=0.0, deep_supervision=True)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.output_strides == model.output_strides
    assert again.output_weights == model.output_weights
    for _ in range(2):
        losses = [float(one.train_on_batch(*batch())) for one in (model, again)]
        assert losses[0] == losses[1]
