import subprocess
import sys
from pathlib import Path

import pytest

from src.search import default_address, storage, storage_address
from src.search.storage import open_storage
from tests.conftest import Server

OPEN = """
import sys
from src.search.storage import alone, open_storage, quiet_optuna
with alone(sys.argv[1]):
    open_storage(sys.argv[1])
"""


def test_the_default_is_a_file_of_its_own(tmp_path: Path) -> None:
    address = storage_address(None, tmp_path, taken=[f"sqlite:///{tmp_path}/mlruns/mlflow.db"])
    assert address == default_address(tmp_path.resolve())
    assert address.endswith("/mlruns/optuna.db")


def test_a_relative_file_is_taken_from_the_repository(tmp_path: Path) -> None:
    address = storage_address("sqlite:///a/b.db", tmp_path, taken=[])
    assert address == f"sqlite:///{tmp_path.resolve()}/a/b.db"


def test_any_postgresql_address_gets_the_driver_that_is_installed(tmp_path: Path) -> None:
    for scheme in ("postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"):
        address = storage_address(f"{scheme}://me@host/db", tmp_path, taken=[])
        assert address == "postgresql+psycopg://me@host/db"


@pytest.mark.parametrize("given", ["sqlite:///mlruns/mlflow.db", "sqlite:///x/../mlruns/mlflow.db"])
def test_the_database_of_mlflow_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(ValueError, match="is MLflow's own database"):
        storage_address(given, tmp_path, taken=[f"sqlite:///{tmp_path.resolve()}/mlruns/mlflow.db"])


def test_the_server_database_of_mlflow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is MLflow's own database") as error:
        storage_address("postgresql://a:secret@h/db", tmp_path, taken=["postgresql://b:c@h/db"])
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("here", "must be an address such as postgresql://user@host:5432/studies"),
        ("postgres//me:secret@host/db", "what was given is none, and may hold a password"),
        ("postgresql://me:secret@host:port/db", "got one whose port is no number"),
        ("redis://host", "must be sqlite or postgresql, got redis://host"),
        ("mysql://me:secret@host/db", "must be sqlite or postgresql, got mysql://me:***@host/db"),
        ("sqlite://", "must be a file"),
    ],
)
def test_what_cannot_hold_a_shared_study_is_refused(
    tmp_path: Path, given: str, message: str
) -> None:
    with pytest.raises(ValueError, match="the storage must be") as error:
        storage_address(given, tmp_path, taken=[])
    assert message in str(error.value)
    assert "secret" not in str(error.value)


def test_a_server_that_is_not_there_is_told_of_without_the_password(tmp_path: Path) -> None:
    from src.search.storage import alone

    address = storage_address("postgresql://me:secret@127.0.0.1:1/db", tmp_path, taken=[])
    with pytest.raises(OSError, match="cannot be reached") as error, alone(address):
        pass
    assert "secret" not in str(error.value)


def test_a_lock_that_another_process_keeps_is_told_of(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "LOCK_SECONDS", 0.2)
    path = address.removeprefix("sqlite:///")
    message = f"another process has kept the lock of {path} for 0.2 s. End the one that hangs"
    with storage.alone(address), pytest.raises(OSError, match=message), storage.alone(address):
        pytest.fail("two were alone")
    with storage.alone(address):
        pass


def test_a_server_that_is_started_again_between_two_uses_is_not_missed(
    own_server: Server, tmp_path: Path
) -> None:
    opened = open_storage(storage_address(own_server.address, tmp_path, taken=[]))
    own_server.stop()
    own_server.start()
    assert opened.get_all_studies() == []
    opened.engine.dispose()


def test_a_server_that_is_lost_is_told_of_in_one_line_without_the_password(
    own_server: Server, tmp_path: Path
) -> None:
    given = own_server.address.replace("tester@", "tester:secret@")
    address = storage_address(given, tmp_path, taken=[])
    opened = open_storage(address)
    with storage.alone(address):
        pass
    with pytest.raises(ConnectionError) as within, storage.alone(address):
        own_server.stop()
    with pytest.raises(ConnectionError) as later:
        opened.get_all_studies()
    opened.engine.dispose()
    for error in (within, later):
        said = str(error.value)
        assert said.startswith(f"{address.replace('secret', '***')} cannot be reached: ")
        assert "\n" not in said
    assert "server closed the connection unexpectedly. Is the server up" in str(within.value)
    assert "Connection refused. Is the server up" in str(later.value)


def opened_at_once(address: str, number: int) -> list[subprocess.CompletedProcess[str]]:
    command = [sys.executable, "-c", OPEN, address]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(number)
    ]
    return [
        subprocess.CompletedProcess(command, one.wait(), one.communicate()[0]) for one in started
    ]


def test_a_fresh_file_is_opened_by_several_processes_at_once(address: str) -> None:
    assert [one.returncode for one in opened_at_once(address, 3)] == [0] * 3
    open_storage(address)
    assert not list(Path(address.removeprefix("sqlite:///")).parent.glob("*.unfinished"))


def test_a_fresh_server_is_opened_by_several_processes_at_once(
    postgresql: str, tmp_path: Path
) -> None:
    done = opened_at_once(storage_address(postgresql, tmp_path, taken=[]), 3)
    assert [one.returncode for one in done] == [0] * 3, done
