"""What hinders a store, such as a full disk or a server that is gone, told as the OSError it is."""

from __future__ import annotations

import errno
import functools
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from src import terminal
from src.addresses import hide_password, unreachable

ENVIRONMENT = "MLFLOW_TRACKING_URI"
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"  # read by MLflow at each call; 7 take it 4 minutes

# What hinders SQLite, and the system's own number for it.
_HINDRANCES = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
}
_LIBRARIES = ("mlflow", "requests", "urllib3", "sqlalchemy", "psycopg")


@contextmanager
def machine_errors(uri: str) -> Iterator[None]:
    """Raises what hinders the store (a full disk, a server that is gone) as the OSError it is.

    MLflow wraps it in an exception of its own, which a command would take for a defect.

    Args:
        uri: Address of the store, for the message.

    Raises:
        OSError: The machine's limit, naming the store.
    """
    try:
        yield
    except Exception as error:
        if uri.startswith("sqlite:///"):
            causes = (one for one in _causes(error) if isinstance(one, sqlite3.Error))
            # The lowest byte is the kind; what stands above it tells variants apart.
            code = getattr(next(causes, None), "sqlite_errorcode", 0) & 0xFF
            if code in _HINDRANCES:
                number = _HINDRANCES[code]
                path = uri.removeprefix("sqlite:///")
                raise OSError(number, os.strerror(number), path) from error
        elif _is_of_connection(error):
            raise unreachable(f"{ENVIRONMENT}={uri}", _reason(error)) from None
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from, down to the first of them."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_of_connection(error: Exception) -> bool:
    """Whether MLflow lost its server; a study's database, lost meanwhile, is not meant."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import OperationalError

    return isinstance(error, MlflowException | RequestException) and any(
        isinstance(cause, RequestException | OperationalError) for cause in _causes(error)
    )


def _reason(error: BaseException) -> str:
    """What the system said: the libraries wrap it several times.

    What an error came from may go further back, to another that was being handled meanwhile.
    """
    causes = [*_causes(error)]
    said = [one.strerror for one in causes if isinstance(one, OSError) and one.strerror]
    within = [one for one in causes if type(one).__module__.partition(".")[0] in _LIBRARIES]
    return said[0] if said else str(within[-1])


class Client:
    """An `MlflowClient`, each of whose calls stands within `machine_errors`."""

    def __init__(self, client: Any, uri: str) -> None:
        self._client, self._uri = client, uri

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        @functools.wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            with machine_errors(self._uri):
                return method(*arguments, **options)

        return call


class _WithoutPasswords(logging.Filter):
    """Hides them in what MLflow logs, such as addresses in its warnings."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = hide_password(record.getMessage()), None
        return True


WITHOUT_PASSWORDS = _WithoutPasswords()


class _Retrying(logging.Handler):
    """Says that a server is asked again: MLflow does so for minutes, without a word."""

    def emit(self, record: logging.LogRecord) -> None:
        retries = record.args[0] if isinstance(record.args, tuple) and record.args else None
        if len(getattr(retries, "history", ())) == 1:  # the first time in a call
            address = hide_password(os.environ.get(ENVIRONMENT, "the server of MLflow"))
            terminal.warn(f"{address} does not answer; it is asked again for some minutes")


RETRYING = _Retrying()


@contextmanager
def asked_once() -> Iterator[None]:
    """Within it a server that does not answer is not asked again."""
    before = os.environ.get(RETRIES)
    os.environ[RETRIES] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[RETRIES]
        else:
            os.environ[RETRIES] = before
