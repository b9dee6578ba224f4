import re

import keras
import numpy as np
import pytest

from src.models import blocks, build_model, check_image_size, loss_by_name

SMALL = {
    "in_channels": 1,
    "num_classes": 3,
    "depth": 2,
    "filters": 4,
    "dropout": 0.2,
    "normalisation": "batch",
    "upsampling": "transpose",
}
PAPER = {**SMALL, "num_classes": 2, "depth": 4, "filters": 64, "normalisation": "none"}


@pytest.fixture(autouse=True)
def float32_afterwards():
    yield
    keras.mixed_precision.set_dtype_policy("float32")


def batch():
    """Discs of two classes, which a network can learn from the grey value alone."""
    rows, columns = np.mgrid[:16, :16]
    distance = np.hypot(rows - 7.5, columns - 7.5)
    truth = np.stack([(distance < radius) + (distance < radius / 2) for radius in (4, 5, 6, 7)])
    noise = np.random.default_rng(0).normal(0, 0.1, (4, 16, 16, 1))
    return (truth[..., None] + noise).astype(np.float32), truth.astype(np.uint8)


def trained(seed, steps, **changes):
    keras.utils.set_random_seed(seed)
    model = build_model("unet", **{**SMALL, **changes})
    model.compile(
        keras.optimizers.Adam(0.01), loss=loss_by_name("dice_cross_entropy"), jit_compile=False
    )
    losses = [float(model.train_on_batch(*batch())) for _ in range(steps)]
    return model, losses


def expected_parameters(filters, depth, num_classes, in_channels, *, batch_norm):
    """The count by hand: see the docstring of `unet`."""
    level = [filters * 2**index for index in range(depth + 1)]
    per_convolution = 4 if batch_norm else 1  # scale, offset, moving mean, variance; or bias

    def block(b, f):
        return 9 * b * f + 9 * f * f + 2 * per_convolution * f

    encoder = sum(block(b, f) for b, f in zip([in_channels, *level[:-1]], level, strict=True))
    decoder = sum(8 * f * f + f + block(2 * f, f) for f in level[:-1])
    return encoder + decoder + (filters + 1) * num_classes


def test_the_network_of_the_paper_has_31_030_658_parameters():
    count = build_model("unet", **PAPER).count_params()
    assert count == expected_parameters(64, 4, 2, 1, batch_norm=False) == 31_030_658


def test_the_small_network_of_the_docstring_has_1_945_267_parameters():
    model = build_model(
        "unet", **{**PAPER, "num_classes": 3, "filters": 16, "normalisation": "batch"}
    )
    assert model.count_params() == expected_parameters(16, 4, 3, 1, batch_norm=True) == 1_945_267
    assert sum(np.prod(weight.shape) for weight in model.non_trainable_weights) == 2_944


@pytest.mark.parametrize("normalisation", ["batch", "instance", "none"])
@pytest.mark.parametrize("upsampling", ["transpose", "bilinear", "nearest"])
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
    _, losses = trained(seed=0, steps=40)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("normalisation", "precision"),
    [("batch", "mixed_bfloat16"), ("batch", "float32"), ("instance", "float32")],
)
def test_the_same_seed_gives_the_same_weights(normalisation, precision):
    keras.mixed_precision.set_dtype_policy(precision)
    one, other = (
        trained(1, 2, depth=1, normalisation=normalisation)[0].get_weights() for _ in range(2)
    )
    for weight, same in zip(one, other, strict=True):
        np.testing.assert_array_equal(weight, same)


@pytest.mark.parametrize("normalisation", blocks.NORMALISATIONS)
def test_no_tensor_has_more_than_two_consumers(normalisation):
    # TensorFlow adds three gradients in no fixed order (see `blocks`): weights would not repeat.
    model = build_model("unet", **{**SMALL, "normalisation": normalisation})
    assert max(len(layer._outbound_nodes) for layer in model.layers) == 2


def test_another_seed_gives_other_weights():
    one, other = (trained(seed, 0)[0].get_weights()[0] for seed in (1, 2))
    assert not np.array_equal(one, other)


def test_a_saved_model_predicts_and_trains_on_as_before(tmp_path):
    model, _ = trained(seed=0, steps=2)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    images, truth = batch()
    np.testing.assert_array_equal(again(images), model(images))
    for one in (model, again):
        blocks.reseed_dropout(one, seed=0, epoch=1)
    for _ in range(2):  # the second loss also tells whether the optimizer kept its moments
        losses = [float(one.train_on_batch(images, truth)) for one in (model, again)]
        assert losses[0] == losses[1]


def test_every_epoch_and_layer_draws_a_dropout_of_its_own():
    model = build_model("unet", **SMALL)
    states = set()
    for epoch in (0, 1, 0):
        blocks.reseed_dropout(model, seed=3, epoch=epoch)
        states |= {
            tuple(np.array(layer.seed_generator.state))
            for layer in model.layers
            if "dropout" in layer.name
        }
    assert len(states) == 2 * 3  # epochs x layers


def test_a_size_that_the_network_cannot_halve_is_refused_with_the_remedy():
    message = (
        "image height and width must be divisible by 16 (depth 4), got (250, 250). "
        "Set prepare.pad_to_multiple: 16."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_image_size(250, 250, 4)


@pytest.mark.parametrize(("height", "width"), [(16, 24), (24, 16), (0, 16)])
def test_either_side_decides(height, width):
    with pytest.raises(ValueError, match="divisible by 16"):
        check_image_size(height, width, 4)


def test_a_size_that_fits_passes():
    check_image_size(16, 48, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"filters": 0}, "filters must be at least 1, got 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1. Count the background"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"normalisation": "layer"}, "normalisation must be one of"),
        ({"upsampling": "cubic"}, "upsampling must be one of"),
    ],
)
def test_a_wrong_parameter_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        build_model("unet", **{**SMALL, **change})


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"architecture must be one of \['unet'.*got 'vnet'"):
        build_model("vnet")
