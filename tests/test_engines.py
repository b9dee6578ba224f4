"""The choice of what runs a network, and OpenVINO as it is used for segmenting."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from src.engine_export import export
from src.engines import FOLDER, SHAPES_KEPT, openvino_engine, shared_out, why_keras
from src.inference import load_segmenter
from src.tiling import Tiling
from tests.tiny_models import NATIVE, expected_mask, save_threshold_model, save_unet

ROOT = Path(__file__).parent.parent


def exported(folder: Path) -> Path:
    """Adds engine/ to a model folder."""
    export(load_segmenter(folder, "keras").model, folder, "float32")
    return folder


@pytest.fixture(scope="module")
def thresholds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(save_threshold_model(tmp_path_factory.mktemp("models") / "threshold"))


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(save_unet(tmp_path_factory.mktemp("models") / "unet", NATIVE))


def slices(*sizes: tuple[int, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [generator.choice([-80.0, -20.0, 20.0, 80.0], size).astype(np.float32) for size in sizes]


# --- The choice -----------------------------------------------------------------------------------


def test_openvino_runs_what_was_exported_where_there_is_no_gpu(thresholds: Path) -> None:
    assert why_keras("auto", thresholds, gpu=False) == ""
    assert why_keras("auto", thresholds, gpu=True) == "there is a GPU"
    assert why_keras("openvino", thresholds, gpu=True) == ""
    assert why_keras("keras", thresholds, gpu=False) == "as asked for"


def test_a_folder_without_the_files_falls_back_to_keras_and_says_so(
    thresholds: Path, tmp_path: Path
) -> None:
    shutil.copytree(thresholds, tmp_path / "m", ignore=shutil.ignore_patterns(FOLDER))
    segmenter = load_segmenter(tmp_path / "m", "openvino")
    assert segmenter.engine_note.startswith("Keras: m has no engine/ for OpenVINO: run.json says")
    [image] = slices((6, 7))
    np.testing.assert_array_equal(segmenter.masks([image])[0], expected_mask(image))


def test_an_engine_of_other_weights_is_not_used(
    thresholds: Path, unet: Path, tmp_path: Path
) -> None:
    shutil.copytree(thresholds, tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / FOLDER)
    shutil.copytree(unet / FOLDER, tmp_path / "m" / FOLDER)
    why = why_keras("openvino", tmp_path / "m")
    assert why == "engine/ in m holds other weights than model.keras"
    assert load_segmenter(tmp_path / "m", "openvino").engine_note == f"Keras: {why}"


def test_a_card_of_another_network_is_refused(unet: Path, tmp_path: Path) -> None:
    shutil.copytree(unet, tmp_path / "m")
    path = tmp_path / "m" / "model.json"
    path.write_text(path.read_text().replace('"context": 0', '"context": 1'), encoding="utf-8")
    expected = r"describes a unet of 3 channels and 3 classes, model\.keras holds a unet of 1 chan"
    with pytest.raises(ValueError, match=expected):
        load_segmenter(tmp_path / "m", "openvino")


def test_an_unknown_engine_is_refused_with_the_known_ones(unet: Path) -> None:
    with pytest.raises(ValueError, match=r"must be auto, keras or openvino, got 'onnx'\. Mend --e"):
        load_segmenter(unet, "onnx")


def test_what_the_card_says_is_done_unless_told_otherwise(unet: Path, tmp_path: Path) -> None:
    shutil.copytree(unet, tmp_path / "m")
    path = tmp_path / "m" / "model.json"
    path.write_text(path.read_text().replace('"auto"', '"keras"'), encoding="utf-8")
    assert load_segmenter(tmp_path / "m").engine.name == "keras"
    assert load_segmenter(tmp_path / "m", "openvino").engine.name == "openvino"


def test_a_model_that_was_saved_before_there_was_a_choice_is_read(
    unet: Path, tmp_path: Path
) -> None:
    shutil.copytree(unet, tmp_path / "m")
    path = tmp_path / "m" / "model.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["engine"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert load_segmenter(tmp_path / "m").card.engine == "auto"


# --- OpenVINO -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "streams", "expected"),
    [
        (1, 2, [1]),
        (3, 2, [1, 1, 1]),
        (5, 2, [2, 2, 1]),
        (8, 2, [4, 4]),
        (10, 2, [4, 4, 1, 1]),
        (8, 16, [1] * 8),
        (0, 2, []),
    ],
)
def test_every_stream_gets_slices_and_no_slice_is_left_out(
    number: int, streams: int, expected: list[int]
) -> None:
    parts = list(shared_out(number, streams))
    assert [part.stop - part.start for part in parts] == expected
    assert [row for part in parts for row in range(number)[part]] == list(range(number))


def test_slices_of_many_sizes_get_their_own_masks(thresholds: Path) -> None:
    segmenter = load_segmenter(thresholds, "openvino")
    images = slices(*[(4 + n % (SHAPES_KEPT + 3), 5) for n in range(2 * SHAPES_KEPT + 6)])
    for mask, image in zip(segmenter.masks(images, batch_size=2), images, strict=True):
        np.testing.assert_array_equal(mask, expected_mask(image))


def test_the_same_slices_give_the_same_bits_alone_in_batches_and_from_many_threads(
    unet: Path,
) -> None:
    images = slices(*[(16, 24)] * 12)
    first = load_segmenter(unet, "openvino").probabilities(images, batch_size=5)
    again = load_segmenter(unet, "openvino")
    np.testing.assert_array_equal(again.probabilities(images, batch_size=1), first)
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda image: again.probabilities([image])[0], images))
    np.testing.assert_array_equal(together, first)


def test_what_was_given_for_one_slice_does_not_change_with_the_next(unet: Path) -> None:
    forward = openvino_engine(unet / FOLDER).forward
    pictures = np.random.default_rng(2).normal(0, 1, (2, 1, 8, 8, 1)).astype(np.float32)
    first = forward(pictures[0])
    kept = first.copy()
    forward(pictures[1])
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_results_lie_class_by_class_however_the_network_ends(
    tmp_path: Path, activation: str
) -> None:
    import keras

    from src.model_files import save_model
    from tests.tiny_models import card

    inputs = keras.Input((None, None, 1))
    outputs = keras.layers.Conv2D(3, 3, padding="same", activation=activation)(inputs)
    model = keras.Model(inputs, outputs, name="tiny")
    save_model(tmp_path, model, card(architecture="tiny", depth=0), NATIVE)
    forward = openvino_engine(exported(tmp_path) / FOLDER).forward
    batch = np.random.default_rng(2).normal(0, 1, (2, 5, 7, 1)).astype(np.float32)
    found = forward(batch)
    np.testing.assert_allclose(found, np.asarray(model(batch)), atol=1e-5)
    assert np.moveaxis(found, -1, 1).flags.c_contiguous


def test_patches_and_flips_are_as_by_keras(unet: Path) -> None:
    images = slices((20, 28))
    found = [
        load_segmenter(unet, engine)
        .changed(tiling=Tiling((16, 16), 0.5), flips=True)
        .probabilities(images)[0]
        for engine in ("openvino", "keras")
    ]
    np.testing.assert_allclose(*found, atol=1e-5)


def test_dropout_is_left_to_keras(tmp_path: Path) -> None:
    from src.model_files import save_model
    from tests.models.networks import compiled
    from tests.tiny_models import card

    save_model(tmp_path, compiled("unet", dropout=0.5), card(), NATIVE)
    segmenter = load_segmenter(exported(tmp_path), "openvino")
    sampled = segmenter.with_dropout(seed=3)
    assert sampled is not None
    assert sampled.engine.name == "keras"
    image = slices((8, 8))
    assert np.abs(sampled.probabilities(image)[0] - segmenter.probabilities(image)[0]).max() > 1e-3


def test_segmenting_starts_no_tensorflow_and_tells_nobody(thresholds: Path) -> None:
    code = (
        "import sys\n"
        "calls = []\n"
        "sys.addaudithook(lambda event, _: calls.append(event)\n"
        "                 if event in ('socket.connect', 'socket.getaddrinfo') else None)\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from src.inference import load_segmenter\n"
        f"segmenter = load_segmenter(Path({str(thresholds)!r}), 'openvino')\n"
        "mask = segmenter.masks(np.full((1, 8, 8), 80, np.float32))[0]\n"
        "print(int(mask.sum()), segmenter.engine.name, calls)\n"
        "slow = {'tensorflow', 'keras', 'mlflow', 'pandas'}\n"
        "print('LOADED', sorted(slow & set(sys.modules)))\n"
        "print('TELEMETRY', sys.modules.get('openvino_telemetry'))\n"
        "print('CONVERTER', sys.modules.get('openvino.tools.ovc'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "128 openvino []",
        "LOADED []",
        "TELEMETRY None",
        "CONVERTER None",
    ]
