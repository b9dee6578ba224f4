"""The store: one address, one database, opened by any number of processes; and its UI.

MLflow takes seconds to import, so it is imported when a store is opened, never by importing this
module.
"""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from src.addresses import ANSWER_SECONDS, connected, hide_password
from src.tracking.hindrances import (
    ENVIRONMENT,
    RETRYING,
    WITHOUT_PASSWORDS,
    Client,
    machine_errors,
)

EXPERIMENT = "CT segmentation"

# Read by MLflow at import or at each call. A user's own setting wins (setdefault).
_QUIET_AND_OFFLINE = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",  # the server would fetch lists of language models
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_PRINT_MODEL_URLS_ON_CREATION": "false",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",  # it would ask a package index
    "MLFLOW_UV_AUTO_DETECT": "false",  # the requirements are named here
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # worker processes for language-model judges
    "GIT_PYTHON_REFRESH": "quiet",  # a machine without git is not an error
}


def quiet_mlflow() -> Any:
    """Import MLflow, quiet and offline."""
    for name, value in _QUIET_AND_OFFLINE.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It warns where an environment has no pip; environments made by uv have none.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    # It prints the traceback of each error that it raises as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3.connectionpool").addHandler(RETRYING)
    import mlflow

    for handler in logging.getLogger("mlflow").handlers:
        handler.addFilter(WITHOUT_PASSWORDS)
    return mlflow


def pyfunc() -> Any:
    """MLflow's model format; its import hints at type hints of its own, to no purpose."""
    quiet_mlflow()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*AnyType", UserWarning)
        return importlib.import_module("mlflow.pyfunc")


def _ask_once(uri: str) -> None:
    """Asks a server whether it answers: MLflow itself would ask for minutes, without a word.

    Raises:
        ConnectionError: It cannot be reached, or does not answer as the store.
    """
    if uri.startswith("postgresql"):
        try:
            connected(uri).close()
        except ConnectionError as error:
            raise ConnectionError(f"{ENVIRONMENT}={error}") from None
    elif uri.startswith("http"):
        from mlflow.tracking._tracking_service.utils import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        with machine_errors(uri):
            answer = http_request(
                get_default_host_creds(uri),
                f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(EXPERIMENT)}",
                "GET",
                max_retries=0,
                timeout=(ANSWER_SECONDS, 60),  # a busy server answers late
                raise_on_status=False,
            )
        told = answer.headers.get("Content-Type", "").startswith("application/json")
        if not told or answer.status_code not in (200, 404):  # 404: no such experiment yet
            raise ConnectionError(
                f"{ENVIRONMENT}={hide_password(uri)} answers {answer.status_code} {answer.reason}, "
                "not as an MLflow server. Is the server up, are address, user and password right, "
                "and does it take this name for its own (--allowed-hosts)?"
            )


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        root: The repository, never DVC's temporary copy of it.
        uri: Address of the tracking store and the registry.
        experiment_id: The experiment that runs are written to.
    """

    root: Path
    uri: str
    experiment_id: str

    @property
    def shown(self) -> str:
        """The address for messages, without its password."""
        return hide_password(self.uri)

    @property
    def client(self) -> Any:
        """An `MlflowClient` of this store, whose calls raise what hinders it as OSError."""
        made = quiet_mlflow().MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        return Client(made, self.uri)

    @property
    def lock(self) -> FileLock:
        """A lock between the processes of this machine that use the store."""
        return _lock(self.root)


def repository(root: Path) -> Path:
    """The real repository behind a path, absolute.

    `dvc exp run --temp` and `--queue` run the pipeline in a copy, `REPO/.dvc/tmp/exps/…`, that is
    thrown away afterwards; `REPO` is what is meant.
    """
    parts = Path(root).resolve().parts
    for index in range(len(parts)):
        if parts[index : index + 3] == (".dvc", "tmp", "exps"):
            return Path(*parts[:index])
    return Path(*parts)


def store_uri(root: Path) -> str:
    """The address of the store, always absolute.

    Args:
        root: The repository, or DVC's temporary copy of it.

    Returns:
        `MLFLOW_TRACKING_URI` where set (a relative SQLite path is taken from the repository),
        else `sqlite:///REPO/mlruns/mlflow.db`.

    Raises:
        ValueError: if `MLFLOW_TRACKING_URI` is another: MLflow no longer writes to a folder, and
            the drivers of other databases are not installed.
    """
    uri = os.environ.get(ENVIRONMENT) or "sqlite:///mlruns/mlflow.db"
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{repository(root) / uri.removeprefix('sqlite:///')}"
    scheme = uri.partition("://")[0]
    if scheme not in ("http", "https", "postgresql", "postgresql+psycopg"):
        folder = "the folder " if scheme in (uri, "file") else ""
        raise ValueError(
            "MLFLOW_TRACKING_URI must be a database or a server, got "
            f"{folder}{hide_password(uri)!r}. "
            "Use sqlite:///mlruns/mlflow.db, postgresql://… or http://…, or unset it."
        )
    try:
        urlsplit(uri).port  # noqa: B018  # asked for whether it is a number
    except ValueError:
        raise ValueError(
            f"the port in MLFLOW_TRACKING_URI must be a number, as in {scheme}://host:5000. Write "
            "@, : and / of a password as %40, %3A and %2F."
        ) from None
    return uri


def open_store(root: Path, experiment: str = EXPERIMENT) -> Store:
    """Open the store; create the database and the experiment if they are not there.

    A fresh database is made under a file lock in a file of another name and moved into place when
    it is whole: several processes creating one at once break it, and so does one that is killed.

    Args:
        root: The repository, or DVC's temporary copy of it.
        experiment: The name of the experiment.

    Returns:
        The store, also set as MLflow's own current store.

    Raises:
        ValueError: if `MLFLOW_TRACKING_URI` is an address of another kind, or of a store whose
            artifacts lie in a folder of another machine.
        ConnectionError: if the server cannot be reached.
    """
    uri = store_uri(root)
    root = repository(root)
    mlflow = quiet_mlflow()
    _ask_once(uri)
    with _lock(root), machine_errors(uri):
        if uri.startswith("sqlite:///"):
            _create_database(Path(uri.removeprefix("sqlite:///")))
        environment = os.environ.get(ENVIRONMENT)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        # MLflow also writes the address into the environment, where the next call of store_uri,
        # perhaps for another repository, would take it for the user's choice.
        if environment is None:
            os.environ.pop(ENVIRONMENT, None)
        client = mlflow.MlflowClient()
        found = client.get_experiment_by_name(experiment)
        if found is None:
            location = artifacts_of(root, uri)
            found = client.get_experiment(client.create_experiment(experiment, location))
        _refuse_a_foreign_place(uri, found.artifact_location)
        if "mlflow.experimentKind" not in found.tags:
            # Spares people the UI's question whether this is about language models.
            kind = "custom_model_development"
            client.set_experiment_tag(found.experiment_id, "mlflow.experimentKind", kind)
    return Store(root, uri, found.experiment_id)


def _lock(root: Path) -> FileLock:
    folder = root / "mlruns"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "store.lock", timeout=300)


def artifacts_of(root: Path, uri: str) -> str | None:
    """Where the artifacts of a store lie; None where a server knows a place of its own."""
    if uri.startswith(("http://", "https://")):
        return None
    if uri.startswith("sqlite:///"):
        return (Path(uri.removeprefix("sqlite:///")).parent / "artifacts").as_uri()
    return (root / "mlruns" / "artifacts").as_uri()


def _refuse_a_foreign_place(uri: str, location: str) -> None:
    """Raises where the artifacts of a shared store lie in a folder of another machine.

    A folder is not missed before something was kept in it; that above it, the repository of whoever
    made the experiment, is. A file of SQLite is this machine's own, wherever it was moved to.
    """
    if uri.startswith("sqlite:///") or not location.startswith(("file:", "/")):
        return
    path = Path(url2pathname(urlsplit(location).path))
    if not path.parent.parent.is_dir():
        raise ValueError(
            f"{hide_password(uri)} keeps its artifacts in {path}, which is not on this machine: "
            "models and pictures could not be kept. Machines share a store through an MLflow "
            "server that keeps the artifacts too, with a database of its own: see docs/studies.md."
        )


def _create_database(path: Path) -> None:
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    store = SqlAlchemyStore(f"sqlite:///{unfinished}", (path.parent / "artifacts").as_uri())
    # MLflow insists on a first experiment; under this name the UI opens with one, not two.
    store.rename_experiment("0", EXPERIMENT)
    store.engine.dispose()
    unfinished.replace(path)
