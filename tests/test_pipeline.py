"""The whole pipeline as a user runs it: real commands, in a repository made for the purpose."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from src import tracking
from src.data.phantom import make_patient
from src.inference import load_segmenter
from src.tuning import check_prepared

ROOT = Path(__file__).resolve().parents[1]
MODEL = "ct-segmentation"
PATIENTS = [f"Doe_Jane_{number}" for number in range(9)]
IDENTITY = {
    f"GIT_{role}_{part}": "tester@localhost"
    for role in ("AUTHOR", "COMMITTER")
    for part in ("NAME", "EMAIL")
}


@dataclass(frozen=True)
class Repository:
    """A checkout of this project with data of its own.

    Attributes:
        root: Its folder.
        log: What the first `dvc repro` said.
    """

    root: Path
    log: str = ""

    def __call__(self, *command: str) -> str:
        """Runs a command that must succeed; returns what it printed."""
        done = self.attempt(*command)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def attempt(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command; its errors stand in stdout, among the rest."""
        return subprocess.run(
            self.line(*command), cwd=self.root, env=environment(), text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def line(self, program: str, *arguments: str) -> list[str]:
        return [*([sys.executable, "-m", "dvc"] if program == "dvc" else [program]), *arguments]

    @property
    def client(self) -> Any:
        return tracking.open_store(self.root).client

    def trainings(self) -> list[Any]:
        """The runs of trainings, newest first."""
        return list(self.client.search_runs(["0"], "tags.stage = 'train'"))

    def set(self, **train: Any) -> None:
        """Changes parameters of the group `train`."""
        yaml = YAML()
        content = yaml.load(self.root / "params.yaml")
        content["train"] |= train
        yaml.dump(content, self.root / "params.yaml")


def environment() -> dict[str, str]:
    """The tests' python and dvc first on PATH, and no setting of the machine's user.

    Some twenty interpreters are started: they may keep what they compiled.
    """
    unwanted = ("MLFLOW_", "DVC_", "PYTHON", "GIT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {
        **kept,
        **IDENTITY,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
    }


def copy_checkout(folder: Path) -> None:
    """Copies what git knows or would take, as it stands now, without the demo's data."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".",
         ":!demo-remote", ":!data.dvc", ":!dvc.lock", ":!tests"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def write_data(data: Path) -> None:
    """Nine patients with two slices each; the names are ones that must not travel."""
    for number, name in enumerate(PATIENTS):
        patient = make_patient(number, seed=5)
        images, masks = (data / kind / patient.scanner / name for kind in ("images", "masks"))
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        # Of a middle slice and its neighbour; one patient is healthy, which the audit remarks on.
        for place in (2, 3):
            mask = patient.mask[place] * (number > 0)
            stored = np.clip(patient.hu[place] + 1024, 0, None).astype(np.uint16)
            assert cv2.imwrite(str(images / f"axial_{place}.png"), stored)
            assert cv2.imwrite(str(masks / f"axial_{place}_mask.png"), mask)


def set_small_parameters(path: Path) -> None:
    yaml = YAML()
    content = yaml.load(path)
    content["split"]["test_patients"] = PATIENTS[3:5]
    content["prepare"]["image_size"] = [64, 64]
    content["architectures"] = ["unet"]
    content["train"] |= {
        "epochs": 2, "warmup_epochs": 1, "batch_size": 4,
        "overlay_every": 1, "learning_rate": 0.01,
    }  # fmt: skip
    content["train"]["model"] |= {"depth": 2, "filters": 4}
    content["evaluate"]["bootstrap_resamples"] = 200
    yaml.dump(content, path)


@pytest.fixture(scope="module", autouse=True)
def no_address_of_the_user() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository, in a folder whose name has a space, in which the pipeline has run once."""
    repository = Repository(tmp_path_factory.mktemp("a repository"))
    copy_checkout(repository.root)
    write_data(repository.root / "data")
    set_small_parameters(repository.root / "params.yaml")
    repository("git", "init", "-q")
    repository("dvc", "add", "-q", "data")
    repository("git", "add", ".")
    repository("git", "commit", "-q", "-m", "Data of our own")
    log = repository("dvc", "repro")
    repository("git", "add", "dvc.lock")
    repository("git", "commit", "-q", "-m", "Results")
    return Repository(repository.root, log)


def stages(repository: Repository) -> dict[str, Any]:
    """The stages in dvc.lock: name -> its command, deps, params and outs."""
    found: dict[str, Any] = YAML(typ="safe").load(repository.root / "dvc.lock")["stages"]
    return found


# --- DVC ------------------------------------------------------------------------------------------


def test_every_stage_ran_and_its_outputs_are_there(finished: Repository) -> None:
    listed = finished("dvc", "stage", "list", "--name-only").split()
    assert sorted(stages(finished)) == sorted(name for name in listed if name != "data.dvc")
    for name, stage in stages(finished).items():
        assert f"Running stage '{name}'" in finished.log
        assert stage["outs"]
        for out in stage["outs"]:
            assert (finished.root / out["path"]).exists(), out["path"]


def test_the_network_is_there_for_openvino_unless_the_run_says_why_not(
    finished: Repository,
) -> None:
    folder = finished.root / "models" / "unet" / "fold0"
    said = json.loads((folder / "run.json").read_text(encoding="utf-8"))["engine"]
    # Two epochs leave many pixels undecided: a few may well fall to another class.
    assert said.startswith(("openvino: Dice of the validation", "keras: OpenVINO gave a Dice"))
    assert (folder / "engine").is_dir() is said.startswith("openvino")
    assert f"engine {said}" in finished.log


def test_nothing_is_left_to_do_and_a_second_run_does_nothing(finished: Repository) -> None:
    runs = len(finished.client.search_runs(["0"]))
    assert "Data and pipelines are up to date" in finished("dvc", "status")
    assert "Running stage" not in finished("dvc", "repro")
    assert len(finished.client.search_runs(["0"])) == runs


def test_dvc_shows_the_scores_that_mlflow_has(finished: Repository) -> None:
    shown = json.loads(finished("dvc", "metrics", "show", "--json"))
    rows = {Path(path): row["data"] for path, row in shown[""]["data"].items()}
    logged = finished.trainings()[-1].data.metrics
    for subset, group in (("validation", "validation_patients"), ("test", "test")):
        for name in ("organ", "lesion"):
            mean = rows[Path("reports/metrics/unet") / f"{name}.json"][subset]["dice"]
            assert mean == pytest.approx(logged[f"{group}/dice/{name}"], abs=1e-6)


def test_the_plots_are_drawn_and_leave_the_checkout_clean(finished: Repository) -> None:
    address = finished("dvc", "plots", "show").strip().splitlines()[-1]
    page = finished.root / "dvc_plots" / "index.html"
    assert address == page.as_uri()
    text = page.read_text(encoding="utf-8")
    for word in ("epoch", "train", "validation"):
        assert f'"{word}"' in text
    # A file that git does not ignore would mark every later run as made from changed code.
    assert finished("git", "status", "--porcelain") == ""


def test_a_broken_file_stops_the_pipeline_before_anything_is_trained(
    finished: Repository, tmp_path: Path
) -> None:
    repository = copied(finished, tmp_path)
    broken = next((repository.root / "data" / "images").rglob("*.png"))
    content = broken.read_bytes()
    broken.unlink()  # it may be a link into DVC's cache
    broken.write_bytes(content[:-100])
    done = repository.attempt("dvc", "repro")
    assert done.returncode != 0
    assert "error: 1 error in the data" in done.stdout
    assert "failed to reproduce 'audit'" in done.stdout
    assert "Running stage 'split'" not in done.stdout


def test_a_mistake_in_the_parameters_costs_no_result_and_any_group_is_looked_at(
    finished: Repository, tmp_path: Path
) -> None:
    repository = copied(finished, tmp_path)
    outs = [out["path"] for stage in stages(repository).values() for out in stage["outs"]]
    results = [repository.root / path for path in outs if path != "prepared/parameters.txt"]
    assert all(path.exists() for path in results)
    text = (repository.root / "params.yaml").read_text(encoding="utf-8")
    for right, wrong in (("epochs: 2", "epochs: two"), ("pruner: hyperband", "pruner: hyperbad")):
        assert text.count(f"  {right}") == 1
        (repository.root / "params.yaml").write_text(text.replace(right, wrong), encoding="utf-8")
        done = repository.attempt("dvc", "repro")
        assert done.returncode != 0
        assert f"got '{wrong.split()[1]}'" in done.stdout
        assert done.stdout.count("Running stage") == 1
        assert all(path.exists() for path in results)
    (repository.root / "params.yaml").write_text(text, encoding="utf-8")
    assert "Running stage" not in repository("dvc", "repro")


def test_a_study_minds_what_its_arrays_are_made_of_and_no_other_parameter(
    finished: Repository, tmp_path: Path
) -> None:
    root = copied(finished, tmp_path).root
    text = (root / "params.yaml").read_text(encoding="utf-8")
    for old, new in (("pruner: hyperband", "pruner: median"), ("epochs: 2", "epochs: 3")):
        (root / "params.yaml").write_text(text.replace(old, new), encoding="utf-8")
        check_prepared(root)
    (root / "params.yaml").write_text(text.replace("normalise: zscore", "normalise: unit"), "utf-8")
    with pytest.raises(ValueError, match=r"prepare@0 changed.*dvc repro prepare"):
        check_prepared(root)


def test_a_method_of_another_split_is_left_out_aloud_and_the_champion_is_named_at_the_end(
    finished: Repository,
) -> None:
    folder = finished.root / "external" / "old"
    folder.mkdir()
    counts = finished.root / "reports" / "evaluation" / "unet" / "fold0" / "test_counts.csv"
    shutil.copy(counts, folder / "counts.csv")
    old = {"data_hash": "of last year", "split_hash": "of last year"}
    (folder / "scores.json").write_text(json.dumps(old), encoding="utf-8")
    try:
        said = finished("python", "-m", "src.stages.compare")
    finally:
        shutil.rmtree(folder)
    assert "warning: external/old was scored under other data, another split, " in said
    assert said.splitlines()[-1].startswith(f"{MODEL} version 1 is champion: unet, ")


def test_what_an_earlier_list_of_networks_left_is_gone_before_anything_is_compared(
    finished: Repository,
) -> None:
    lock = finished.root / "dvc.lock"
    text = lock.read_text(encoding="utf-8")
    earlier = finished.root / "models" / "unetpp" / "fold0"
    shutil.copytree(finished.root / "models" / "unet" / "fold0", earlier)
    content = YAML(typ="safe").load(text)
    (out,) = (
        o for o in content["stages"]["train@unet-0"]["outs"] if o["path"] == "models/unet/fold0"
    )
    content["stages"]["train@unetpp-0"] = {
        "cmd": "",
        "outs": [out | {"path": "models/unetpp/fold0"}],
    }
    YAML().dump(content, lock)
    try:
        said = finished("python", "-m", "src.stages.compare")
    finally:
        lock.write_text(text, encoding="utf-8")
    assert "removed what params.yaml does not list: models/unetpp/fold0. " in said
    assert [path.name for path in (finished.root / "models").iterdir()] == ["unet"]


def test_without_the_store_of_the_training_compare_says_what_to_do(
    finished: Repository, tmp_path: Path
) -> None:
    done = copied(finished, tmp_path).attempt("python", "-m", "src.stages.compare")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert re.search(r"error: run \w+ has no model in sqlite:.*Train it here: dvc", done.stdout)


# --- MLflow ---------------------------------------------------------------------------------------


def leaves(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_a_run_holds_every_parameter(finished: Repository) -> None:
    content = YAML(typ="safe").load(finished.root / "params.yaml")
    held = finished.trainings()[-1].data.params
    del content["tune"]  # it decides nothing about a model
    expected = set(leaves(content)) - {"architectures"} | {"architecture"}
    assert set(held) == expected
    assert held["train.epochs"] == "2"
    assert held["train.learning_rate"] == "0.01"
    assert held["architecture"] == "unet"
    assert held["split.test_patients"] == "2"  # how many; their names are private


def test_a_run_names_the_data_the_split_the_commit_and_the_stage(finished: Repository) -> None:
    tags = finished.trainings()[-1].data.tags
    data = YAML(typ="safe").load(finished.root / "data.dvc")["outs"][0]["md5"]
    outs = {out["path"]: out["md5"] for stage in stages(finished).values() for out in stage["outs"]}
    assert tags["data_hash"] == data
    assert tags["split_hash"] == outs["prepared/split.csv"]
    assert tags["git_commit"] == finished("git", "rev-parse", "HEAD~1").strip()
    assert tags["git_dirty"] == "false"
    assert tags["stage"] == "train"
    assert "Research use only" in tags["mlflow.note.content"]


def steps_of_metrics(repository: Repository) -> dict[str, list[int]]:
    """Name of a metric -> its steps in the first training."""
    run = repository.trainings()[-1]
    return {
        name: [one.step for one in repository.client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
        if not name.startswith("system/")
    }


def test_a_run_holds_the_curves_of_every_epoch(finished: Repository) -> None:
    curves = {name for name, steps in steps_of_metrics(finished).items() if steps == [1, 2]}
    assert "train/learning_rate" in curves
    for side in ("train", "validation"):
        quantities = ("loss", "accuracy", "mean_iou", "seconds")
        assert {f"{side}/{quantity}" for quantity in quantities} <= curves
        by_class = {name.split("/")[-1] for name in curves if name.startswith(f"{side}/")}
        assert {"background", "organ", "lesion"} <= by_class


def test_no_curve_and_no_score_share_a_name(finished: Repository) -> None:
    # The score of patients at the size of their scans would stand as a point in a curve of pixels,
    # and the list of runs would show the one for the other.
    both = {name: s for name, s in steps_of_metrics(finished).items() if s not in ([0], [1, 2])}
    assert both == {}


def test_a_run_that_ended_says_so_and_has_the_load_of_the_machine(finished: Repository) -> None:
    run = finished.trainings()[-1]
    assert run.info.status == "FINISHED"
    assert "system/cpu_utilization_percentage" in run.data.metrics


def test_a_run_holds_tables_figures_and_the_datasets(finished: Repository) -> None:
    run = finished.trainings()[-1]
    files = {
        item.path
        for folder in ("tables", "figures")
        for item in finished.client.list_artifacts(run.info.run_id, folder)
    }
    assert {"tables/test_patients.json", "figures/learning_curves.png"} <= files
    contexts = [entry.tags[0].value for entry in run.inputs.dataset_inputs]
    assert sorted(contexts) == ["test", "train", "validation"]
    data_hash = run.data.tags["data_hash"]
    assert all(entry.dataset.digest == data_hash for entry in run.inputs.dataset_inputs)


def test_the_table_of_patients_is_that_of_the_pseudonyms(finished: Repository) -> None:
    run = finished.trainings()[-1].info.run_id
    path = finished.client.download_artifacts(run, "tables/test_patients.json")
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    table = pd.DataFrame(content["data"], columns=content["columns"])
    cases = pd.read_csv(finished.root / "prepared" / "cases.csv")
    expected = cases.loc[cases["patient"].isin(PATIENTS[3:5]), "pseudonym"].unique()
    assert sorted(table["patient_pseudonym"]) == sorted(expected)
    assert table["slices"].tolist() == [2, 2]


def test_overlays_of_the_same_cases_stand_at_every_step(finished: Repository) -> None:
    run = finished.trainings()[-1].info.run_id
    pictures = finished.client.search_runs(["0"], f"tags.`mlflow.parentRunId` = '{run}'")[0]
    listed = finished.client.list_artifacts(pictures.info.run_id, "images")
    parts = [item.path.split("+") for item in listed if item.path.endswith(".png")]
    steps: dict[str, set[str]] = {}
    for name, _, step, *_ in parts:
        steps.setdefault(name, set()).add(step)
    assert len(steps) >= 2
    assert all(found == {"0", "1", "2"} for found in steps.values())  # 0: before training


def private_words(root: Path) -> list[bytes]:
    words = [*PATIENTS, "axial_", str(root / "data"), quote(str(root / "data"))]
    return [word.encode() for word in words]


def contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and of what is packed in it."""
    yield path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def test_no_name_of_a_patient_or_file_leaves_the_prepared_data(finished: Repository) -> None:
    # They stand where they may: without that the search below would find nothing for nothing.
    cases = (finished.root / "prepared" / "cases.csv").read_bytes()
    assert all(name.encode() in cases for name in [*PATIENTS, "axial_"])
    audit = json.loads((finished.root / "reports" / "audit.json").read_text(encoding="utf-8"))
    assert [finding["kind"] for finding in audit["findings"]] == ["empty-masks"]
    words = private_words(finished.root)
    searched = 0
    for folder in ("mlruns", "reports", "models"):
        for path in filter(Path.is_file, (finished.root / folder).rglob("*")):
            searched += 1
            name = str(path.relative_to(finished.root)).encode()
            for content in (name, *contents(path)):
                assert [word for word in words if word in content] == [], path
    assert searched > 30


def test_the_champion_segments_in_a_clean_process(finished: Repository, tmp_path: Path) -> None:
    code = (
        "import mlflow, numpy as np, sys\n"
        f"model = mlflow.pyfunc.load_model('models:/{MODEL}@champion')\n"
        "mask = model.predict(np.full((2, 40, 56), 60, np.float32))\n"
        "print(mask.shape, mask.dtype, int(mask.max()) <= 2)\n"
    )
    uri = tracking.store_uri(finished.root)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=environment() | {"MLFLOW_TRACKING_URI": uri},
    )  # fmt: skip
    assert done.stdout.strip() == "(2, 40, 56) uint8 True", done.stderr
    version = finished.client.get_model_version_by_alias(MODEL, "champion")
    assert version.run_id == finished.trainings()[-1].info.run_id
    assert "| test | lesion | 2 |" in version.description


# --- Experiments ----------------------------------------------------------------------------------


def copied(finished: Repository, folder: Path) -> Repository:
    """The same repository elsewhere, with a store of its own."""
    # A store names its artifacts by absolute paths, so it is not taken along.
    shutil.copytree(
        finished.root, folder / "copy", symlinks=True, ignore=shutil.ignore_patterns("mlruns")
    )
    return Repository(folder / "copy")


def test_an_experiment_in_a_temporary_copy_is_logged_in_the_same_store(
    finished: Repository,
) -> None:
    before = {run.info.run_id for run in finished.trainings()}
    finished("dvc", "exp", "run", "--temp", "--set-param", "train.learning_rate=0.02", "train")
    new = [run for run in finished.trainings() if run.info.run_id not in before]
    assert [run.data.params["train.learning_rate"] for run in new] == ["0.02"]
    assert new[0].data.tags["git_commit"] == finished("git", "rev-parse", "HEAD").strip()
    assert new[0].info.status == "FINISHED"
    assert finished.client.list_artifacts(new[0].info.run_id, "figures")
    assert list(finished.root.rglob("mlflow.db")) == [finished.root / "mlruns" / "mlflow.db"]


@pytest.mark.slow
def test_queued_experiments_are_logged_in_the_same_store_and_listed(finished: Repository) -> None:
    before = {run.info.run_id for run in finished.trainings()}
    for rate in ("0.03", "0.04"):
        finished("dvc", "exp", "run", "--queue", "--set-param", f"train.learning_rate={rate}")
    finished("dvc", "exp", "run", "--run-all", "--jobs", "2")
    new = [run for run in finished.trainings() if run.info.run_id not in before]
    assert sorted(run.data.params["train.learning_rate"] for run in new) == ["0.03", "0.04"]
    assert [run.info.status for run in new] == ["FINISHED", "FINISHED"]
    listed = json.loads(finished("dvc", "exp", "show", "--json"))
    shown = {
        experiment["revs"][0]["data"]["params"]["params.yaml"]["data"]["train"]["learning_rate"]:
        len(experiment["revs"][0]["data"]["metrics"])
        for baseline in listed for experiment in baseline["experiments"] or []
    }  # fmt: skip
    assert {0.03: 3, 0.04: 3}.items() <= shown.items()  # organ, lesion, mean_foreground
    assert list(finished.root.rglob("mlflow.db")) == [finished.root / "mlruns" / "mlflow.db"]


# --- A training that is killed --------------------------------------------------------------------


def kill_after_epoch(repository: Repository, number: int) -> None:
    """Starts the training by DVC and kills all of it without warning, as a power cut does."""
    with subprocess.Popen(
        repository.line("dvc", "repro", "train"), cwd=repository.root, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith(f"epoch {number:3d}/"):
                os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "".join(said)


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights_in_the_same_run(
    finished: Repository, tmp_path: Path
) -> None:
    repository = copied(finished, tmp_path)
    repository.set(epochs=6)
    kill_after_epoch(repository, 3)
    (killed,) = repository.trainings()
    assert killed.info.status == "RUNNING"
    assert not (repository.root / "models" / "unet" / "fold0").exists()

    log = repository("dvc", "repro", "train")
    assert re.search(r"going on after epoch [23] of an unfinished run", log)
    (resumed,) = repository.trainings()
    assert (resumed.info.run_id, resumed.info.status) == (killed.info.run_id, "FINISHED")
    steps = [m.step for m in repository.client.get_metric_history(killed.info.run_id, "train/loss")]
    assert sorted(set(steps)) == [1, 2, 3, 4, 5, 6]
    weights = load_segmenter(repository.root / "models" / "unet").model.get_weights()

    log = repository("dvc", "repro", "--force", "--single-item", "train@unet-0")
    assert "going on" not in log
    assert len(repository.trainings()) == 2
    unbroken = load_segmenter(repository.root / "models" / "unet").model.get_weights()
    for one, other in zip(weights, unbroken, strict=True):
        np.testing.assert_array_equal(one, other)
