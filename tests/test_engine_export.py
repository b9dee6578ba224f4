"""Networks written for OpenVINO, beside the same networks run by Keras."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.data.arrays import Arrays
from src.engine_export import export, export_checked, validation_dice
from src.engines import FOLDER, Identity, openvino_engine
from src.inference import Segmenter, load_segmenter
from src.model_files import save_model
from tests.models.networks import SMALL, batch, trained
from tests.tiny_models import CLASSES, NATIVE, card

ALL_FILES = ["engine.json", "network.bin", "network.xml"]


@pytest.fixture(scope="module")
def network():
    """A U-Net that has learnt to tell discs by their grey value."""
    return trained("unet", steps=80)[0]


@pytest.fixture
def saved(tmp_path: Path, network) -> Segmenter:
    """The same in a folder, run by Keras."""
    save_model(tmp_path, network, card(parameters=1), NATIVE)
    return load_segmenter(tmp_path, "keras")


def discs() -> Arrays:
    """Two patients of two slices each."""
    images, truth = batch()
    index = pd.DataFrame(
        {
            "pseudonym": ["a", "a", "b", "b"],
            "subset": "validation",
            "volume": [0, 0, 1, 1],
            "position": [0, 1, 0, 1],
            "offset": np.arange(4) * 256,
            "height": 16,
            "width": 16,
        }
    )
    return Arrays(images.astype(np.float16).ravel(), truth.ravel(), index, NATIVE, CLASSES)


ROWS = np.arange(4)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("unet", {}),
        ("unet", {"normalisation": "none", "upsampling": "nearest", "residual": True}),
        ("unetpp", {"normalisation": "instance", "upsampling": "bilinear"}),
        ("unetpp", {}),
        ("attention_unet", {"in_channels": 3}),
        ("attention_unet", {"normalisation": "instance", "upsampling": "nearest"}),
    ],
)
def test_openvino_gives_the_probabilities_of_keras_at_any_size(
    tmp_path: Path, architecture: str, changes: dict
) -> None:
    import keras

    from src.models import build_model

    keras.utils.set_random_seed(5)
    design = SMALL | changes
    model = build_model(architecture, **design)
    model.save(tmp_path / "model.keras")
    engine = openvino_engine(export(model, tmp_path, "float32"))
    random = np.random.default_rng(1)
    for shape in ((3, 16, 24), (1, 40, 8)):
        pictures = random.normal(0, 1, (*shape, design["in_channels"])).astype(np.float32)
        found = engine.forward(pictures)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, model(pictures, training=False), atol=2e-5)


def test_in_bfloat16_the_masks_of_a_trained_network_stay_what_they_are(
    tmp_path: Path, network, saved: Segmenter
) -> None:
    images, truth = batch()
    engine = openvino_engine(export(network, tmp_path, "bfloat16"))
    found, expected = engine.forward(images), np.asarray(network(images, training=False))
    np.testing.assert_allclose(found, expected, atol=0.05)
    by_keras, by_openvino = ((p.argmax(-1) == truth).mean() for p in (expected, found))
    assert by_keras > 0.98
    assert abs(by_keras - by_openvino) < 0.01


def test_a_network_of_mixed_precision_is_written_without_its_casts(tmp_path: Path) -> None:
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model, _ = trained("unet", steps=3)
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "model.keras")
    folder = export(model, tmp_path, "float32")
    assert "bf16" not in (folder / "network.xml").read_text(encoding="utf-8")
    images, _ = batch()
    exact = openvino_engine(folder).forward(images)
    np.testing.assert_allclose(exact, model(images, training=False), atol=0.05)
    assert Identity.load(folder).architecture == "unet"


def test_the_same_weights_give_the_same_bytes_whatever_was_built_before(
    tmp_path: Path, network
) -> None:
    import keras

    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        network.save(folder / "model.keras")
        export(network, folder, "float32")
        trained("unetpp", steps=1)  # TensorFlow goes on counting
        network = keras.models.clone_model(network)
        network.set_weights(keras.models.load_model(folder / "model.keras").get_weights())
    for name in ("network.xml", "network.bin"):
        assert (first / FOLDER / name).read_bytes() == (second / FOLDER / name).read_bytes()
    assert str(tmp_path) not in (first / FOLDER / "network.xml").read_text(encoding="utf-8")


def test_a_network_that_segments_as_keras_does_is_kept(tmp_path: Path, saved: Segmenter) -> None:
    assert validation_dice(saved, discs(), ROWS)[1] > 0.9
    said = export_checked(saved, tmp_path, discs(), ROWS)
    assert said.startswith("openvino: Dice of the validation patients within ")
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ALL_FILES
    again = load_segmenter(tmp_path, "openvino")
    assert again.engine_note.startswith("OpenVINO ")
    for mask, expected in zip(again.masks(hu()), saved.masks(hu()), strict=True):
        assert (mask == expected).mean() > 0.99


def hu() -> np.ndarray:
    """The discs in HU: the window of NATIVE has 200 HU around 0, normalised to -0.5 to 0.5."""
    return batch()[0][..., 0] * 200


def test_a_network_that_segments_otherwise_is_not_kept_and_the_difference_is_said(
    tmp_path: Path, saved: Segmenter
) -> None:
    other = Segmenter(trained("unet", steps=1, seed=4)[0], NATIVE, saved.card)
    dice = validation_dice(other, discs(), ROWS)
    said = export_checked(saved, tmp_path, discs(), ROWS, dice)
    assert said.startswith("keras: OpenVINO gave a Dice of the validation patients within ")
    assert said.endswith(" of that by Keras, more than 0.001")
    assert not (tmp_path / FOLDER).exists()


def test_a_network_that_openvino_cannot_read_stays_with_keras(tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    @keras.saving.register_keras_serializable(package="tests")
    class Unknown(keras.layers.Layer):
        def call(self, inputs):
            return tf.raw_ops.Betainc(a=inputs, b=inputs, x=inputs)

    inputs = keras.Input((None, None, 1))
    features = Unknown()(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1, activation="softmax")(features))
    save_model(tmp_path, model, card(), NATIVE)
    segmenter = Segmenter(model, NATIVE, card())
    said = export_checked(segmenter, tmp_path, discs(), ROWS, np.zeros(3))
    assert said.startswith("keras: OpenVINO cannot run the network (")
    assert "Betainc" in said
    assert "\n" not in said
    assert not (tmp_path / FOLDER).exists()


def test_nothing_is_written_where_keras_is_asked_for(tmp_path: Path, saved: Segmenter) -> None:
    asked = saved.changed(engine="keras")
    said = export_checked(asked, tmp_path, discs(), ROWS, np.zeros(3))
    assert said == "keras: as inference.engine asks for"
    assert not (tmp_path / FOLDER).exists()
