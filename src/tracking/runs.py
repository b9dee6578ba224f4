"""Runs: opened, written and closed; numbers, pictures, tables, files and data sets in them.

Private data stays out: tables with columns that identify a patient or a file are refused, artifacts
go to relative destinations only, and MLflow notes neither the script's path nor the repository's
address.
"""

from __future__ import annotations

import getpass
import math
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from src.tracking.hindrances import asked_once, machine_errors
from src.tracking.origin import PROVENANCE, UNKNOWN, flatten
from src.tracking.store import Store, quiet_mlflow

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

PRIVATE_COLUMNS = frozenset({"patient", "case_id", "image_path", "mask_path", "series"})
_PARAMETER_LENGTH = 500  # what the UI still shows well; the whole is kept in parameters.json


@dataclass(frozen=True)
class Run:
    """A run that is being written.

    Attributes:
        store: Where it is kept.
        run_id: MLflow's id, 32 hex digits.
    """

    store: Store
    run_id: str


class PrunedError(Exception):
    """Ends a run early because others do better; that is no failure."""


@contextmanager
def start_run(
    store: Store,
    name: str,
    *,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
    description: str = "",
    run_id: str | None = None,
    parent_run_id: str | None = None,
) -> Iterator[Run]:
    """Open a run and close it at the end of the `with` block.

    It ends as FINISHED, as FAILED on an exception, as KILLED on Ctrl-C; on `PrunedError` as
    FINISHED, with the tag `state` "pruned". CPU, memory, disk, network and GPU use are sampled
    every 10 s.

    Args:
        store: From `open_store`.
        name: What the UI lists it as; see `run_name`.
        parameters: All of them, nested as in params.yaml. A parameter that a re-opened run already
            holds with another value cannot be changed in MLflow: the new value is noted in the tag
            `changed/NAME`.
        tags: At least `provenance(...)` and `stage`.
        description: Markdown, shown at the top of the run.
        run_id: A run to go on with; its own provenance stays, a later commit is noted in the tag
            `changed/git_commit`. Where this store does not know it (the model came from another
            machine through DVC) a new run is made, with the tag `continues`.
        parent_run_id: The run that this one is listed under.

    Yields:
        The run, for the functions below.

    Raises:
        ConnectionError: The server was lost, at any time within the block.
    """
    mlflow = quiet_mlflow()
    with machine_errors(store.uri):
        before = _existing_run(store, run_id) if run_id else None
        tags = dict(tags)
        if description:
            tags["mlflow.note.content"] = description
        if parent_run_id:
            tags["mlflow.parentRunId"] = parent_run_id
        if before:
            run = Run(store, before.info.run_id)
            # What made the model is not what evaluates it later: both are told, neither is lost.
            held = {tag: before.data.tags[tag] for tag in PROVENANCE if tag in before.data.tags}
            changes = {tag: tags.pop(tag) for tag in held if tag in tags}
            tags |= _changed(held, changes)
        else:
            tags |= source_tags(store.root, tags.get("git_commit", UNKNOWN))
            if run_id:
                tags["continues"] = run_id
            created = store.client.create_run(store.experiment_id, run_name=name, tags=tags)
            run = Run(store, created.info.run_id)
        mlflow.start_run(run_id=run.run_id, run_name=name, nested=True, log_system_metrics=True)
        status = "FAILED"
        try:
            _log_parameters(run, parameters, before.data.params if before else {})
            log_tags(run, tags)
            yield run
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        except PrunedError:
            status = "FINISHED"
            log_tags(run, {"state": "pruned"})
            raise
        finally:
            # Who fails is not kept waiting for a server, which may be why.
            with nullcontext() if status == "FINISHED" else asked_once():
                mlflow.end_run(status)
            # A finished training that is opened again to add an evaluation keeps its duration.
            if before and before.info.status == status == "FINISHED":
                store.client.set_terminated(run.run_id, status, before.info.end_time)


def end_run(run: Run, status: str, tags: Mapping[str, str], *, once: bool = False) -> None:
    """End the run of a process that is gone, or the parent run of others.

    Args:
        run: What this store does not know is left alone.
        status: FINISHED, FAILED or KILLED.
        tags: Set as well.
        once: Do not wait for a server that does not answer.
    """
    with asked_once() if once else nullcontext():
        if _existing_run(run.store, run.run_id):
            log_tags(run, tags)
            run.store.client.set_terminated(run.run_id, status)


def find_run(store: Store, tags: Mapping[str, str], *, finished: bool = True) -> str | None:
    """The id of the newest run with these tags, finished or any; None where there is none."""
    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    if finished:
        query += " and attributes.status = 'FINISHED'"
    found = store.client.search_runs([store.experiment_id], query, max_results=1)
    return found[0].info.run_id if found else None


def kept_run(store: Store, run_id: str) -> Run | None:
    """A finished run to which a file or a table is added without opening it again.

    Args:
        store: From `open_store`.
        run_id: Of the run.

    Returns:
        The run, or where this store does not know it the newest that continues it; None where
        there is neither.
    """
    if _existing_run(store, run_id):
        return Run(store, run_id)
    found = find_run(store, {"continues": run_id})
    return Run(store, found) if found else None


def _existing_run(store: Store, run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        run = store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def source_tags(root: Path, commit: str) -> dict[str, str]:
    """What MLflow notes of its own accord, without paths and without the repository's address."""
    script = Path(sys.argv[0] or "python").resolve()
    parts = script.parts
    inside = script.is_relative_to(root) and "src" in parts
    source = "/".join(parts[parts.index("src") :]) if inside else script.name
    tags = {"name": source, "type": "LOCAL", "git.commit": commit}
    return {"mlflow.user": getpass.getuser()} | {f"mlflow.source.{k}": v for k, v in tags.items()}


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Tags that tell of values which differ from those that a run was begun with."""
    return {
        f"changed/{name}": f"{value} (was {before[name]})"
        for name, value in now.items()
        if before.get(name, value) != value
    }


def _log_parameters(run: Run, parameters: Mapping[str, Any], before: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    flat = flatten(parameters)
    short = {name: shorten(value, _PARAMETER_LENGTH) for name, value in flat.items()}
    if short != flat:
        run.store.client.log_dict(run.run_id, flat, "parameters.json")
    new = [Param(name, value) for name, value in short.items() if name not in before]
    for start in range(0, len(new), 100):  # MLflow takes 100 at a time
        run.store.client.log_batch(run.run_id, params=new[start : start + 100])
    log_tags(run, _changed(before, short))


def shorten(text: str, length: int) -> str:
    """The text, or its beginning and "…" where it is longer than `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def log_tags(run: Run, tags: Mapping[str, str]) -> None:
    """Set tags, in one call."""
    from mlflow.entities import RunTag

    entities = [RunTag(key, str(value)) for key, value in tags.items()]
    run.store.client.log_batch(run.run_id, tags=entities)


def log_metrics(run: Run, metrics: Mapping[str, float], step: int = 0) -> None:
    """Write the numbers of one epoch (or the final ones) in one call.

    A number that is not finite (a class that could not be scored is NaN) would be drawn as 0 or
    as 1e308; it is left out, and the tag `not_finite/NAME` says at which step it last was so.

    Args:
        run: From `start_run`.
        metrics: By name. What stands before the last slash is the section of the UI's charts.
        step: The epoch, from 0.
    """
    from mlflow.entities import Metric, RunTag

    now = time.time_ns() // 1_000_000
    values = {name: float(value) for name, value in metrics.items()}
    finite = [Metric(n, v, now, step) for n, v in values.items() if math.isfinite(v)]
    other = [
        RunTag(f"not_finite/{name}", f"{value} at step {step}")
        for name, value in values.items()
        if not math.isfinite(value)
    ]
    run.store.client.log_batch(run.run_id, metrics=finite, tags=other)


def picture_run(run: Run) -> Run:
    """The run for the pictures of a run, listed under it and linked in its description.

    The UI prints every parameter of a run above each of its pictures: with the parameters of a
    pipeline the picture is pushed out of its card. So pictures get a run without parameters.

    Args:
        run: From `start_run`. Where it is resumed, the pictures go on in the same place.

    Returns:
        What to pass to `log_picture`.
    """
    client = run.store.client
    parent = client.get_run(run.run_id)
    tags = {"mlflow.parentRunId": run.run_id, "stage": "overlays"}
    found = find_run(run.store, tags)
    if found:
        made = client.get_run(found).info
    else:
        kept = (*PROVENANCE, "mlflow.user", "mlflow.source.name", "mlflow.source.type")
        tags |= {key: parent.data.tags[key] for key in kept if key in parent.data.tags}
        name = f"{parent.info.run_name}, overlays"
        made = client.create_run(parent.info.experiment_id, run_name=name, tags=tags).info
        client.set_terminated(made.run_id)  # nothing runs in it, so nothing can be left running
    page = f"#/experiments/{made.experiment_id}/runs/{made.run_id}/model-metrics"
    link = f"[Overlays of fixed validation cases]({page}?workflowType=machine_learning)"
    note = parent.data.tags.get("mlflow.note.content", "")
    if link not in note:
        log_tags(run, {"mlflow.note.content": f"{note}\n\n{link}".strip()})
    return Run(run.store, made.run_id)


def log_picture(run: Run, key: str, picture: np.ndarray, step: int) -> None:
    """Write a picture at a step, for the slider of the UI.

    Args:
        run: From `picture_run`.
        key: The same at each step, one key a case: `overlay/case 01`. Letters, digits, `_-./` and
            spaces.
        picture: (H, W, 3) RGB or (H, W) grey, uint8 in [0, 255]. The UI shows it 256 pixels wide
            or high at most, and whole when it is clicked.
        step: The epoch; each value is a stop of the slider.
    """
    run.store.client.log_image(run.run_id, picture, key=key, step=step)


def log_figure(run: Run, figure: Any, destination: str) -> None:
    """Write a matplotlib figure, for example to `figures/calibration.png`."""
    run.store.client.log_figure(run.run_id, figure, _destination(destination))


def log_table(run: Run, table: pd.DataFrame, destination: str) -> None:
    """Write a table of pseudonyms, for example to `tables/patients.json`, replacing an older one.

    Raises:
        ValueError: if a column identifies a patient or a file.
    """
    _refuse_private(table)
    destination = _destination(destination)
    client = run.store.client
    # MLflow appends to a table that is there: an evaluation done twice would list patients twice.
    folder = str(PurePosixPath(destination).parent)
    present = [item.path for item in client.list_artifacts(run.run_id, folder)]
    if destination in present:
        client.log_text(run.run_id, table.to_json(orient="split", index=False), destination)
    else:
        with warnings.catch_warnings():
            # MLflow's own use of pandas.
            warnings.simplefilter("ignore", DeprecationWarning)
            client.log_table(run.run_id, table, destination)


def log_dataset(run: Run, cases: pd.DataFrame, *, name: str, digest: str, context: str) -> None:
    """Note the cases that a run read as an MLflow dataset: its columns, its size and its hash.

    Args:
        run: From `start_run`; the innermost open run.
        cases: One row a case, pseudonyms only; the values themselves are not kept.
        name: Of the data; the context is added to it, as MLflow takes two datasets of the same
            name and digest for one.
        digest: The data hash.
        context: "train", "validation" or "test".

    Raises:
        ValueError: if a column identifies a patient or a file.
    """
    _refuse_private(cases)
    mlflow = quiet_mlflow()
    from mlflow.entities import Dataset, DatasetInput, InputTag

    with warnings.catch_warnings():
        # Its hints about integer columns and about what "data.dvc" may be lead nowhere here.
        warnings.simplefilter("ignore", UserWarning)
        dataset = mlflow.data.from_pandas(
            cases, source="data.dvc", name=f"{name}, {context}", digest=digest
        ).to_dict()
    tag = InputTag("mlflow.data.context", context)
    entity = DatasetInput(Dataset(**dataset), [tag])
    run.store.client.log_inputs(run.run_id, [entity])


def log_artifact(run: Run, path: Path, destination: str = "") -> None:
    """Copy a file or a folder into the run.

    Args:
        run: From `start_run`.
        path: The file, or the folder whose content is copied.
        destination: A relative folder in the run; "" is its top.

    Raises:
        ValueError: if `destination` leaves the run, or is `images`, which the UI keeps to itself.
        FileNotFoundError: if there is nothing at `path`.
    """
    folder = _destination(destination) if destination else None
    client = run.store.client
    if Path(path).is_dir():
        client.log_artifacts(run.run_id, str(path), folder)
    elif Path(path).is_file():
        client.log_artifact(run.run_id, str(path), folder)
    else:
        raise FileNotFoundError(f"a file or folder to keep with the run is missing: {path}")


def _destination(destination: str) -> str:
    parts = PurePosixPath(destination).parts
    outside = ".." in parts or "\\" in destination or PurePosixPath(destination).is_absolute()
    if outside or not parts or parts[0] == "images":
        raise ValueError(
            f"an artifact's destination must be a relative path in the run, and not in images/ "
            f"(the UI reads every file there as a picture of log_picture), got {destination!r}. "
            "Use for example tables/patients.json."
        )
    return str(PurePosixPath(destination))


def _refuse_private(table: pd.DataFrame) -> None:
    private = sorted(PRIVATE_COLUMNS.intersection(map(str, table.columns)))
    if private:
        raise ValueError(
            f"a tracked table must hold pseudonyms only, got the columns {', '.join(private)}. "
            "Use pseudonym or case_pseudonym in their place."
        )
