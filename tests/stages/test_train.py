import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from src import tracking
from src.config import load_params, public_parameters
from src.data.phantom import write_phantom
from src.processor import machine
from src.stages.train import code_hash, fingerprint, machines
from src.stages.training_log import write_curves
from tests.mlflow_server import MlflowServer, mlflow_server

ROOT = Path(__file__).parents[2]
HISTORY = [
    {
        "epoch": epoch,
        "train/loss": 1.0 / epoch,
        "train/iou/lesion": 0.25,
        "validation/loss": 2.0 / epoch,
        "validation/iou/lesion": float("nan"),
        "learning_rate": 1e-3,
    }
    for epoch in (1, 2)
]

STAGES = "from src.stages import audit, prepare, split; audit.main(); split.main(); prepare.main(0)"


def test_each_quantity_becomes_a_file_with_train_beside_validation(tmp_path: Path) -> None:
    write_curves(tmp_path / "unet", HISTORY)
    assert sorted(path.name for path in (tmp_path / "unet").iterdir()) == [
        "iou_lesion.csv",
        "loss.csv",
    ]
    loss = (tmp_path / "unet" / "loss.csv").read_text(encoding="utf-8")
    assert loss == "epoch,train,validation\n1,1.0,2.0\n2,0.5,1.0\n"
    lesion = pd.read_csv(tmp_path / "unet" / "iou_lesion.csv")
    assert lesion["train"].tolist() == [0.25, 0.25]
    assert lesion["validation"].isna().all()


def test_the_curves_have_the_columns_that_dvc_draws(tmp_path: Path) -> None:
    (definition,) = YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
    write_curves(tmp_path, HISTORY)
    columns = [definition["reports/curves"]["x"], *definition["reports/curves"]["y"]]
    for path in tmp_path.glob("*.csv"):
        assert pd.read_csv(path).columns.tolist() == columns


def test_curves_of_an_earlier_run_do_not_stay(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "iou_tumour.csv").write_text("old")
    write_curves(tmp_path / "unet", HISTORY)
    assert not (tmp_path / "unet" / "iou_tumour.csv").exists()


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ("models/unet.py", True),
        ("data/sampling.py", True),
        ("training.py", True),
        ("label_values.py", True),
        ("ui.py", False),
    ],
)
def test_a_checkpoint_is_held_to_the_code_that_trains(
    tmp_path: Path, changed: str, differs: bool
) -> None:
    source = shutil.copytree(ROOT / "src", tmp_path / "src")
    before = code_hash(source)
    with (source / changed).open("a", encoding="utf-8") as stream:
        stream.write("# changed\n")
    assert (code_hash(source) != before) is differs


@pytest.mark.parametrize(
    ("group", "changes", "differs"),
    [
        ("evaluate", {"gallery_slices": 7}, False),
        ("audit", {"near_duplicate_correlation": 0.9}, False),
        ("compare", {"registered_model": "another"}, False),
        ("inference", {"flips": True}, False),
        ("train", {"learning_rate": 0.5}, True),
        ("prepare", {"normalise": "unit"}, True),
        ("split", {"seed": 1}, True),
    ],
)
def test_a_checkpoint_is_held_to_the_parameters_that_train(
    tmp_path: Path, group: str, changes: dict[str, object], differs: bool
) -> None:
    cases = tmp_path / "index.csv"
    cases.write_text("case_id\n", encoding="utf-8")
    provenance = {"data_hash": "d", "split_hash": "s", "git_commit": "c"}
    params = load_params(ROOT / "params.yaml")
    changed = params.model_copy(update={group: getattr(params, group).model_copy(update=changes)})
    before, after = (
        fingerprint(public_parameters(one, "unet", 0), "float32", provenance, cases)
        for one in (params, changed)
    )
    assert (before != after) is differs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a training that the minutes ended, and what it said.

    It found the unfinished run of other parameters.
    """
    root = tmp_path_factory.mktemp("trained")
    (root / "src").symlink_to(ROOT / "src")
    write_phantom(root / "data", patients=6, seed=7)
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    content["prepare"]["image_size"] = [32, 32]
    content["train"] |= {"epochs": 1000, "max_minutes": 0.05, "patience": 1000}
    content["train"] |= {"overlay_every": 1000, "precision": "float32"}
    content["train"]["model"] |= {"depth": 2, "filters": 4}
    yaml.dump(content, root / "params.yaml")
    state = root / "checkpoints" / "unet" / "fold0" / "state.npz"
    state.parent.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        store = tracking.open_store(root)
    left = store.client.create_run(store.experiment_id, run_name="left behind").info.run_id
    head = {"epoch": 3, "fingerprint": "other", "note": {"run_id": left}}
    np.savez(state, progress=np.array(json.dumps(head)))
    said = ""
    for command in (["-c", STAGES], ["-m", "src.stages.train", "unet", "0"]):
        environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        done = subprocess.run(
            [sys.executable, *command], cwd=root, text=True, check=False,
            env=environment | {"PYTHONPATH": str(root)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        said += done.stdout
    return root, said


def test_a_run_names_the_machine_that_computed_it(
    trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = trained[0]
    path = root / "models" / "unet" / "fold0" / "run.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    assert summary["machine"] == machine()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tracking.open_store(root).client.get_run(summary["run_id"])
    assert run.data.tags["machine"] == machine()


def test_a_training_that_goes_on_elsewhere_is_warned_of_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert machines(None, "2 cores, A") == machines("2 cores, A", "2 cores, A") == "2 cores, A"
    assert not capsys.readouterr().err
    both = machines("2 cores, A", "1 core, A")
    assert both == "2 cores, A; 1 core, A"
    said = " ".join(capsys.readouterr().err.split())
    assert "begun on 2 cores, A and goes on on 1 core, A" in said
    assert machines(both, "1 core, A") == both
    assert not capsys.readouterr().err


def test_an_unfinished_run_that_is_not_gone_on_with_is_told_of_and_ends(
    trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, said = trained
    assert (
        "warning: an unfinished run of other data, parameters or code was found; it is begun anew"
    ) in said
    assert "going on after" not in said
    assert not list((root / "checkpoints").rglob("*.npz"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = tracking.open_store(root)
    (left,) = store.client.search_runs([store.experiment_id], "run_name = 'left behind'")
    assert (left.info.status, left.data.tags["state"]) == ("KILLED", "begun anew")


def test_the_last_epoch_is_drawn_where_training_ended_early(
    trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = trained[0]
    path = root / "models" / "unet" / "fold0" / "run.json"
    last = json.loads(path.read_text(encoding="utf-8"))["epochs"]
    assert 1 < last < 1000
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = tracking.open_store(root)
    (pictures,) = store.client.search_runs([store.experiment_id], "tags.stage = 'overlays'")
    listed = store.client.list_artifacts(pictures.info.run_id, "images")
    steps = [item.path.split("+")[2] for item in listed if item.path.endswith(".png")]
    assert {int(step) for step in steps} == {0, 1, last}
    cases = {item.path.split("+")[0] for item in listed}
    assert len(steps) == 3 * len(cases)


# --- An MLflow server that is lost ----------------------------------------------------------------


@dataclass(frozen=True)
class Tracked:
    """A folder in which a training of forty epochs can be started, and the MLflow server of it."""

    root: Path
    server: MlflowServer

    def begin(self, retries: int) -> subprocess.Popen[str]:
        """A training that asks the server so many times again; it is past its first epoch."""
        own = {"PYTHONPATH": str(self.root), "MLFLOW_TRACKING_URI": self.server.address}
        process = subprocess.Popen(
            [sys.executable, "-m", "src.stages.train", "unet", "0"], cwd=self.root, text=True,
            env=os.environ | own | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        while not (self.root / "checkpoints" / "unet" / "fold0" / "state.npz").exists():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        return process


@pytest.fixture
def tracked(trained: tuple[Path, str], tmp_path: Path) -> Iterator[Tracked]:
    """With the data of `trained`."""
    root = tmp_path / "repository"
    root.mkdir()
    for name in ("src", "data", "prepared"):
        (root / name).symlink_to(trained[0] / name)
    yaml = YAML()
    content = yaml.load(trained[0] / "params.yaml")
    content["train"] |= {"epochs": 40, "max_minutes": None}
    yaml.dump(content, root / "params.yaml")
    with mlflow_server(tmp_path / "server") as server:
        yield Tracked(root, server)


@pytest.mark.slow
def test_a_training_waits_for_an_mlflow_server_that_is_started_again(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = tracked.begin(retries=7)
    tracked.server.stop()
    time.sleep(3)
    tracked.server.start()
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "does not answer; it is asked again" in said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked.server.address)
    store = tracking.open_store(tracked.root)
    (run,) = store.client.search_runs([store.experiment_id], "tags.stage = 'train'")
    curve = store.client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted({point.step for point in curve}) == list(range(1, 41))
    assert run.info.status == "FINISHED"


def test_a_training_whose_mlflow_server_is_lost_says_so_and_goes_on_when_it_is_back(
    tracked: Tracked,
) -> None:
    process = tracked.begin(retries=1)
    tracked.server.stop()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    shown = tracked.server.address.replace("secret", "***")
    last = said.splitlines()[-1]
    assert last.startswith(f"error: MLFLOW_TRACKING_URI={shown} cannot be reached: ")
    assert "secret" not in said

    tracked.server.start()
    said, _ = tracked.begin(retries=1).communicate(timeout=300)
    assert re.search(r"going on after epoch \d+ of an unfinished run", said)
    assert "best epoch" in said.splitlines()[-1]
