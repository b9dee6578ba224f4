import numpy as np
import pytest

from src.models import ARCHITECTURES, build_model, inference_model
from src.models.dropout import monte_carlo, reseed_dropout
from tests.models.networks import EVERYTHING

PICTURES = np.random.default_rng(5).normal(size=(2, 16, 16, EVERYTHING["in_channels"]))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_epoch_and_layer_draws_a_dropout_of_its_own(architecture):
    model = build_model(architecture, **EVERYTHING)
    dropouts = [layer for layer in model.layers if "dropout" in layer.name]
    states = set()
    for epoch in (0, 1, 0):
        reseed_dropout(model, seed=3, epoch=epoch)
        states |= {tuple(np.array(layer.seed_generator.state)) for layer in dropouts}
    assert len(states) == 2 * len(dropouts) > 0  # epochs x layers


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_monte_carlo_runs_differ_and_centre_on_the_network_without_dropout(architecture):
    model = inference_model(build_model(architecture, **EVERYTHING))
    sampled = monte_carlo(model)
    pictures = PICTURES.astype(np.float32)
    runs = np.stack([sampled(pictures, training=False) for _ in range(8)])
    assert np.ptp(runs, axis=0).max() > 1e-3
    alone = np.asarray(model(pictures, training=False))
    assert np.abs(runs.mean(axis=0) - alone).mean() < np.abs(runs - alone).mean()
    # Nothing but dropout is as in training: normalisation keeps its moving averages.
    assert all(
        np.array_equal(left, right)
        for left, right in zip(model.get_weights(), sampled.get_weights(), strict=True)
    )


def test_monte_carlo_runs_can_be_repeated():
    sampled = monte_carlo(inference_model(build_model("unet", **EVERYTHING)))
    pictures = PICTURES.astype(np.float32)
    runs = []
    for _ in range(2):
        reseed_dropout(sampled, seed=1, epoch=0)
        runs.append(np.asarray(sampled(pictures, training=False)))
    np.testing.assert_array_equal(*runs)


def test_a_network_without_dropout_has_no_monte_carlo_runs():
    assert monte_carlo(build_model("unet", **{**EVERYTHING, "dropout": 0.0})) is None
