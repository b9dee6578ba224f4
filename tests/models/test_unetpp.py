import numpy as np
import pytest

from src.models import build_model
from tests.models.networks import (
    DEMO,
    PAPER,
    SMALL,
    block_parameters,
    channels,
    encoder_parameters,
)


def unetpp_parameters(design):
    """The encoder; X(i, j), j >= 1, with (j + 1) f inputs, and what scales up to it; a head."""
    batch_norm = design["normalisation"] == "batch"
    nodes = sum(
        8 * f * f + f + block_parameters((j + 1) * f, f, batch_norm=batch_norm)
        for i, f in enumerate(channels(design))
        for j in range(1, design["depth"] - i + 1)
    )
    return encoder_parameters(design) + nodes + (design["filters"] + 1) * design["num_classes"]


@pytest.mark.parametrize(
    ("design", "expected"),
    [(PAPER, 36_156_866), ({**PAPER, "filters": 32}, 9_041_634), (DEMO, 2_267_107)],
    ids=["64", "32", "demo"],
)
def test_the_networks_of_the_docstring_have_their_parameters(design, expected):
    assert build_model("unetpp", **design).count_params() == unetpp_parameters(design) == expected


def test_a_node_reads_all_to_its_left_and_the_one_below():
    model = build_model("unetpp", **{**SMALL, "depth": 3})
    widths = {
        f"node{i}_{j}": model.get_layer(f"node{i}_{j}_join").output.shape[-1]
        for i in range(3)
        for j in range(1, 4 - i)
    }
    # (j + 1) x 4 x 2 ** i channels: j from the left, one from below.
    assert widths == {
        "node0_1": 8,
        "node0_2": 12,
        "node0_3": 16,
        "node1_1": 16,
        "node1_2": 24,
        "node2_1": 32,
    }


def test_with_depth_1_it_is_the_unet():
    design = {**SMALL, "depth": 1}
    nested, plain = (build_model(name, **design) for name in ("unetpp", "unet"))
    nested.set_weights(plain.get_weights())
    images = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype(np.float32)
    np.testing.assert_array_equal(nested(images), plain(images))


def test_each_further_head_sees_one_level_less():
    model = build_model("unetpp", **SMALL, deep_supervision=True)
    images = np.zeros((1, 32, 32, 1), np.float32)
    before = [output.numpy() for output in model(images)]
    model.get_layer("bottleneck_norm2").beta.assign(np.ones(16))
    main, pruned = (output.numpy() for output in model(images))
    assert not np.array_equal(main, before[0])
    np.testing.assert_array_equal(pruned, before[1])
