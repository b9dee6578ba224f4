from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src import tracking
from tests.tracking.conftest import TAGS, finished_run


def test_a_run_holds_its_parameters_tags_description_and_source(store: tracking.Store) -> None:
    run_id = finished_run(
        store, parameters={"train": {"epochs": 25}}, tags=TAGS | {"stage": "train"}, description="*"
    )
    run = store.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "unet, 3f9c1e"
    assert run.data.params == {"train.epochs": "25"}
    assert TAGS.items() <= run.data.tags.items()
    assert run.data.tags["stage"] == "train"
    assert run.data.tags["mlflow.note.content"] == "*"
    assert "/" not in run.data.tags["mlflow.source.name"]
    assert "mlflow.source.git.repoURL" not in run.data.tags


def test_a_long_parameter_is_cut_and_kept_whole_as_a_file(store: tracking.Store) -> None:
    run_id = finished_run(store, parameters={"notes": "x" * 501})
    assert store.client.get_run(run_id).data.params["notes"] == "x" * 499 + "…"
    path = store.client.download_artifacts(run_id, "parameters.json")
    assert json.loads(Path(path).read_text())["notes"] == "x" * 501


def test_more_than_a_hundred_parameters_are_kept(store: tracking.Store) -> None:
    run_id = finished_run(store, parameters={f"p{number}": number for number in range(250)})
    assert len(store.client.get_run(run_id).data.params) == 250


def test_metrics_with_slashes_are_kept_at_their_steps(store: tracking.Store) -> None:
    with tracking.start_run(store, "a", parameters={}, tags={}) as run:
        tracking.log_metrics(run, {"validation/iou/lesion": 0.25, "train/loss": 2.0}, step=0)
        tracking.log_metrics(run, {"validation/iou/lesion": np.float32(0.5)}, step=1)
    history = store.client.get_metric_history(run.run_id, "validation/iou/lesion")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.25), (1, 0.5)]


def test_a_number_that_is_not_finite_is_named_in_a_tag_and_not_drawn(
    store: tracking.Store,
) -> None:
    with tracking.start_run(store, "a", parameters={}, tags={}) as run:
        tracking.log_metrics(run, {"test/dice/lesion": float("nan"), "loss": float("inf")}, step=3)
    data = store.client.get_run(run.run_id).data
    assert data.metrics == {}
    assert data.tags["not_finite/test/dice/lesion"] == "nan at step 3"
    assert data.tags["not_finite/loss"] == "inf at step 3"


def test_pictures_are_kept_at_their_steps(store: tracking.Store) -> None:
    import cv2

    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    with tracking.start_run(store, "a", parameters={}, tags={}) as run:
        for step in (0, 5):
            tracking.log_picture(run, "overlay/case 01", picture, step)
    paths = [item.path for item in store.client.list_artifacts(run.run_id, "images")]
    full = sorted(path for path in paths if path.endswith(".png"))
    assert [path.split("+")[:3] for path in full] == [
        ["images/overlay~case 01", "step", "0"],
        ["images/overlay~case 01", "step", "5"],
    ]
    local = store.client.download_artifacts(run.run_id, full[0])
    np.testing.assert_array_equal(cv2.imread(local)[..., ::-1], picture)
    assert store.client.get_run(run.run_id).data.tags["mlflow.loggedImages"] == "True"


def test_pictures_have_a_run_without_parameters_under_the_run_that_links_to_it(
    store: tracking.Store,
) -> None:
    with tracking.start_run(
        store, "unet, 3f9c1e", parameters={"a": 1}, tags=TAGS, description="Two lines"
    ) as run:
        pictures = tracking.picture_run(run)
        assert tracking.picture_run(run) == pictures  # a resumed training finds it again
    child = store.client.get_run(pictures.run_id)
    assert child.info.run_name == "unet, 3f9c1e, overlays"
    assert child.info.status == "FINISHED"
    assert child.data.params == {}
    assert child.data.tags["mlflow.parentRunId"] == run.run_id
    assert TAGS.items() <= child.data.tags.items()
    note = store.client.get_run(run.run_id).data.tags["mlflow.note.content"]
    assert note.startswith(
        "Two lines\n\n[Overlays of fixed validation cases](#/experiments/0/runs/"
    )
    assert pictures.run_id in note


def test_a_run_is_found_by_its_tags_once_it_has_finished(store: tracking.Store) -> None:
    tags = {"members": "a,b", "stage": "compare"}
    with (
        pytest.raises(RuntimeError),
        tracking.start_run(store, "broken off", parameters={}, tags=tags),
    ):
        raise RuntimeError
    assert tracking.find_run(store, tags) is None
    run_id = finished_run(store, tags=TAGS | tags)
    assert tracking.find_run(store, tags) == run_id
    assert tracking.find_run(store, tags | {"members": "a"}) is None


def test_a_table_written_again_replaces_the_older_one(store: tracking.Store) -> None:
    with tracking.start_run(store, "a", parameters={}, tags={}) as run:
        for dice in (0.5, 0.75):
            table = pd.DataFrame({"pseudonym": ["P-3f9c1e2a"], "dice": [dice]})
            tracking.log_table(run, table, "tables/patients.json")
    path = Path(store.client.download_artifacts(run.run_id, "tables/patients.json"))
    assert json.loads(path.read_text())["data"] == [["P-3f9c1e2a", 0.75]]


def test_each_context_is_a_dataset_with_the_data_hash(store: tracking.Store) -> None:
    cases = pd.DataFrame({"case_pseudonym": ["P-3f9c1e2a/001"], "pixels_lesion": [4]})
    with tracking.start_run(store, "a", parameters={}, tags={}) as run:
        for context in ("train", "test"):
            digest = f"{'d' * 32}.dir"
            tracking.log_dataset(run, cases, name="demo", digest=digest, context=context)
    inputs = store.client.get_run(run.run_id).inputs.dataset_inputs
    found = {(item.dataset.name, item.dataset.digest, item.tags[0].value) for item in inputs}
    assert found == {
        ("demo, train", "d" * 32 + ".dir", "train"),
        ("demo, test", "d" * 32 + ".dir", "test"),
    }


@pytest.mark.parametrize("column", ["patient", "case_id", "image_path", "mask_path", "series"])
def test_a_table_that_names_patients_or_files_is_refused(
    store: tracking.Store, column: str
) -> None:
    run = tracking.Run(store, "0" * 32)
    table = pd.DataFrame({column: ["Smith"], "dice": [0.5]})
    with pytest.raises(ValueError, match=f"pseudonyms only, got the columns {column}"):
        tracking.log_table(run, table, "tables/a.json")
    with pytest.raises(ValueError, match=f"pseudonyms only, got the columns {column}"):
        tracking.log_dataset(run, table, name="a", digest="b", context="test")


@pytest.mark.parametrize("destination", ["/etc", "../a", "images", "images/a", "a\\b", "."])
def test_a_destination_outside_the_run_or_among_its_pictures_is_refused(
    store: tracking.Store, destination: str
) -> None:
    with pytest.raises(ValueError, match="must be a relative path in the run"):
        tracking.log_artifact(tracking.Run(store, "0" * 32), Path(__file__), destination)


def test_files_and_folders_are_kept_and_a_missing_one_is_an_error(
    store: tracking.Store, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a")
    with tracking.start_run(store, "a", parameters={}, tags={}) as run:
        tracking.log_artifact(run, tmp_path / "a.txt")
        tracking.log_artifact(run, tmp_path, "folder")
        with pytest.raises(FileNotFoundError, match=r"is missing: .*b.txt"):
            tracking.log_artifact(run, tmp_path / "b.txt")
    paths = [item.path for item in store.client.list_artifacts(run.run_id)]
    assert paths == ["a.txt", "folder"]


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_run_that_breaks_off_says_how(
    store: tracking.Store, error: type[BaseException], status: str
) -> None:
    def breaks_off() -> Iterator[str]:
        with tracking.start_run(store, "a", parameters={}, tags={}) as run:
            yield run.run_id
            raise error

    running = breaks_off()
    run_id = next(running)
    with pytest.raises(error):
        next(running)
    assert store.client.get_run(run_id).info.status == status


def test_system_metrics_are_sampled(store: tracking.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    with tracking.start_run(store, "a", parameters={}, tags={}) as run:
        time.sleep(1.5)
    metrics = store.client.get_run(run.run_id).data.metrics
    assert "system/cpu_utilization_percentage" in metrics


def test_a_run_opened_again_goes_on_in_the_same_place(store: tracking.Store) -> None:
    run_id = finished_run(store, parameters={"a": 1, "b": 2})
    ended = store.client.get_run(run_id).info.end_time
    time.sleep(0.01)
    assert finished_run(store, parameters={"a": 1, "b": 3, "c": 4}, run_id=run_id) == run_id
    run = store.client.get_run(run_id)
    assert run.data.params == {"a": "1", "b": "2", "c": "4"}
    assert run.data.tags["changed/b"] == "3 (was 2)"
    assert (run.info.status, run.info.end_time) == ("FINISHED", ended)


def test_a_run_opened_again_keeps_what_made_it(store: tracking.Store) -> None:
    run_id = finished_run(store)
    finished_run(store, run_id=run_id, tags=TAGS | {"git_commit": "e" * 40, "scored": "yes"})
    tags = store.client.get_run(run_id).data.tags
    assert TAGS.items() <= tags.items()
    assert tags["scored"] == "yes"
    assert tags["changed/git_commit"] == f"{'e' * 40} (was {'c' * 40})"


def test_a_run_of_another_machine_becomes_a_new_one(store: tracking.Store) -> None:
    elsewhere = "a" * 32
    run_id = finished_run(store, run_id=elsewhere)
    assert run_id != elsewhere
    assert store.client.get_run(run_id).data.tags["continues"] == elsewhere


def test_runs_are_listed_under_their_parent(store: tracking.Store) -> None:
    with tracking.start_run(store, "search", parameters={}, tags={}) as parent:
        child = finished_run(store, parent_run_id=parent.run_id)
    assert store.client.get_run(child).data.tags["mlflow.parentRunId"] == parent.run_id
    assert store.client.get_run(parent.run_id).info.status == "FINISHED"


def test_a_pruned_run_is_tagged_so_and_has_not_failed(store: tracking.Store) -> None:
    with (
        pytest.raises(tracking.PrunedError),
        tracking.start_run(store, "trial 7", parameters={}, tags=TAGS) as run,
    ):
        raise tracking.PrunedError
    found = store.client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.tags["state"] == "pruned"


def test_the_run_of_a_process_that_is_gone_can_be_ended(store: tracking.Store) -> None:
    made = store.client.create_run(store.experiment_id)
    tracking.end_run(tracking.Run(store, made.info.run_id), "KILLED", {"state": "killed"})
    found = store.client.get_run(made.info.run_id)
    assert (found.info.status, found.data.tags["state"]) == ("KILLED", "killed")
    tracking.end_run(tracking.Run(store, "0" * 32), "KILLED", {})  # of another store: left alone


def test_a_run_that_is_not_finished_can_be_found(store: tracking.Store) -> None:
    with tracking.start_run(store, "s", parameters={}, tags=TAGS | {"study_id": "x"}) as run:
        assert tracking.find_run(store, {"study_id": "x"}) is None
        assert tracking.find_run(store, {"study_id": "x"}, finished=False) == run.run_id
