import keras
import numpy as np
import pytest

from src.models import blocks, build_model
from src.models.dropout import reseed_dropout
from src.models.normalisation import NORMALISATIONS
from tests.models.networks import DEMO, PAPER, SMALL, batch, trained, unet_parameters


def test_the_network_of_the_paper_has_31_030_658_parameters():
    count = build_model("unet", **PAPER).count_params()
    assert count == unet_parameters(PAPER) == 31_030_658


def test_the_small_network_of_the_docstring_has_1_945_267_parameters():
    model = build_model("unet", **DEMO)
    assert model.count_params() == unet_parameters(DEMO) == 1_945_267
    assert sum(np.prod(weight.shape) for weight in model.non_trainable_weights) == 2_944


@pytest.mark.parametrize("design", [PAPER, DEMO], ids=["none", "batch"])
def test_residual_blocks_and_further_heads_have_the_parameters_of_the_docstring(design):
    options = {"residual": True, "deep_supervision": True}
    model = build_model("unet", **design, **options)
    assert model.count_params() == unet_parameters(design, **options)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("upsampling", blocks.UPSAMPLINGS)
def test_every_variant_gives_float32_probabilities_of_the_size_of_the_picture(
    normalisation, upsampling
):
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    model = build_model(
        "unet", **{**SMALL, "normalisation": normalisation, "upsampling": upsampling}
    )
    probabilities = model(np.ones((2, 8, 12, 1), np.float32)).numpy()
    assert probabilities.shape == (2, 8, 12, 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-6)


def test_one_network_takes_pictures_of_several_sizes_and_channels():
    model = build_model("unet", **{**SMALL, "in_channels": 2})
    for height, width in ((4, 4), (16, 8)):
        assert model(np.zeros((1, height, width, 2))).shape == (1, height, width, 3)


def test_dropout_stands_at_the_bottleneck_and_the_level_beside_it():
    model = build_model("unet", **{**SMALL, "depth": 3})
    names = [layer.name for layer in model.layers if "dropout" in layer.name]
    assert names == ["encoder2_dropout", "bottleneck_dropout", "decoder2_dropout"]


def test_training_on_one_batch_halves_the_loss():
    _, losses = trained("unet", steps=40)
    assert losses[-1] < losses[0] / 2


def test_a_saved_model_predicts_and_trains_on_as_before(tmp_path):
    model, _ = trained("unet", steps=2)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    images, truth = batch()
    np.testing.assert_array_equal(again(images), model(images))
    for one in (model, again):
        reseed_dropout(one, seed=0, epoch=1)
    for _ in range(2):  # the second loss also tells whether the optimizer kept its moments
        losses = [float(one.train_on_batch(images, truth)) for one in (model, again)]
        assert losses[0] == losses[1]
