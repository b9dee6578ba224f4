from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src import tracking
from tests.tiny_models import expected_mask, save_threshold_model
from tests.tracking.conftest import REPOSITORY, TAGS, finished_run


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def server(code: str, port: int, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `code` with the port, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"import pathlib, sys, src.tracking as t; {code}", str(port)],
        cwd=folder,
        # Without the environment's bin/: nobody has to activate it.
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PATH": os.defpath},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # the server starts a process of its own
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)


def answer(request: urllib.request.Request | str, process: subprocess.Popen[str]) -> bytes:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return bytes(response.read())
        except urllib.error.URLError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise
            time.sleep(0.2)


def test_the_user_interface_lists_the_runs_of_the_store(store: tracking.Store) -> None:
    run_id = finished_run(store)
    port = free_port()
    with server("t.serve_ui(pathlib.Path(), int(sys.argv[1]))", port, store.root) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        assert address == (
            f"http://127.0.0.1:{port}/#/experiments/0/runs?workflowType=machine_learning"
        )
        base = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow"
        request = urllib.request.Request(
            f"{base}/runs/search",
            json.dumps({"experiment_ids": ["0"]}).encode(),
            {"Content-Type": "application/json"},
        )
        runs = json.loads(answer(request, process))["runs"]
        assert run_id in [run["info"]["run_id"] for run in runs]
        telemetry = base.replace("2.0", "3.0") + "/ui-telemetry"
        assert json.loads(answer(telemetry, process))["disable_ui_telemetry"] is True


def command_lines(group: int) -> list[str]:
    """What everyone can read of the processes of a group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(folder.name)) == group:
                found.append((folder / "cmdline").read_bytes().decode())
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the process list of Linux")
def test_no_command_line_of_the_user_interface_holds_the_password(
    database: str, store: tracking.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.replace("tester@", "tester:secret@"))
    port = free_port()
    with server("t.serve_ui(pathlib.Path(), int(sys.argv[1]))", port, store.root) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        assert b"mlflow" in answer(address, process)
        lines = command_lines(process.pid)
    assert len(lines) > 1
    assert [line for line in lines if "secret" in line] == []


def test_the_link_to_a_server_holds_no_password(
    store: tracking.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with server("t.serve_ui(pathlib.Path(), int(sys.argv[1]))", port, store.root) as process:
        assert process.stdout is not None
        link = process.stdout.readline().split()[-1]
        answer(link, process)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
        tracking.serve_ui(store.root, free_port())
    assert capsys.readouterr().out == f"Open {link}\n"


def test_a_port_in_use_is_an_error_that_names_another(store: tracking.Store) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port {port} .* make ui PORT={port + 1}"):
            tracking.serve_ui(store.root, port)


def test_the_example_client_gets_the_mask_of_the_champion(
    store: tracking.Store, tmp_path: Path
) -> None:
    folder = save_threshold_model(tmp_path / "model")
    with tracking.start_run(store, "threshold", parameters={}, tags=TAGS) as run:
        uri = tracking.log_model(run, folder)
    tracking.register_champion(
        store, run.run_id, uri, name="served", description="", reason="the only one"
    )
    images = np.random.default_rng(1).integers(-90, 90, (3, 9, 7)).astype(np.int16)
    np.save(tmp_path / "hu.npy", images)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with server(
        "t.serve_model(pathlib.Path(), 'served', int(sys.argv[1]))", port, store.root
    ) as process:
        assert process.stdout is not None
        assert "served version 1 is being loaded" in process.stdout.readline()
        answer(f"{address}/ping", process)
        command: list[Any] = [sys.executable, REPOSITORY / "examples" / "client.py"]
        command += [tmp_path / "hu.npy", tmp_path / "mask.npy"]
        command += ["--address", f"{address}/invocations", "--spacing-mm", "0.5", "0.7"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    mask = np.load(tmp_path / "mask.npy")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected_mask(images))


def test_without_a_champion_there_is_nothing_to_serve(store: tracking.Store) -> None:
    with pytest.raises(ValueError, match=r"nobody has no champion .* dvc repro"):
        tracking.serve_model(store.root, "nobody", free_port())


def test_a_missing_champion_or_model_is_told_of_without_the_password(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = database.replace("tester@", "tester:secret@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    store = tracking.open_store(tmp_path)
    shown = re.escape(address.replace("secret", "***"))
    with pytest.raises(ValueError, match=rf"nobody has no champion in {shown}\."):
        tracking.serve_model(tmp_path, "nobody", free_port())
    with pytest.raises(LookupError, match=rf"no champion of 'nobody' in {shown}\."):
        tracking.champion_folder(store, "nobody")
    with pytest.raises(LookupError, match=rf"run abc has no model in {shown}\."):
        tracking.model_of(store, "abc")
