from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from src import tracking
from src.tracking.hindrances import RETRIES
from src.tracking.store import quiet_mlflow
from tests.conftest import Server
from tests.tracking.conftest import python

GONE = "http://me:secret@127.0.0.1:1"
TOLD = (
    r"^MLFLOW_TRACKING_URI=http://me:\*\*\*@127\.0\.0\.1:1 cannot be reached: Connection refused\. "
)


@pytest.fixture
def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tracking.Store]:
    """A store whose server was lost after it was opened."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", GONE)
    monkeypatch.setenv(RETRIES, "0")
    before = quiet_mlflow().get_tracking_uri()
    quiet_mlflow().set_tracking_uri(GONE)
    yield tracking.Store(tmp_path, GONE, "0")
    quiet_mlflow().set_tracking_uri(before)


@pytest.mark.parametrize(
    "call",
    [
        lambda store: tracking.find_run(store, {"stage": "study"}),
        lambda store: tracking.kept_run(store, "a"),
        lambda store: tracking.end_run(tracking.Run(store, "a"), "KILLED", {}),
        lambda store: tracking.log_metrics(tracking.Run(store, "a"), {"train/loss": 1.0}),
        lambda store: tracking.champion(store, "a"),
        lambda store: tracking.model_of(store, "a"),
        lambda store: tracking.model_folder("models:/m-1"),
        lambda store: store.client.get_run("a"),
    ],
    ids=lambda call: call.__code__.co_names[1],
)
def test_a_server_that_is_lost_is_told_of_in_one_line_wherever_it_is_asked(
    gone: tracking.Store, call: Callable[[tracking.Store], object]
) -> None:
    with pytest.raises(ConnectionError, match=TOLD) as error:
        call(gone)
    assert "\n" not in str(error.value)


def test_a_server_is_asked_again_and_that_is_told(
    gone: tracking.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(RETRIES, "2")
    with pytest.raises(ConnectionError, match=TOLD):
        tracking.kept_run(gone, "a")
    assert capsys.readouterr().err == (
        "warning: http://me:***@127.0.0.1:1 does not answer; it is asked again for some minutes\n"
    )


def test_who_stops_is_not_kept_waiting_for_a_server_that_is_gone(
    gone: tracking.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(RETRIES)
    begun = time.monotonic()
    with pytest.raises(ConnectionError, match=TOLD):
        tracking.end_run(tracking.Run(gone, "a"), "KILLED", {}, once=True)
    assert time.monotonic() - begun < 10
    assert capsys.readouterr().err == ""


def test_a_server_that_is_lost_while_a_failure_is_handled_is_told_of_by_its_own_reason(
    gone: tracking.Store,
) -> None:
    def fail() -> None:
        try:
            raise ValueError("the loss is not finite")
        finally:
            tracking.end_run(tracking.Run(gone, "a"), "FAILED", {})

    with pytest.raises(ConnectionError, match=TOLD):
        fail()


def test_what_mlflow_logs_holds_no_password(gone: tracking.Store) -> None:
    code = """
    import logging, sys
    from src.tracking.store import quiet_mlflow
    quiet_mlflow()
    logging.getLogger("mlflow.system_metrics").warning("API request to %s failed", sys.argv[1])
    """
    said = python(code, f"{gone.uri}/api?run_id=a").stderr
    assert "API request to http://me:***@127.0.0.1:1/api?run_id=a failed" in said


def test_a_database_server_that_is_lost_within_a_run_is_told_of_in_one_line(
    own_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = own_server.address.replace("tester@", "tester:secret@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    store = tracking.open_store(tmp_path)
    shown = address.replace("secret", "***")

    def lose() -> None:
        with tracking.start_run(store, "a", parameters={}, tags={}) as run:
            own_server.stop()
            own_server.start()
            tracking.log_metrics(run, {"train/loss": 1.0})  # a dropped connection is made anew
            own_server.stop()
            tracking.log_metrics(run, {"train/loss": 2.0}, step=1)

    with pytest.raises(ConnectionError) as error:
        lose()
    assert str(error.value).startswith(f"MLFLOW_TRACKING_URI={shown} cannot be reached: ")
    assert "\n" not in str(error.value)
