from pathlib import Path

import pytest

from src import tracking
from src.stages.report import champion_run, main
from tests.report_files import CHAMPION, write_reports
from tests.tracking.conftest import TAGS, finished_run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def store(root: Path) -> tracking.Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return tracking.open_store(root)


def trained_as(reports: Path, run_id: str) -> None:
    """Lets the champion of one split be trained by this run."""
    path = reports / "evaluation" / CHAMPION / "fold0" / "scores.json"
    path.write_text(path.read_text().replace(f"{CHAMPION}-run-0", run_id))


def test_the_page_is_written_and_kept_with_the_run_of_the_champion(
    root: Path,
    store: tracking.Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reports = write_reports(root / "reports")
    run_id = finished_run(store)
    trained_as(reports, run_id)
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = store.client.get_run(run_id).info
    main()
    assert (root / "reports" / "report.html").read_text().lstrip().startswith("<!doctype html>")
    (kept,) = store.client.list_artifacts(run_id, "report")
    assert kept.path == "report/report.html"
    after = store.client.get_run(run_id).info
    assert (after.status, after.end_time) == (before.status, before.end_time)
    assert "open reports/report.html" in capsys.readouterr().out


def test_the_run_of_folds_is_that_of_their_ensemble(tmp_path: Path, store: tracking.Store) -> None:
    reports = write_reports(tmp_path / "reports", folds=2)
    assert champion_run(reports, store) is None
    members = f"{CHAMPION}-run-0,{CHAMPION}-run-1"
    ensemble = finished_run(store, tags=TAGS | {"members": members})
    found = champion_run(reports, store)
    assert found is not None
    assert found.run_id == ensemble


def test_a_run_of_another_machine_is_the_one_that_continues_it(
    tmp_path: Path, store: tracking.Store
) -> None:
    reports = write_reports(tmp_path / "reports")
    elsewhere = "a" * 32
    trained_as(reports, elsewhere)
    assert champion_run(reports, store) is None
    continued = finished_run(store, run_id=elsewhere)
    found = champion_run(reports, store)
    assert found is not None
    assert found.run_id == continued
