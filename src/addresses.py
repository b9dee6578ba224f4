"""Addresses of stores and servers: shown without passwords, and tried before they are used."""

from __future__ import annotations

import re
import socket
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


def unreachable(address: str, reason: str) -> ConnectionError:
    """The error of a server that does not answer, or does so no more.

    Args:
        address: Of the server; its password is not shown.
        reason: What the system or the server says; its first line is shown.
    """
    said = hide_password(reason).strip().partition("\n")[0].rstrip(".")
    return ConnectionError(
        f"{hide_password(address)} cannot be reached: {said}. Is the server up, and are address, "
        "user and password right?"
    )


def raise_unreachable(engine: Any, address: str) -> None:
    """Has an engine of SQLAlchemy raise `unreachable` where a connection is refused or lost.

    Whoever uses the engine, such as Optuna, wraps SQLAlchemy's own errors in others.
    """
    from sqlalchemy import event

    @event.listens_for(engine, "handle_error")
    def tell(context: Any) -> None:
        is_refused = context.connection is None
        # A ping is how a lost connection of the pool is noticed, and made anew.
        if (is_refused or context.is_disconnect) and not context.is_pre_ping:
            raise unreachable(address, str(context.original_exception))


def connected(address: str) -> Any:
    """A connection to a database server, each of whose statements stands for itself.

    Raises:
        ConnectionError: The server cannot be reached, or refuses the user or the database; also
            later, where the connection is lost.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(
        address,
        poolclass=sqlalchemy.NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"connect_timeout": ANSWER_SECONDS},
    )
    raise_unreachable(engine, address)
    return engine.connect()


def refuse_a_used_port(port: int, command: str) -> None:
    """Asks, before anything is said of it, whether a port of this machine is free.

    Args:
        port: Of 127.0.0.1.
        command: What is started there, as people type it: `make ui`.

    Raises:
        ValueError: Another program has it, or it may not be taken.
    """
    with socket.socket() as probe:
        # As servers do: a port whose last connection has just closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(
                f"port {port} of 127.0.0.1 cannot be used ({error.strerror}). Close what runs "
                f"there, perhaps the same command, or take another port: {command} PORT={port + 1}"
            ) from error
