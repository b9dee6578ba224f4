import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from src.models import ARCHITECTURES, build_model
from src.models.data_parallel import by_halves, gains_by_halves
from tests.models.networks import EVERYTHING, SMALL, batch, compiled

ROOT = Path(__file__).parents[2]
# Nothing that draws or that looks at several pictures: the halves must then be exact.
PLAIN = {"normalisation": "instance", "dropout": 0.0}


def outputs(result):
    return result if isinstance(result, list) else [result]


def weights_after(steps, *, in_halves, **changes):
    model = compiled("unet", **{**PLAIN, **changes})
    model.in_halves = in_halves
    for _ in range(steps):
        model.train_on_batch(*batch())
    return model.get_weights()


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("options", [SMALL, EVERYTHING], ids=["one output", "several"])
def test_the_halves_give_what_the_whole_gives(options, size):
    model = build_model("unet", **{**options, **PLAIN})
    images = batch()[0][:size]
    whole = model(images)
    model.in_halves = True
    for found, expected in zip(outputs(model(images)), outputs(whole), strict=True):
        # Kernels add in another order for another number of pictures.
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_each_half_is_given_its_pictures_alone():
    given = []

    def network(part):
        given.append(np.asarray(part).ravel().tolist())
        return part

    found = by_halves(network, np.arange(5.0).reshape(5, 1, 1, 1))
    assert given == [[0, 1, 2], [3, 4]]
    np.testing.assert_array_equal(np.ravel(found), np.arange(5.0))


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_training_in_halves_finds_the_same_weights(deep_supervision):
    start = weights_after(0, in_halves=False, deep_supervision=deep_supervision)
    one, other = (
        weights_after(1, in_halves=choice, deep_supervision=deep_supervision)
        for choice in (False, True)
    )
    for before, weight, same in zip(start, one, other, strict=True):
        # One step of Adam moves a weight by 0.01 either way, however small its gradient is: where
        # that is rounding alone, as of a bias before a normalisation, the way may differ.
        assert np.mean(np.abs(weight - same) > 1e-4) < 0.02
        assert np.array_equal(before, weight) == np.array_equal(before, same)


def test_batch_normalisation_would_not_be_the_same(monkeypatch):
    # Were it otherwise, nothing would be gained by leaving it out.
    model = compiled("unet", normalisation="batch", dropout=0.0)
    whole = np.asarray(model(batch()[0], training=True))
    model.in_halves = True
    assert np.abs(np.asarray(model(batch()[0], training=True)) - whole).max() > 1e-3
    assert not gains_by_halves("batch")


def test_a_single_core_has_nothing_to_share(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert not gains_by_halves("instance")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_saved_knows_nothing_of_halves(tmp_path, architecture):
    from src.models import inference_model

    model = build_model(architecture, **SMALL)
    model.in_halves = True
    inference_model(model).save(tmp_path / "model.keras")
    assert type(keras.saving.load_model(tmp_path / "model.keras")).__name__ == "Functional"


THREADS = """
import tensorflow as tf
from src.models import data_parallel
data_parallel.cores = lambda: {cores}
{before}
data_parallel.share_cores()
tf.constant(1.0)
threading = tf.config.threading
print(threading.get_inter_op_parallelism_threads(), threading.get_intra_op_parallelism_threads())
"""


@pytest.mark.parametrize(
    ("cores", "before", "expected"),
    [(2, "", "2 1"), (5, "", "2 3"), (2, "tf.constant(1.0)", "0 0")],
    ids=["one each", "an odd number", "already started"],
)
def test_each_half_has_cores_of_its_own(cores, before, expected):
    program = THREADS.format(cores=cores, before=before)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
