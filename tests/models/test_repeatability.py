"""The same seed gives the same bits, which TensorFlow does not promise of itself (see `blocks`)."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from tensorflow.python.eager import context

from src.models import ARCHITECTURES, LOSSES, blocks, build_loss, build_model
from src.models.data_parallel import gains_by_halves, share_cores
from src.models.normalisation import NORMALISATIONS
from tests.models.networks import EVERYTHING, SMALL, batch, compiled, trained

ROOT = Path(__file__).parents[2]


def consumers(model):
    """How many layers read each tensor; being an output of the model counts as one."""
    read = [id(output) for output in model.outputs]
    for layer in model.layers:
        for node in layer._inbound_nodes:
            read += [id(tensor) for tensor in node.input_tensors]
    return Counter(read)


def sums_of_the_training_step(model, *data):
    """How many tensors each addition of gradients takes, in the graph that TensorFlow runs.

    Its optimiser merges a tree of additions into one operation, so that the graph that was built
    says nothing.
    """
    context.enable_run_metadata()
    try:
        model.train_on_batch(*data)
        graphs = context.export_run_metadata().function_graphs
    finally:
        context.disable_run_metadata()
    optimised = [graph.post_optimization_graph for graph in graphs]
    nodes = [node for graph in optimised for node in graph.node]
    nodes += [
        n for graph in optimised for function in graph.library.function for n in function.node_def
    ]
    assert any("Conv2DBackprop" in node.op for node in nodes)  # it is the graph of a training
    return [
        sum(not name.startswith("^") for name in node.input)
        for node in nodes
        if node.op in ("AddN", "AccumulateNV2")
    ]


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("options", [SMALL, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_tensor_has_more_than_two_consumers(architecture, options, normalisation):
    model = build_model(architecture, **{**options, "depth": 3, "normalisation": normalisation})
    assert max(consumers(model).values()) == 2


@pytest.mark.parametrize(
    ("architecture", "normalisation"),
    [("unet", "none"), ("unetpp", "instance"), ("attention_unet", "batch")],
)
def test_a_training_step_never_adds_more_than_two_gradients_at_once(architecture, normalisation):
    model = compiled(
        architecture,
        filters=2,
        normalisation=normalisation,
        residual=True,
        deep_supervision=True,
    )
    assert max(sums_of_the_training_step(model, *batch())) == 2


def test_a_training_step_in_halves_does_not_either():
    model = compiled("unetpp", filters=2, normalisation="instance", deep_supervision=True)
    model.in_halves = True
    assert max(sums_of_the_training_step(model, *batch())) == 2


def test_the_training_step_of_a_tensor_with_three_readers_would(monkeypatch):
    # Were it otherwise, the test above would see nothing.
    monkeypatch.setattr(blocks, "branch", lambda tensor, copies, name: [tensor] * copies)
    assert max(sums_of_the_training_step(compiled("unetpp", filters=2), *batch())) > 2


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_never_adds_more_than_two_gradients_at_once(name):
    image = keras.Input((None, None, 1))
    logits = keras.layers.Conv2D(3, 1)(keras.layers.Conv2D(2, 1)(image))
    model = keras.Model(image, keras.layers.Softmax()(logits))
    loss = build_loss(name, num_classes=3, class_weights=(1, 2, 3))
    model.compile("sgd", loss=loss, jit_compile=False)
    assert max(sums_of_the_training_step(model, *batch()), default=0) <= 2


def test_the_same_seed_gives_the_same_weights_in_float32():
    one, other = (
        trained("unet", seed=1, steps=2, depth=1, normalisation="instance")[0].get_weights()
        for _ in range(2)
    )
    for weight, same in zip(one, other, strict=True):
        np.testing.assert_array_equal(weight, same)


def test_another_seed_gives_other_weights():
    one, other = (trained("unet", seed=seed, steps=0)[0].get_weights()[0] for seed in (1, 2))
    assert not np.array_equal(one, other)


def digest(normalisation):
    """Of the weights of a U-Net++ with all options on, after some steps in bfloat16."""
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    in_halves = gains_by_halves(normalisation)
    if in_halves:
        share_cores()
    model = compiled(
        "unetpp", filters=2, residual=True, deep_supervision=True, normalisation=normalisation
    )
    model.in_halves = in_halves
    for _ in range(5):
        model.train_on_batch(*batch())
    content = b"".join(weight.tobytes() for weight in model.get_weights())
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("normalisation", ["batch", "instance"])  # as a whole, in halves
def test_two_processes_train_to_the_same_bits(normalisation):
    program = (
        f"from tests.models.test_repeatability import digest; print(digest({normalisation!r}))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    one, other = (process.communicate()[0].strip() for process in running)
    assert len(one) == 64  # sixty-four hexadecimal digits: both ran to the end
    assert one == other
