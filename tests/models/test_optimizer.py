import keras
import numpy as np
import pytest

from src.models.optimizer import FusedAdam


def trained(optimizer, *, steps=5, dtype="float32"):
    """Weights after steps along gradients that change, and the optimiser."""
    random = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 2, 4), "bias": (4,)}
    variables = [
        keras.Variable(random.normal(size=shape), name=name, dtype=dtype)
        for name, shape in shapes.items()
    ]
    optimizer.build(variables)
    for step in range(steps):
        optimizer.learning_rate = 0.01 * (step + 1)
        gradients = [random.normal(size=shape).astype(np.float32) for shape in shapes.values()]
        optimizer.apply([keras.ops.cast(gradient, dtype) for gradient in gradients], variables)
    return [keras.ops.convert_to_numpy(v) for v in variables], optimizer


@pytest.mark.parametrize("decay", [None, 0.1])
def test_weights_and_state_are_those_of_keras(decay):
    found, ours = trained(FusedAdam(weight_decay=decay))
    expected, peer = trained(keras.optimizers.Adam(weight_decay=decay))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-6)
    for a, b in zip(ours.variables, peer.variables, strict=True):
        assert a.name == b.name
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=3e-6)


def test_with_decay_it_is_adamw():
    found, _ = trained(FusedAdam(weight_decay=0.1))
    expected, _ = trained(keras.optimizers.AdamW(weight_decay=0.1))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-6)


def test_a_step_by_hand():
    # The first step of Adam goes by the learning rate against the sign of the gradient, after the
    # decay of 10 % times the learning rate.
    variable = keras.Variable([1.0, -2.0], name="kernel")
    optimizer = FusedAdam(0.5, weight_decay=0.1)
    optimizer.build([variable])
    optimizer.apply([keras.ops.convert_to_tensor([3.0, -1.0])], [variable])
    np.testing.assert_allclose(np.asarray(variable), [0.95 - 0.5, -1.9 + 0.5], atol=3e-6)


def test_the_scale_of_a_normalisation_is_not_decayed_where_it_is_excluded():
    variable = keras.Variable([1.0], name="gamma")
    optimizer = FusedAdam(0.5, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["gamma"])
    optimizer.build([variable])
    optimizer.apply([keras.ops.convert_to_tensor([0.0])], [variable])
    assert float(np.asarray(variable)[0]) == 1.0


def test_variables_of_another_type_go_to_keras():
    found, _ = trained(FusedAdam(weight_decay=0.1), dtype="float64")
    expected, _ = trained(keras.optimizers.Adam(weight_decay=0.1), dtype="float64")
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
