import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from src.models import normalisation

SHAPE = (3, 4, 5, 2)


def pair_of_layers(dtype="float32", **arguments):
    """The layer under test and Keras' own, with the same weights that are not the initial ones."""
    layers = [
        kind(momentum=0.9, dtype=dtype, **arguments)
        for kind in (normalisation.BatchNormalization, keras.layers.BatchNormalization)
    ]
    rng = np.random.default_rng(0)
    for layer in layers:
        layer.build(SHAPE)
    values = [rng.uniform(0.5, 2.0, weight.shape) for weight in layers[0].weights]
    for layer in layers:
        layer.set_weights(values)
    return layers


def outputs_and_gradients(layer, inputs, training):
    weights = tf.constant(np.random.default_rng(1).normal(size=inputs.shape), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=training)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights)
    sources = [inputs, *[weight.value for weight in layer.trainable_weights]]
    return outputs, tape.gradient(loss, sources)


def inputs_of(dtype="float32", shape=SHAPE):
    values = np.random.default_rng(2).normal(3.0, 2.0, shape)
    return tf.cast(tf.constant(values), dtype)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("arguments", [{}, {"scale": False, "center": False}])
def test_fused_normalisation_agrees_with_keras_forward_backward_and_in_its_weights(
    training, arguments
):
    results = [
        (*outputs_and_gradients(layer, inputs_of(), training), layer.get_weights())
        for layer in pair_of_layers(**arguments)
    ]
    (outputs, gradients, weights), (expected, expected_gradients, expected_weights) = results
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    for value, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-5)
    for value, other in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-5)


def test_fused_normalisation_agrees_with_keras_under_mixed_precision():
    ours, theirs = pair_of_layers(dtype="mixed_bfloat16")
    outputs, gradients = outputs_and_gradients(ours, inputs_of("bfloat16"), training=True)
    expected, expected_gradients = outputs_and_gradients(theirs, inputs_of("bfloat16"), True)
    assert outputs.dtype == expected.dtype == tf.bfloat16
    # bfloat16 has 8 significant bits: neighbours differ by 2 ** -8 = 0.4 %.
    np.testing.assert_allclose(
        tf.cast(outputs, tf.float32), tf.cast(expected, tf.float32), rtol=0.01, atol=0.01
    )
    for value, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(
            tf.cast(value, tf.float32), tf.cast(other, tf.float32), rtol=0.02, atol=0.03
        )
    for value, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-4)


def test_moving_statistics_move_by_a_tenth_towards_mean_and_biased_variance():
    layer = normalisation.BatchNormalization()
    layer(tf.constant([0.0, 2.0, 4.0, 6.0], shape=(1, 2, 2, 1)), training=True)
    # Mean 3, variance (9 + 1 + 1 + 9) / 4 = 5; from mean 0, variance 1.
    np.testing.assert_allclose(layer.moving_mean, [0.9 * 0 + 0.1 * 3], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, [0.9 * 1 + 0.1 * 5], rtol=1e-6)


def test_a_single_pixel_has_variance_zero():
    layer = normalisation.BatchNormalization()
    layer(tf.constant(7.0, shape=(1, 1, 1, 1)), training=True)
    np.testing.assert_allclose(layer.moving_variance, [0.9], rtol=1e-6)


def test_a_frozen_layer_keeps_its_statistics():
    layer, _ = pair_of_layers()
    layer.trainable = False
    before = layer.get_weights()
    layer(inputs_of(), training=True)
    for value, other in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize("axis", [-1, 1])
def test_what_the_kernel_cannot_do_is_left_to_keras(axis):
    shape = (3, 4, 5) if axis == -1 else (3, 2, 4, 5)
    inputs = inputs_of(shape=shape)
    ours, theirs = (
        kind(axis=axis, momentum=0.9)
        for kind in (normalisation.BatchNormalization, keras.layers.BatchNormalization)
    )
    np.testing.assert_array_equal(ours(inputs, training=True), theirs(inputs, training=True))
    np.testing.assert_array_equal(ours.moving_variance, theirs.moving_variance)


def test_another_keras_backend_computes_the_same():
    pytest.importorskip("jax", reason="the other backends of Keras need jax or torch")
    program = """
import numpy as np
from src.models import normalisation
layer = normalisation.BatchNormalization()
outputs = layer(np.array([0.0, 2.0, 4.0, 6.0], "float32").reshape(1, 2, 2, 1), training=True)
print(*np.ravel(outputs), *np.ravel(layer.moving_mean), *np.ravel(layer.moving_variance))
"""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=True,
    )
    values = [float(word) for word in finished.stdout.split()]
    deviation = np.sqrt(5 + 1e-3)  # of 0, 2, 4, 6, with epsilon
    expected = [*(np.array([-3, -1, 1, 3]) / deviation), 0.3, 1.4]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_normalisation_has_the_weight_names_of_keras():
    ours, theirs = pair_of_layers()
    assert [weight.name for weight in ours.weights] == [weight.name for weight in theirs.weights]


def test_normalisation_survives_its_configuration():
    layer = normalisation.BatchNormalization(momentum=0.8)
    assert normalisation.BatchNormalization.from_config(layer.get_config()).momentum == 0.8


def test_instance_normalisation_gives_each_channel_of_each_picture_mean_0_and_deviation_1():
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, normalisation.normalise(inputs, "instance", name="norm"))
    outputs = model(inputs_of(shape=(3, 8, 8, 2))).numpy()
    np.testing.assert_allclose(outputs.mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(outputs.std(axis=(1, 2)), 1, atol=1e-3)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_instance_normalisation_agrees_with_keras_forward_and_backward(dtype, training):
    policy = "mixed_bfloat16" if dtype == "bfloat16" else dtype
    results = []
    for kind, arguments in (
        (normalisation.InstanceNormalization, {}),
        (keras.layers.GroupNormalization, {"groups": -1}),
    ):
        layer = kind(dtype=policy, **arguments)
        layer.build(SHAPE)
        layer.set_weights([np.array([0.5, 2.0]), np.array([-1.0, 1.0])])
        outputs, gradients = outputs_and_gradients(layer, inputs_of(dtype), training)
        assert outputs.dtype == dtype
        results.append([tf.cast(value, tf.float32) for value in (outputs, *gradients)])
    tolerance = 0.02 if dtype == "bfloat16" else 1e-4
    for value, other in zip(*results, strict=True):
        np.testing.assert_allclose(value, other, rtol=tolerance, atol=tolerance)


def test_instance_normalisation_survives_its_configuration():
    layer = normalisation.InstanceNormalization(epsilon=0.1)
    assert normalisation.InstanceNormalization.from_config(layer.get_config()).epsilon == 0.1


def test_an_unknown_normalisation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"normalisation must be one of .*'batch'.*got 'layer'"):
        normalisation.normalise(keras.Input((8, 8, 2)), "layer", name="norm")
