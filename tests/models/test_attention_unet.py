import keras
import numpy as np
import pytest

from src.models import blocks, build_model
from tests.models.networks import DEMO, PAPER, SMALL, channels, unet_parameters


def gate_parameters(f):
    between = f // 2
    return 4 * f * between + 2 * f * between + between + between + 1


@pytest.mark.parametrize(("design", "expected"), [(PAPER, 32_076_102), (DEMO, 2_010_791)])
def test_the_networks_of_the_docstring_have_their_parameters(design, expected):
    gates = sum(gate_parameters(f) for f in channels(design)[:-1])
    count = build_model("attention_unet", **design).count_params()
    assert count == unet_parameters(design) + gates == expected


def gate_with(psi, bias):
    """A gate on ones: Wx 1, Wg 1, bg 1; so ReLU(8 + 2 + 1) = 11, from 2 x 2 x 2 and 2 ones."""
    skip, gating = keras.Input((None, None, 2)), keras.Input((None, None, 2))
    model = keras.Model([skip, gating], blocks.attention_gate([skip, skip], gating, name="gate"))
    model.get_layer("gate_skip").set_weights([np.ones((2, 2, 2, 1))])
    model.get_layer("gate_gating").set_weights([np.ones((1, 1, 2, 1)), np.ones(1)])
    model.get_layer("gate_psi").set_weights([np.full((1, 1, 1, 1), psi), np.full(1, bias)])
    return model([np.ones((1, 4, 4, 2)), np.ones((1, 2, 2, 2))]).numpy()


def test_a_gate_multiplies_by_the_sigmoid_of_both_inputs():
    # sigmoid(11 psi + bias): of 0, and of ln 3.
    np.testing.assert_allclose(gate_with(psi=0.1, bias=-1.1), 0.5, rtol=1e-5)
    np.testing.assert_allclose(gate_with(psi=0.1, bias=np.log(3) - 1.1), 0.75, rtol=1e-5)


def test_gates_are_open_at_first():
    model = build_model("attention_unet", **SMALL)
    coefficients = keras.Model(
        model.inputs[0], [model.get_layer(f"decoder{level}_gate_resize").output for level in (0, 1)]
    )
    of_full_size, of_half = coefficients(np.zeros((1, 8, 12, 1)))
    assert of_full_size.shape == (1, 8, 12, 1)
    assert of_half.shape == (1, 4, 6, 1)
    # A black picture leaves the bias alone: 1 / (1 + exp(-3)).
    np.testing.assert_allclose(of_full_size, 0.952574, rtol=1e-5)
