"""A real store, and runs in it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from src import tracking
from src.addresses import connected

REPOSITORY = Path(__file__).resolve().parents[2]
TAGS = {
    "data_hash": "d" * 32, "split_hash": "5" * 32, "truth_hash": "f" * 6, "git_commit": "c" * 40,
    "git_dirty": "false",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_address_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tracking.Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return tracking.open_store(tmp_path_factory.mktemp("a repository"))


@pytest.fixture(scope="session")
def database(postgresql: str) -> str:
    """The address of a database for MLflow alone: Optuna's tables have the same names."""
    with connected(postgresql) as connection:
        connection.execute(sqlalchemy.text("CREATE DATABASE runs"))
    return postgresql.replace("/postgres", "/runs")


def finished_run(store: tracking.Store, **changes: Any) -> str:
    arguments: dict[str, Any] = {"parameters": {"seed": 7}, "tags": TAGS} | changes
    with tracking.start_run(store, "unet, 3f9c1e", **arguments) as run:
        return run.run_id


def python(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | options.pop("env", {})
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)
