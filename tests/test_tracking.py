from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from src import tracking

REPOSITORY = Path(__file__).resolve().parents[1]
TAGS = {"data_hash": "d" * 32, "split_hash": "5" * 32, "git_commit": "c" * 40, "git_dirty": "false"}
CODE = {"code": REPOSITORY / "src", "packages": ("numpy",)}


@pytest.fixture(autouse=True)
def no_address_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tracking.Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return tracking.open_store(tmp_path_factory.mktemp("a repository"))


def finished_run(store: tracking.Store, **changes: Any) -> str:
    arguments: dict[str, Any] = {"parameters": {"seed": 7}, "tags": TAGS} | changes
    with tracking.start_run(store, "unet, 3f9c1e", **arguments) as run:
        return run.run_id


def python(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | options.pop("env", {})
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


# --- The address ----------------------------------------------------------------------------------


def test_the_address_is_the_absolute_one_of_the_repository(tmp_path: Path) -> None:
    assert tracking.store_uri(tmp_path) == f"sqlite:///{tmp_path}/mlruns/mlflow.db"


@pytest.mark.parametrize("copy", ["tmpab12", "standalone/tmpab12"])
def test_the_temporary_copy_of_an_experiment_has_the_address_of_the_repository(
    tmp_path: Path, copy: str
) -> None:
    inside = tmp_path / ".dvc" / "tmp" / "exps" / copy
    inside.mkdir(parents=True)
    assert tracking.store_uri(inside) == tracking.store_uri(tmp_path)


def test_a_temporary_experiment_of_dvc_sees_the_address_of_the_repository(tmp_path: Path) -> None:
    stage = """\
    import pathlib
    from src.tracking import store_uri
    pathlib.Path("uri.txt").write_text(store_uri(pathlib.Path.cwd()))
    """
    (tmp_path / "stage.py").write_text(textwrap.dedent(stage))
    (tmp_path / "dvc.yaml").write_text(
        f"stages: {{one: {{cmd: '{sys.executable} stage.py', deps: [stage.py], "
        "outs: [{uri.txt: {cache: false}}]}}\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "DVC_NO_ANALYTICS": "1"}
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        ["git", "add", "."],
        ["git", *identity, "commit", "-q", "-m", "a"],
        [sys.executable, "-m", "dvc", "exp", "run", "-q", "--temp", "--name", "trial"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, env=environment, capture_output=True)
    shown = subprocess.run(
        ["git", "show", "refs/exps/" + _experiment(tmp_path) + ":uri.txt"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert shown.stdout == f"sqlite:///{tmp_path}/mlruns/mlflow.db"


def _experiment(repository: Path) -> str:
    command = ["git", "for-each-ref", "--format=%(refname)", "refs/exps"]
    names = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True)
    found = [name for name in names.stdout.split() if name.endswith("/trial")]
    return found[0].removeprefix("refs/exps/")


def test_an_address_of_the_user_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert tracking.store_uri(tmp_path) == "http://localhost:5000"


def test_a_relative_address_of_the_user_is_taken_from_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs/a.db")
    assert tracking.store_uri(tmp_path) == f"sqlite:///{tmp_path}/runs/a.db"


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns"])
def test_a_folder_as_address_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match=f"database or a server, got the folder '{uri}'"):
        tracking.store_uri(tmp_path)


# --- Opening --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eight_processes(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A repository whose store eight processes opened at once, and what they said."""
    # MLflow is imported before the fork, so that all eight reach the database together.
    code = """
    import multiprocessing, pathlib, sys
    from src import tracking

    def work(number):
        barrier.wait()
        store = tracking.open_store(pathlib.Path(sys.argv[1]))
        with tracking.start_run(store, str(number), parameters={}, tags={}) as run:
            tracking.log_metrics(run, {"train/loss": number})
            tracking.log_artifact(run, pathlib.Path(sys.argv[2]), "files")
        return store.uri

    tracking._mlflow()
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(8)
    with context.Pool(8) as pool:
        assert len(set(pool.map(work, range(8), chunksize=1))) == 1
    """
    repository = tmp_path_factory.mktemp("eight")
    return repository, python(code, repository, __file__, env={"MLFLOW_TRACKING_URI": ""})


def test_eight_processes_open_a_fresh_store_at_once(
    eight_processes: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    repository, done = eight_processes
    assert done.returncode == 0, done.stderr
    store = tracking.open_store(repository)
    runs = store.client.search_runs([store.experiment_id])
    assert sorted(run.data.metrics["train/loss"] for run in runs) == list(range(8))


def test_creating_a_store_and_writing_runs_says_nothing_in_the_terminal(
    eight_processes: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, done = eight_processes
    assert (done.stdout, done.stderr) == ("", "")


def test_a_process_killed_while_it_makes_the_database_does_no_harm(tmp_path: Path) -> None:
    code = "import pathlib, sys; from src import tracking; tracking.open_store(pathlib.Path('.'))"
    unfinished = tmp_path / "mlruns" / "mlflow.unfinished"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}
    )
    while not (unfinished.exists() and unfinished.stat().st_size) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "mlruns" / "mlflow.db").exists()
    store = tracking.open_store(tmp_path)
    assert finished_run(store)


def test_a_fresh_store_has_one_experiment_beside_the_database(store: tracking.Store) -> None:
    experiments = store.client.search_experiments()
    assert [experiment.name for experiment in experiments] == ["CT segmentation"]
    location = (store.root / "mlruns" / "artifacts" / "0").as_uri()
    assert experiments[0].artifact_location == location


def test_opening_a_store_leaves_the_environment_as_it_was(store: tracking.Store) -> None:
    tracking.open_store(store.root, "another experiment")
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_importing_the_module_imports_no_mlflow() -> None:
    code = "import sys, src.tracking; print({'mlflow', 'pandas', 'numpy'} & set(sys.modules))"
    assert python(code).stdout.strip() == "set()"


# --- Where a run comes from -----------------------------------------------------------------------


def test_the_data_hash_is_the_md5_in_data_dvc(tmp_path: Path) -> None:
    (tmp_path / "data.dvc").write_text("outs:\n- md5: 0a1b.dir\n  hash: md5\n  path: data\n")
    assert tracking.data_hash(tmp_path) == "0a1b.dir"


def test_without_data_dvc_the_data_hash_is_none(tmp_path: Path) -> None:
    assert tracking.data_hash(tmp_path) == "none"


def test_a_data_dvc_without_md5_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.dvc").write_text("outs:\n- path: data\n")
    with pytest.raises(ValueError, match=r"one output with its md5, got .* Run: dvc add data"):
        tracking.data_hash(tmp_path)


def test_the_split_hash_is_the_md5_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text("abc")
    # The MD5 of "abc" in RFC 1321, appendix A.5.
    assert tracking.split_hash(tmp_path / "split.csv") == "900150983cd24fb0d6963f7d28e17f72"
    assert tracking.split_hash(tmp_path / "missing.csv") == "none"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("code.py", "dvc.lock"):
        (tmp_path / name).write_text("1")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_a_clean_checkout_is_not_dirty_even_when_the_pipeline_wrote_its_lock(
    checkout: Path,
) -> None:
    (checkout / "dvc.lock").write_text("2")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True
    )
    assert tracking.git_state(checkout) == (head.stdout.strip(), False)


@pytest.mark.parametrize("name", ["code.py", "new.py"])
def test_a_changed_or_new_file_makes_a_checkout_dirty(checkout: Path, name: str) -> None:
    (checkout / name).write_text("2")
    assert tracking.git_state(checkout)[1] is True


def test_without_a_repository_the_commit_is_none_and_dirty(tmp_path: Path) -> None:
    assert tracking.git_state(tmp_path) == ("none", True)


def test_provenance_names_data_split_commit_and_dirty_flag(tmp_path: Path) -> None:
    assert tracking.provenance(tmp_path, tmp_path / "split.csv") == {
        "data_hash": "none",
        "split_hash": "none",
        "git_commit": "none",
        "git_dirty": "true",
    }


def test_equal_parameters_give_an_equal_run_name_in_any_order() -> None:
    name = tracking.run_name("unet", {"a": 1, "b": 2})
    assert name == tracking.run_name("unet", {"b": 2, "a": 1})
    assert name != tracking.run_name("unet", {"a": 1, "b": 3})
    assert name.startswith("unet, ")
    assert len(name) == len("unet, ") + 6


def test_nested_parameters_are_flattened_and_absolute_paths_withheld() -> None:
    nested = {"train": {"rate": 0.001, "sizes": [1, 2]}, "data": "/home/Smith", "old": r"C:\Smith"}
    assert tracking.flatten(nested) == {
        "train.rate": "0.001",
        "train.sizes": "[1, 2]",
        "data": "(absolute path withheld)",
        "old": "(absolute path withheld)",
    }


# --- Runs -----------------------------------------------------------------------------------------


def test_a_run_holds_its_parameters_tags_description_and_source(store: tracking.Store) -> None:
    run_id = finished_run(
        store, parameters={"train": {"epochs": 25}}, tags=TAGS | {"stage": "train"}, description="*"
    )
    run = store.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "unet, 3f9c1e"
    assert run.data.params == {"train.epochs": "25"}
    assert TAGS.items() <= run.data.tags.items()
    assert run.data.tags["stage"] == "train"
    assert run.data.tags["mlflow.note.content"] == "*"
    assert "/" not in run.data.tags["mlflow.source.name"]
    assert "mlflow.source.git.repoURL" not in run.data.tags


def test_a_long_parameter_is_cut_and_kept_whole_as_a_file(store: tracking.Store) -> None:
    run_id = finished_run(store, parameters={"notes": "x" * 501})
    assert store.client.get_run(run_id).data.params["notes"] == "x" * 499 + "…"
    path = store.client.download_artifacts(run_id, "parameters.json")
    assert json.loads(Path(path).read_text())["notes"] == "x" * 501


def test_more_than_a_hundred_parameters_are_kept(store: tracking.Store) -> None:
    run_id = finished_run(store, parameters={f"p{number}": number for number in range(250)})
    assert len(store.client.get_run(run_id).data.params) == 250


def test_metrics_with_slashes_are_kept_at_their_steps(store: tracking.Store) -> None:
    with tracking.start_run(store, "a", parameters={}, tags={}) as run:
        tracking.log_metrics(run, {"validation/iou/lesion": 0.25, "train/loss": 2.0}, step=0)
        tracking.log_metrics(run, {"validation/iou/lesion": np.float32(0.5)}, step=1)
    history = store.client.get_metric_history(run.run_id, "validation/iou/lesion")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.25), (1, 0.5)]


def test_a_number_that_is_not_finite_is_named_in_a_tag_and_not_drawn(
    store: tracking.Store,
) -> None:
    with tracking.start_run(store, "a", parameters={}, tags={}) as run:
        tracking.log_metrics(run, {"test/dice/lesion": float("nan"), "loss": float("inf")}, step=3)
    data = store.client.get_run(run.run_id).data
    assert data.metrics == {}
    assert data.tags["not_finite/test/dice/lesion"] == "nan at step 3"
    assert data.tags["not_finite/loss"] == "inf at step 3"


def test_pictures_are_kept_at_their_steps(store: tracking.Store) -> None:
    import cv2

    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    with tracking.start_run(store, "a", parameters={}, tags={}) as run:
        for step in (0, 5):
            tracking.log_picture(run, "overlay/case 01", picture, step)
    paths = [item.path for item in store.client.list_artifacts(run.run_id, "images")]
    full = sorted(path for path in paths if path.endswith(".png"))
    assert [path.split("+")[:3] for path in full] == [
        ["images/overlay~case 01", "step", "0"],
        ["images/overlay~case 01", "step", "5"],
    ]
    local = store.client.download_artifacts(run.run_id, full[0])
    np.testing.assert_array_equal(cv2.imread(local)[..., ::-1], picture)
    assert store.client.get_run(run.run_id).data.tags["mlflow.loggedImages"] == "True"


def test_pictures_have_a_run_without_parameters_under_the_run_that_links_to_it(
    store: tracking.Store,
) -> None:
    with tracking.start_run(
        store, "unet, 3f9c1e", parameters={"a": 1}, tags=TAGS, description="Two lines"
    ) as run:
        pictures = tracking.picture_run(run)
        assert tracking.picture_run(run) == pictures  # a resumed training finds it again
    child = store.client.get_run(pictures.run_id)
    assert child.info.run_name == "unet, 3f9c1e, overlays"
    assert child.info.status == "FINISHED"
    assert child.data.params == {}
    assert child.data.tags["mlflow.parentRunId"] == run.run_id
    assert TAGS.items() <= child.data.tags.items()
    note = store.client.get_run(run.run_id).data.tags["mlflow.note.content"]
    assert note.startswith(
        "Two lines\n\n[Overlays of fixed validation cases](#/experiments/0/runs/"
    )
    assert pictures.run_id in note


def test_a_table_written_again_replaces_the_older_one(store: tracking.Store) -> None:
    with tracking.start_run(store, "a", parameters={}, tags={}) as run:
        for dice in (0.5, 0.75):
            table = pd.DataFrame({"pseudonym": ["P-3f9c1e2a"], "dice": [dice]})
            tracking.log_table(run, table, "tables/patients.json")
    path = Path(store.client.download_artifacts(run.run_id, "tables/patients.json"))
    assert json.loads(path.read_text())["data"] == [["P-3f9c1e2a", 0.75]]


def test_each_context_is_a_dataset_with_the_data_hash(store: tracking.Store) -> None:
    cases = pd.DataFrame({"case_pseudonym": ["P-3f9c1e2a/001"], "pixels_lesion": [4]})
    with tracking.start_run(store, "a", parameters={}, tags={}) as run:
        for context in ("train", "test"):
            digest = f"{'d' * 32}.dir"
            tracking.log_dataset(run, cases, name="demo", digest=digest, context=context)
    inputs = store.client.get_run(run.run_id).inputs.dataset_inputs
    found = {(item.dataset.name, item.dataset.digest, item.tags[0].value) for item in inputs}
    assert found == {
        ("demo, train", "d" * 32 + ".dir", "train"),
        ("demo, test", "d" * 32 + ".dir", "test"),
    }


@pytest.mark.parametrize("column", ["patient", "case_id", "image_path", "mask_path"])
def test_a_table_that_names_patients_or_files_is_refused(
    store: tracking.Store, column: str
) -> None:
    run = tracking.Run(store, "0" * 32)
    table = pd.DataFrame({column: ["Smith"], "dice": [0.5]})
    with pytest.raises(ValueError, match=f"pseudonyms only, got the columns {column}"):
        tracking.log_table(run, table, "tables/a.json")
    with pytest.raises(ValueError, match=f"pseudonyms only, got the columns {column}"):
        tracking.log_dataset(run, table, name="a", digest="b", context="test")


@pytest.mark.parametrize("destination", ["/etc", "../a", "images", "images/a", "a\\b", "."])
def test_a_destination_outside_the_run_or_among_its_pictures_is_refused(
    store: tracking.Store, destination: str
) -> None:
    with pytest.raises(ValueError, match="must be a relative path in the run"):
        tracking.log_artifact(tracking.Run(store, "0" * 32), Path(__file__), destination)


def test_files_and_folders_are_kept_and_a_missing_one_is_an_error(
    store: tracking.Store, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a")
    with tracking.start_run(store, "a", parameters={}, tags={}) as run:
        tracking.log_artifact(run, tmp_path / "a.txt")
        tracking.log_artifact(run, tmp_path, "folder")
        with pytest.raises(FileNotFoundError, match=r"is missing: .*b.txt"):
            tracking.log_artifact(run, tmp_path / "b.txt")
    paths = [item.path for item in store.client.list_artifacts(run.run_id)]
    assert paths == ["a.txt", "folder"]


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_run_that_breaks_off_says_how(
    store: tracking.Store, error: type[BaseException], status: str
) -> None:
    def breaks_off() -> Iterator[str]:
        with tracking.start_run(store, "a", parameters={}, tags={}) as run:
            yield run.run_id
            raise error

    running = breaks_off()
    run_id = next(running)
    with pytest.raises(error):
        next(running)
    assert store.client.get_run(run_id).info.status == status


def test_system_metrics_are_sampled(store: tracking.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    with tracking.start_run(store, "a", parameters={}, tags={}) as run:
        time.sleep(1.5)
    metrics = store.client.get_run(run.run_id).data.metrics
    assert "system/cpu_utilization_percentage" in metrics


def test_a_run_opened_again_goes_on_in_the_same_place(store: tracking.Store) -> None:
    run_id = finished_run(store, parameters={"a": 1, "b": 2})
    ended = store.client.get_run(run_id).info.end_time
    time.sleep(0.01)
    assert finished_run(store, parameters={"a": 1, "b": 3, "c": 4}, run_id=run_id) == run_id
    run = store.client.get_run(run_id)
    assert run.data.params == {"a": "1", "b": "2", "c": "4"}
    assert run.data.tags["changed/b"] == "3 (was 2)"
    assert (run.info.status, run.info.end_time) == ("FINISHED", ended)


def test_a_run_opened_again_keeps_what_made_it(store: tracking.Store) -> None:
    run_id = finished_run(store)
    finished_run(store, run_id=run_id, tags=TAGS | {"git_commit": "e" * 40, "scored": "yes"})
    tags = store.client.get_run(run_id).data.tags
    assert TAGS.items() <= tags.items()
    assert tags["scored"] == "yes"
    assert tags["changed/git_commit"] == f"{'e' * 40} (was {'c' * 40})"


def test_a_run_of_another_machine_becomes_a_new_one(store: tracking.Store) -> None:
    elsewhere = "a" * 32
    run_id = finished_run(store, run_id=elsewhere)
    assert run_id != elsewhere
    assert store.client.get_run(run_id).data.tags["continues"] == elsewhere


def test_runs_are_listed_under_their_parent(store: tracking.Store) -> None:
    with tracking.start_run(store, "search", parameters={}, tags={}) as parent:
        child = finished_run(store, parent_run_id=parent.run_id)
    assert store.client.get_run(child).data.tags["mlflow.parentRunId"] == parent.run_id
    assert store.client.get_run(parent.run_id).info.status == "FINISHED"


# --- The model and the registry -------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that calls everything above the window's middle class 1, and so on: three classes."""
    import keras

    from src.data.arrays import Preprocessing
    from src.inference import ModelCard, save_model

    picture = keras.Input((None, None, 1))
    layer = keras.layers.Conv2D(3, 1, activation="softmax")
    model = keras.Model(picture, layer(picture))
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
        return run.run_id, tracking.log_model(run, model_folder, **CODE)


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
        tracking.log_model(run, tmp_path / "unet", **CODE)


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


def test_the_champion_can_be_loaded_here(store: tracking.Store, logged: tuple[str, str]) -> None:
    register(store, *logged, "here")
    model = tracking.load_champion(store, "here")
    assert model.predict(np.zeros((1, 4, 4), np.float32)).shape == (1, 4, 4)


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
    with pytest.raises(ValueError, match="without the tags split_hash, git_dirty"):
        register(store, run_id, "models:/m-0", "unknown")


def test_without_a_champion_the_error_says_how_to_get_one(store: tracking.Store) -> None:
    assert tracking.champion(store, "nothing") is None
    with pytest.raises(LookupError, match=r"no champion of 'nothing' in .* Run: dvc repro"):
        tracking.load_champion(store, "nothing")


# --- The user interface ---------------------------------------------------------------------------


def test_the_server_lists_the_runs_of_the_store(store: tracking.Store) -> None:
    run_id = finished_run(store)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import sys; from src.tracking import Path, serve_ui; serve_ui(Path(), int(sys.argv[1]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(port)],
        cwd=store.root,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # the server starts a process of its own
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        assert address == (
            f"http://127.0.0.1:{port}/#/experiments/0/runs?workflowType=machine_learning"
        )
        base = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow"
        request = urllib.request.Request(
            f"{base}/runs/search",
            json.dumps({"experiment_ids": ["0"]}).encode(),
            {"Content-Type": "application/json"},
        )
        runs = _answer(request, process)["runs"]
        assert run_id in [run["info"]["run_id"] for run in runs]
        telemetry = base.replace("2.0", "3.0") + "/ui-telemetry"
        assert _answer(urllib.request.Request(telemetry), process)["disable_ui_telemetry"] is True
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)


def _answer(request: urllib.request.Request, process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.URLError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise
            time.sleep(0.2)
