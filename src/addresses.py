"""Addresses of stores and servers: shown without passwords, and tried before anything waits."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

ANSWER_SECONDS = 5  # to take a connection; who is slow to answer after that is waited for


def hide_password(text: str) -> str:
    """An address, or a text with addresses in it, as it may be shown."""
    text = re.sub(r"([^:@/\s]*):(?!//)\S*@", r"\1:***@", text)
    return re.sub(r"(password=)[^&\s]*", r"\1***", text)


def without_user(address: str) -> str:
    """A server's address for a browser, which asks for user and password itself."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def unreachable(address: str, reason: str) -> OSError:
    """The error of a server that does not answer.

    Args:
        address: Of the server; its password is not shown.
        reason: What the system or the server says; its first line is shown.
    """
    said = hide_password(reason).strip().partition("\n")[0].rstrip(".")
    return OSError(
        f"{hide_password(address)} cannot be reached: {said}. Is the server up, and are address, "
        "user and password right?"
    )


def connected(address: str) -> Any:
    """A connection to a database server, each of whose statements stands for itself.

    Raises:
        OSError: The server cannot be reached, or refuses the user or the database.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(
        address,
        poolclass=sqlalchemy.NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"connect_timeout": ANSWER_SECONDS},
    )
    try:
        return engine.connect()
    except sqlalchemy.exc.DBAPIError as error:
        raise unreachable(address, str(error.orig)) from None
