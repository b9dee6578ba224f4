from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from src import tracking
from tests.tracking.conftest import TAGS, finished_run, python


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that calls everything above the window's middle class 1, and so on: three classes."""
    import keras

    from src.data.preprocessing import Preprocessing
    from src.model_files import ModelCard, save_model

    picture = keras.Input((None, None, 1))
    layer = keras.layers.Conv2D(3, 1, activation="softmax")
    model = keras.Model(picture, layer(picture), name="unet")
    # Scores 0, 40 x - 20 and 0 for a windowed value x: class 1 wins above x = 0.5.
    layer.set_weights([np.array([0, 40, 0], "f4").reshape(1, 1, 1, 3), np.array([0, -20, 0], "f4")])
    settings = Preprocessing(-100, 100, 0.0, 1.0, "native", (1, 1), 1)
    card = ModelCard("unet", ("background", "organ", "lesion"), 0, (1.0, 1.0), 6, "float32")
    folder = tmp_path_factory.mktemp("models") / "unet"
    save_model(folder, model, card, settings)
    return folder


@pytest.fixture(scope="module")
def logged(store: tracking.Store, model_folder: Path) -> tuple[str, str]:
    """A run and the address of its model."""
    parameters = {"train": {"epochs": 2}}
    with tracking.start_run(store, "unet, 3f9c1e", parameters=parameters, tags=TAGS) as run:
        return run.run_id, tracking.log_model(run, model_folder, packages=("numpy",))


def test_a_logged_model_names_its_requirements_signature_and_no_repository_address(
    store: tracking.Store, logged: tuple[str, str]
) -> None:
    import mlflow

    _, uri = logged
    folder = Path(mlflow.artifacts.download_artifacts(uri))
    pinned = (folder / "requirements.txt").read_text().split()
    assert pinned == [f"mlflow=={mlflow.__version__}", f"numpy=={np.__version__}"]
    signature = mlflow.models.get_model_info(uri).signature.to_dict()
    assert json.loads(signature["inputs"])[0]["tensor-spec"] == {
        "dtype": "float32",
        "shape": [-1, -1, -1],
    }
    assert json.loads(signature["outputs"])[0]["tensor-spec"]["dtype"] == "uint8"
    assert json.loads(signature["params"])[0]["default"] == "mask"
    assert not list(folder.rglob("__pycache__"))
    tags = store.client.get_logged_model(uri.removeprefix("models:/")).tags
    assert tags["mlflow.source.git.repoURL"] == ""
    assert "/" not in tags["mlflow.source.name"]


def test_a_model_folder_that_is_missing_is_an_error(store: tracking.Store, tmp_path: Path) -> None:
    run = tracking.Run(store, "0" * 32)
    with pytest.raises(FileNotFoundError, match=r"no model folder at .*unet. Run: dvc repro"):
        tracking.log_model(run, tmp_path / "unet", packages=("numpy",))


def register(store: tracking.Store, run_id: str, uri: str, name: str) -> tracking.RegisteredVersion:
    return tracking.register_champion(
        store, run_id, uri, name=name, description="# Card", reason="validation/dice/mean 0.81"
    )


def test_the_champion_runs_in_a_clean_process(
    store: tracking.Store, logged: tuple[str, str], tmp_path: Path
) -> None:
    register(store, *logged, "clean")
    code = """
    import mlflow, numpy as np
    model = mlflow.pyfunc.load_model("models:/clean@champion")
    images = np.full((2, 5, 7), -50, np.float32)
    images[1] = 50
    mask = model.predict(images)
    print(mask.shape, mask.dtype, mask.min(axis=(1, 2)), mask.max(axis=(1, 2)))
    probabilities = model.predict(images, params={"output": "probabilities"})
    print(probabilities.shape, probabilities.dtype)
    same = model.predict(images, params={"spacing_mm": [0.5, 2.0]})
    print((same == mask).all())
    print(model.predict(images[:0]).shape)
    try:
        model.predict(images, params={"output": "masks"})
    except ValueError as error:
        print(error)
    import src.inference
    print("code" in src.inference.__file__.split("/"))
    """
    environment = {"MLFLOW_TRACKING_URI": store.uri, "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": ""}
    done = python(code, cwd=tmp_path, env=environment)
    # -50 HU is 0.25 of the window, class 0; 50 HU is 0.75, class 1.
    assert done.stdout.splitlines() == [
        "(2, 5, 7) uint8 [0 1] [0 1]",
        "(2, 5, 7, 3) float32",
        "True",
        "(0, 5, 7)",
        'output must be "mask" or "probabilities", got \'masks\'. Pass params={"output": "mask"}.',
        "True",
    ], done.stderr


def test_the_folder_of_the_champion_is_the_one_that_was_logged(
    store: tracking.Store, logged: tuple[str, str], model_folder: Path
) -> None:
    register(store, *logged, "folder")
    folder = tracking.champion_folder(store, "folder")
    assert {path.name for path in folder.iterdir()} == {
        path.name for path in model_folder.iterdir()
    }
    weights = "model.keras"
    assert (folder / weights).read_bytes() == (model_folder / weights).read_bytes()


def test_a_version_names_what_made_it(store: tracking.Store, logged: tuple[str, str]) -> None:
    version = register(store, *logged, "named")
    assert TAGS.items() <= version.tags.items()
    assert json.loads(version.tags["parameters"]) == {"train.epochs": "2"}
    assert version.run_id == logged[0]
    made = store.client.get_model_version("named", "1")
    assert made.description == "# Card"


def test_the_same_run_registered_twice_makes_one_version(
    store: tracking.Store, logged: tuple[str, str]
) -> None:
    first = register(store, *logged, "twice")
    assert register(store, *logged, "twice") == first
    assert len(store.client.search_model_versions("name = 'twice'")) == 1


def test_a_model_can_be_registered_without_becoming_champion(
    store: tracking.Store, logged: tuple[str, str]
) -> None:
    details = {"name": "kept", "description": "", "reason": "best of a study", "score": 0.5}
    made = tracking.register_model(store, *logged, **details)
    assert (made.version, made.tags[tracking.SCORE_TAG]) == (1, "0.5")
    assert tracking.champion(store, "kept") is None
    assert tracking.register_model(store, *logged, **details).version == 1
    # The same version takes the alias later.
    assert tracking.register_champion(store, *logged, **details).version == 1
    assert tracking.champion(store, "kept") is not None


def test_the_alias_moves_and_its_history_can_be_read(
    store: tracking.Store, logged: tuple[str, str]
) -> None:
    first_run, uri = logged
    second_run = finished_run(store)
    assert register(store, first_run, uri, "moves").version == 1
    second = register(store, second_run, uri, "moves")
    assert second.version == 2
    assert tracking.champion(store, "moves") == second
    first = store.client.get_model_version("moves", "1")
    assert first.tags["champion_until"] == second.tags["champion_from"]
    assert register(store, first_run, uri, "moves").version == 1  # back again, no third version
    history = store.client.get_registered_model("moves").tags["champion_history"].splitlines()
    assert [line.split("UTC: ")[1] for line in history] == [
        "version 1 (validation/dice/mean 0.81)",
        "version 2 (validation/dice/mean 0.81)",
        "version 1 (validation/dice/mean 0.81)",
    ]
    assert "champion_until" not in store.client.get_model_version("moves", "1").tags


def test_a_long_model_card_is_cut_to_what_every_database_takes(
    store: tracking.Store, logged: tuple[str, str]
) -> None:
    tracking.register_champion(store, *logged, name="long", description="x" * 9000, reason="")
    assert len(store.client.get_model_version("long", "1").description) == 5000


def test_a_run_without_provenance_is_not_registered(store: tracking.Store) -> None:
    run_id = finished_run(store, tags={"data_hash": "d", "git_commit": "c"})
    with pytest.raises(ValueError, match="without the tags split_hash, truth_hash, git_dirty"):
        register(store, run_id, "models:/m-0", "unknown")


def test_without_a_champion_the_error_says_how_to_get_one(store: tracking.Store) -> None:
    assert tracking.champion(store, "nothing") is None
    with pytest.raises(LookupError, match=r"no champion of 'nothing' in .* Run: dvc repro"):
        tracking.champion_folder(store, "nothing")
