"""PostgreSQL servers that are started for the tests, and the seed of what draws without one."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


# Keras takes from here the seeds of weights and dropout that are given none. Without these a test
# would depend on those that ran before it in its process.
@pytest.fixture(scope="module", autouse=True)
def the_seed_of_a_module() -> None:
    random.seed(1)


@pytest.fixture(autouse=True)
def the_seed_of_a_test() -> None:
    random.seed(2)


def program(name: str) -> str | None:
    """Where a program of PostgreSQL is; Debian keeps them off PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server on 127.0.0.1, run by a user who is not root.

    Attributes:
        folder: Holds its data.
        port: Where it listens, the same at every start.
        user: Who runs it; None for whoever runs the tests.
    """

    folder: Path
    port: int
    user: str | None

    @property
    def address(self) -> str:
        return f"postgresql://tester@127.0.0.1:{self.port}/postgres"

    def make(self) -> None:
        self._run("initdb", "--username=tester", "--auth=trust", "--no-sync", "--encoding=UTF8")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off"
        options += f" -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "start", "--wait", "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        """At once, as where the machine is switched off."""
        self._run("pg_ctl", "stop", "--wait", "-m", "immediate")

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [str(program(name)), "-D", str(self.folder / "data"), *arguments], check=True,
            user=self.user, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
        )  # fmt: skip


@contextmanager
def running_server() -> Iterator[Server]:
    """A fresh server, until the block ends, within which it may be stopped."""
    if program("initdb") is None:
        reason = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to be run by root
    # Not tmp_path: its parents are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="ct-postgresql-"))
    if user:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(folder, port, user)
    server.make()
    server.start()
    try:
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of a server that all tests share."""
    with running_server() as server:
        yield server.address


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server of one test, which may stop it."""
    with running_server() as server:
        yield server
