"""Where studies are kept: addresses, a database made once, and a lock that all workers share."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from src.addresses import connected, hide_password, raise_unreachable

ENVIRONMENT = "OPTUNA_STORAGE"  # the name that Optuna's own commands read
LOCK_SECONDS = 300
# What to do where a server was lost in the middle of a study, its own or MLflow's.
GO_ON = "When it answers again, give the same command: the study goes on."
_LOCK_NUMBER = 7_062_026  # of the advisory lock; any, but the same everywhere
# The kinds of databases, each with the driver that is installed.
_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}


def quiet_optuna() -> Any:
    """Imports Optuna; it speaks of problems alone."""
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    return optuna


@contextmanager
def used_on_purpose() -> Iterator[None]:
    """Silences Optuna's remarks on what we use on purpose.

    That some of it may change in another version: ours is pinned. That signs of life are meant for
    its own loop: the worker gives them.
    """
    optuna = quiet_optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed", UserWarning)
        yield


def default_address(root: Path) -> str:
    """The database of a repository's own studies, never that of MLflow."""
    return f"sqlite:///{root / 'mlruns' / 'optuna.db'}"


def storage_address(given: str | None, root: Path, *, taken: Sequence[str]) -> str:
    """The address of the database of studies, checked.

    Args:
        given: As the user wrote it; None or "" for `default_address`. A relative SQLite path is
            taken from `root`.
        root: The repository.
        taken: Addresses that must not be used: MLflow's tables have the same names.

    Raises:
        ValueError: It is not an address that Optuna's trials can be shared through, or is taken.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    expected = "the storage must be an address such as postgresql://user@host:5432/studies"
    try:
        url = make_url(given or default_address(root))
    except ArgumentError:
        raise ValueError(
            f"{expected}; what was given is none, and may hold a password, so it is not shown"
        ) from None
    except ValueError:
        raise ValueError(
            f"{expected}, got one whose port is no number. Write @, : and / of a password as "
            "%40, %3A and %2F."
        ) from None
    kind = url.get_backend_name()
    if kind not in _DRIVERS:
        raise ValueError(
            f"the storage must be sqlite or postgresql, got {hide_password(str(url))}: no driver "
            "of other databases is installed"
        )
    url = url.set(drivername=_DRIVERS[kind])
    if kind == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ValueError("the storage must be a file: other processes cannot see this memory")
        url = url.set(database=str((root / url.database).resolve()))
    address = url.render_as_string(hide_password=False)
    for other in taken:
        if "://" in other and _place(other) == _place(address):
            raise ValueError(
                f"{hide_password(address)} is MLflow's own database, and the two would spoil each "
                "other's tables. Name another database, such as mlruns/optuna.db."
            )
    return address


def _place(address: str) -> tuple[Any, ...]:
    from sqlalchemy.engine import make_url

    url = make_url(address)
    return url.get_backend_name().removesuffix("ql"), url.host, url.port, url.database


@contextmanager
def alone(address: str) -> Iterator[None]:
    """Runs its block in one process at a time, of all the machines that share the database.

    The system, or the database server, frees the lock of a process that is gone.

    Raises:
        OSError: The database cannot be reached, or another process kept the lock for too long.
    """
    import sqlalchemy
    from sqlalchemy.engine import make_url

    url = make_url(address)
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database))
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock", timeout=LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout:
            raise OSError(
                f"another process has kept the lock of {path} for {LOCK_SECONDS} s. End the one "
                "that hangs, then run the same command again."
            ) from None
        try:
            yield
        finally:
            lock.release()
        return
    with connected(address) as connection:  # which waits for the lock without an end
        number = {"key": _LOCK_NUMBER}
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), number)
        try:
            yield
        finally:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), number)


def open_storage(address: str, *, heartbeat_seconds: int | None = None) -> Any:
    """Opens the database; makes its tables where it is fresh. Call it within `alone`.

    Args:
        address: From `storage_address`.
        heartbeat_seconds: Of the process that claims trials; a trial without a sign of life for
            four times as long counts as killed. None for a process that only reports.

    Returns:
        An `optuna.storages.RDBStorage`.
    """
    optuna = quiet_optuna()
    if address.startswith("sqlite:"):
        _create(Path(address.removeprefix("sqlite:///")))
    with used_on_purpose():
        storage = optuna.storages.RDBStorage(
            address,
            engine_kwargs=_engine(address),
            heartbeat_interval=heartbeat_seconds,
            grace_period=4 * heartbeat_seconds if heartbeat_seconds else None,
        )
    return _telling(storage, address)


def join_storage(address: str) -> Any:
    """Opens a database whose tables another process has made and checked; it only reports."""
    storage = quiet_optuna().storages.RDBStorage(
        address,
        engine_kwargs=_engine(address),
        skip_compatibility_check=True,
        skip_table_creation=True,
    )
    return _telling(storage, address)


def _telling(storage: Any, address: str) -> Any:
    """A storage whose every use raises ConnectionError where the server is gone."""
    if not address.startswith("sqlite:"):
        raise_unreachable(storage.engine, address)
    return storage


def _engine(address: str) -> dict[str, Any]:
    if address.startswith("sqlite:"):
        return {"connect_args": {"timeout": 120}}  # seconds to wait for another process
    return {"pool_pre_ping": True}  # a connection that the server dropped is made anew


def _create(path: Path) -> None:
    """A fresh file is made under another name, so that a killed process leaves no half of it."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    storage = quiet_optuna().storages.RDBStorage(f"sqlite:///{unfinished}")
    storage.engine.dispose()
    unfinished.replace(path)


def serve_dashboard(address: str, port: int) -> None:
    """Serves Optuna's dashboard at http://127.0.0.1:PORT, until Ctrl-C."""
    with used_on_purpose():
        from optuna_dashboard import run_server
    with alone(address):
        storage = open_storage(address)
    print(f"Open http://127.0.0.1:{port}", flush=True)  # noqa: T201  # the command's own words
    run_server(storage, host="127.0.0.1", port=port)
