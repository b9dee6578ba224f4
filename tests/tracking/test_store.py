from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from src import tracking
from src.addresses import connected
from src.tracking.hindrances import machine_errors
from tests.tracking.conftest import REPOSITORY, finished_run, python

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


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("mysql://me:secret@host/db", "got 'mysql://me:***@host/db'"),
        ("postgres//me:secret@host/db", "got the folder 'postgres//me:***@host/db'"),
        ("postgresql+psycopg2://me:secret@host/db", "got 'postgresql+psycopg2://me:***@host/db'"),
        ("http://me:secret@host:port", "the port in MLFLOW_TRACKING_URI must be a number"),
        ("postgresql://me:sec/ret@host/db", "the port in MLFLOW_TRACKING_URI must be a number"),
    ],
)
def test_an_address_that_mlflow_cannot_use_is_refused_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, shown: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI must be") as error:
        tracking.store_uri(tmp_path)
    assert shown in str(error.value)
    assert "sec" not in str(error.value)


# --- A server that does not answer ----------------------------------------------------------------


@contextmanager
def answering(status: int) -> Iterator[int]:
    """The port of a server that answers everything with `status`, until the block ends."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_address[1]
        server.shutdown()


def refused(root: Path, uri: str) -> str:
    """What a command says of this store, which it must do soon and in one line."""
    code = """
    import pathlib
    from src import terminal, tracking
    def main() -> None:
        tracking.open_store(pathlib.Path.cwd())
    terminal.run(main)
    """
    done = python(code, env={"MLFLOW_TRACKING_URI": uri}, cwd=root, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_is_not_there_is_told_of_at_once(tmp_path: Path, scheme: str) -> None:
    said = refused(tmp_path, f"{scheme}://me:secret@127.0.0.1:1/db")
    shown = f"{scheme}://me:***@127.0.0.1:1/db"
    assert f"error: MLFLOW_TRACKING_URI={shown} cannot be reached: " in said
    assert "Connection refused. Is the server up" in said


@pytest.mark.parametrize(("status", "words"), [(200, "OK"), (401, "Unauthorized"), (502, "Bad")])
def test_a_server_that_is_not_one_of_mlflow_is_told_of_at_once(
    tmp_path: Path, status: int, words: str
) -> None:
    with answering(status) as port:
        said = refused(tmp_path, f"http://me:secret@127.0.0.1:{port}")
    assert f"MLFLOW_TRACKING_URI=http://me:***@127.0.0.1:{port} answers {status} {words}" in said


def test_a_server_that_is_gone_when_a_run_begins_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    gone = tracking.Store(tmp_path, "http://me:secret@127.0.0.1:1", "0")
    message = r"http://me:\*\*\*@127.0.0.1:1 cannot be reached: Connection refused"
    with pytest.raises(OSError, match=message):
        finished_run(gone)


def test_another_server_that_is_gone_is_not_taken_for_the_store() -> None:
    with (
        pytest.raises(OSError, match=r"127\.0\.0\.1:2/studies cannot be reached"),
        machine_errors("http://127.0.0.1:1"),
        connected("postgresql://127.0.0.1:2/studies"),
    ):
        pass


def test_a_database_server_can_be_the_store(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert finished_run(tracking.open_store(tmp_path))


# --- Where the artifacts lie ----------------------------------------------------------------------


def test_a_store_whose_artifacts_lie_on_another_machine_is_refused(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.replace("tester@", "tester:secret@"))
    here, there = tmp_path / "here", tmp_path / "there"
    tracking.open_store(there, "shared")
    tracking.open_store(here, "shared")  # another repository of this machine: its folder is there
    shutil.move(there, tmp_path / "gone")
    with pytest.raises(ValueError, match="which is not on this machine") as error:
        tracking.open_store(here, "shared")
    assert f"keeps its artifacts in {there}/mlruns/artifacts, which" in str(error.value)
    assert "see docs/studies.md" in str(error.value)
    assert "secret" not in str(error.value)


def test_a_moved_repository_goes_on_with_its_own_file(tmp_path: Path) -> None:
    run_id = finished_run(tracking.open_store(tmp_path / "before"))
    shutil.move(tmp_path / "before", tmp_path / "after")
    store = tracking.open_store(tmp_path / "after")
    assert tracking.kept_run(store, run_id) is not None


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
    from src.tracking.store import quiet_mlflow

    def work(number):
        barrier.wait()
        store = tracking.open_store(pathlib.Path(sys.argv[1]))
        with tracking.start_run(store, str(number), parameters={}, tags={}) as run:
            tracking.log_metrics(run, {"train/loss": number})
            tracking.log_artifact(run, pathlib.Path(sys.argv[2]), "files")
        return store.uri

    quiet_mlflow()
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


def test_importing_the_package_imports_no_mlflow() -> None:
    code = "import sys, src.tracking; print({'mlflow', 'pandas', 'numpy'} & set(sys.modules))"
    assert python(code).stdout.strip() == "set()"
