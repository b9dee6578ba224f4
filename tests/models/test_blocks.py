import keras
import numpy as np
import pytest
import tensorflow as tf

from src.models import blocks, build_model


def test_an_unknown_upsampling_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"upsampling must be one of .*'nearest'.*got 'cubic'"):
        blocks.upsample(keras.Input((8, 8, 2)), 1, upsampling="cubic", name="up")


@pytest.mark.parametrize("upsampling", blocks.UPSAMPLINGS)
def test_upsampling_doubles_the_size(upsampling):
    outputs = blocks.upsample(keras.Input((6, 8, 4)), 3, upsampling=upsampling, name="up")
    assert outputs.shape == (None, 12, 16, 3)


def residual_block(channels):
    """A block of two features without normalisation, whose two 3 x 3 convolutions give -1."""
    inputs = keras.Input((None, None, channels))
    outputs = blocks.convolution_block(inputs, 2, normalisation="none", residual=True, name="block")
    model = keras.Model(inputs, outputs)
    for name in ("block_conv1", "block_conv2"):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([np.zeros_like(kernel), bias - 1])
    return model


def test_a_residual_block_adds_its_inputs_before_the_last_relu():
    values = np.array([0.5, 3.0], np.float32).reshape(1, 1, 1, 2)
    # ReLU(-1 + 0.5) and ReLU(-1 + 3).
    np.testing.assert_allclose(np.ravel(residual_block(2)(values)), [0.0, 2.0])


def test_a_residual_block_of_other_channels_convolves_its_inputs_with_1_x_1():
    model = residual_block(1)
    kernel = np.array([2.0, 4.0]).reshape(1, 1, 1, 2)
    model.get_layer("block_conv_shortcut").set_weights([kernel, np.zeros(2)])
    # ReLU(-1 + 2 x 3) and ReLU(-1 + 4 x 3).
    np.testing.assert_allclose(np.ravel(model(np.full((1, 1, 1, 1), 3.0))), [5.0, 11.0])


@pytest.mark.parametrize("training", [True, False])
def test_a_branch_gives_copies_and_adds_their_gradients(training):
    layer = blocks.Branch(3)
    inputs = tf.constant([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        one, two, three = layer(inputs, training=training)
        value = tf.reduce_sum(one + 10 * two + 100 * three)
    assert float(value) == 111 * (1 + 2)
    np.testing.assert_array_equal(tape.gradient(value, inputs), [[111, 111]])


def test_two_consumers_need_no_branch():
    inputs = keras.Input((8, 8, 2))
    assert all(copy is inputs for copy in blocks.branch(inputs, 2, name="branch"))


def test_a_branch_survives_its_configuration():
    assert blocks.Branch.from_config(blocks.Branch(4).get_config()).copies == 4


def test_bilinear_doubling_is_bilinear_interpolation() -> None:
    image = np.random.default_rng(1).normal(size=(2, 5, 7, 3)).astype(np.float32)
    expected = tf.image.resize(image, (10, 14), method="bilinear")
    np.testing.assert_allclose(blocks.BilinearDoubling()(image), expected, atol=1e-6)


@pytest.mark.parametrize("architecture", ["unet", "unetpp", "attention_unet"])
@pytest.mark.parametrize("upsampling", blocks.UPSAMPLINGS)
def test_every_network_can_be_traced_for_pictures_of_any_size(
    architecture: str, upsampling: str
) -> None:
    model = build_model(
        architecture, in_channels=1, num_classes=2, depth=2, filters=2, dropout=0.0,
        normalisation="batch", upsampling=upsampling,
    )  # fmt: skip
    open_sizes = tf.TensorSpec((None, None, None, 1), tf.float32)
    traced = tf.function(lambda batch: model(batch, training=False), input_signature=[open_sizes])
    for size in ((8, 12), (16, 4)):
        image = np.ones((1, *size, 1), np.float32)
        np.testing.assert_allclose(traced(image), model(image, training=False), atol=1e-5)
