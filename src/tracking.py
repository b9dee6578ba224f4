"""The one door to MLflow: the store, the runs and what they hold, the registry.

Everything a person reads in the MLflow UI passes through here, so names are made here as well:
metrics `train/loss`, `validation/iou/lesion`; pictures `overlay/case 01`; runs `unet, 3f9c1e`.

Private data stays out. Callers pass pseudonyms; this module refuses tables with columns that
identify a patient or a file, writes artifacts under relative destinations only, withholds absolute
paths in parameters, and keeps MLflow from noting the script's path and the repository's address.

MLflow takes seconds to import, so it is imported when a store is opened, never by importing this
module: the hashes and names below are free.
"""

from __future__ import annotations

import getpass
import hashlib
import importlib
import importlib.metadata
import json
import logging
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from src.files import md5_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

EXPERIMENT = "CT segmentation"
CHAMPION = "champion"
SCORE_TAG = "validation_score"  # of a registered version: what the choice rested on
INFERENCE_PACKAGES = ("tensorflow", "keras", "numpy", "opencv-python-headless")
PROVENANCE = ("data_hash", "split_hash", "git_commit", "git_dirty")
PRIVATE_COLUMNS = frozenset({"patient", "case_id", "image_path", "mask_path"})
UNKNOWN = "none"  # what a tag says where there is no data.dvc, no split or no git repository

# Read by MLflow at import or at each call. A user's own setting wins (setdefault).
_QUIET_AND_OFFLINE = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",  # the server would fetch lists of language models
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_PRINT_MODEL_URLS_ON_CREATION": "false",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",  # it would ask a package index
    "MLFLOW_UV_AUTO_DETECT": "false",  # the requirements are named here
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # worker processes for language-model judges
    "GIT_PYTHON_REFRESH": "quiet",  # a machine without git is not an error
}
_PARAMETER_LENGTH = 500  # what the UI still shows well; the whole is kept in parameters.json
_DESCRIPTION_LENGTH = 5000  # MLflow's column for the description of a version, and tags of a model


def _mlflow() -> Any:
    """Import MLflow, quiet and offline."""
    for name, value in _QUIET_AND_OFFLINE.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It warns where an environment has no pip; environments made by uv have none.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    import mlflow

    return mlflow


def _pyfunc() -> Any:
    """MLflow's model format; its import hints at type hints of its own, to no purpose."""
    _mlflow()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*AnyType", UserWarning)
        return importlib.import_module("mlflow.pyfunc")


# --- The store ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        root: The repository, never DVC's temporary copy of it.
        uri: Address of the tracking store and the registry.
        experiment_id: The experiment that runs are written to.
    """

    root: Path
    uri: str
    experiment_id: str

    @property
    def client(self) -> Any:
        """An `MlflowClient` of this store."""
        return _mlflow().MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @property
    def lock(self) -> FileLock:
        """A lock between the processes of this machine that use the store."""
        return _lock(self.root)


def repository(root: Path) -> Path:
    """The real repository behind a path, absolute.

    `dvc exp run --temp` and `--queue` run the pipeline in a copy, `REPO/.dvc/tmp/exps/…`, that is
    thrown away afterwards; `REPO` is what is meant.
    """
    parts = Path(root).resolve().parts
    for index in range(len(parts)):
        if parts[index : index + 3] == (".dvc", "tmp", "exps"):
            return Path(*parts[:index])
    return Path(*parts)


def store_uri(root: Path) -> str:
    """The address of the store, always absolute.

    Args:
        root: The repository, or DVC's temporary copy of it.

    Returns:
        `MLFLOW_TRACKING_URI` where set (a relative SQLite path is taken from the repository),
        else `sqlite:///REPO/mlruns/mlflow.db`.

    Raises:
        ValueError: if `MLFLOW_TRACKING_URI` is a folder; MLflow no longer writes to one.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlruns/mlflow.db"
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{repository(root) / uri.removeprefix('sqlite:///')}"
    if "://" not in uri or uri.startswith("file:"):
        raise ValueError(
            f"MLFLOW_TRACKING_URI must be a database or a server, got the folder {uri!r}. "
            "Use sqlite:///mlruns/mlflow.db, postgresql://… or http://…, or unset it."
        )
    return uri


def open_store(root: Path, experiment: str = EXPERIMENT) -> Store:
    """Open the store; create the database and the experiment if they are not there.

    A fresh database is made under a file lock in a file of another name and moved into place when
    it is whole: several processes creating one at once break it, and so does one that is killed.

    Args:
        root: The repository, or DVC's temporary copy of it.
        experiment: The name of the experiment.

    Returns:
        The store, also set as MLflow's own current store.

    Raises:
        ValueError: if `MLFLOW_TRACKING_URI` is a folder.
    """
    uri = store_uri(root)
    root = repository(root)
    mlflow = _mlflow()
    with _lock(root):
        if uri.startswith("sqlite:///"):
            _create_database(Path(uri.removeprefix("sqlite:///")))
        environment = os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        # MLflow also writes the address into the environment, where the next call of store_uri,
        # perhaps for another repository, would take it for the user's choice.
        if environment is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        client = mlflow.MlflowClient()
        found = client.get_experiment_by_name(experiment)
        if found is None:
            location = _artifacts(root, uri)
            found = client.get_experiment(client.create_experiment(experiment, location))
        if "mlflow.experimentKind" not in found.tags:
            # Spares people the UI's question whether this is about language models.
            kind = "custom_model_development"
            client.set_experiment_tag(found.experiment_id, "mlflow.experimentKind", kind)
    return Store(root, uri, found.experiment_id)


def _lock(root: Path) -> FileLock:
    folder = root / "mlruns"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "store.lock", timeout=300)


def _artifacts(root: Path, uri: str) -> str | None:
    if uri.startswith(("http://", "https://")):
        return None  # the server has a place of its own
    if uri.startswith("sqlite:///"):
        return (Path(uri.removeprefix("sqlite:///")).parent / "artifacts").as_uri()
    return (root / "mlruns" / "artifacts").as_uri()


def _create_database(path: Path) -> None:
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    store = SqlAlchemyStore(f"sqlite:///{unfinished}", (path.parent / "artifacts").as_uri())
    # MLflow insists on a first experiment; under this name the UI opens with one, not two.
    store.rename_experiment("0", EXPERIMENT)
    store.engine.dispose()
    unfinished.replace(path)


# --- What made it: hashes, commit, names ----------------------------------------------------------


def data_hash(root: Path) -> str:
    """The MD5 of the data folder as `data.dvc` has it, or "none" where there is no data.dvc.

    Raises:
        ValueError: if data.dvc holds no MD5.
    """
    path = Path(root) / "data.dvc"
    if not path.exists():
        return UNKNOWN
    from ruamel.yaml import YAML

    content = YAML(typ="safe").load(path)
    try:
        return str(content["outs"][0]["md5"])
    except (KeyError, IndexError, TypeError):
        raise ValueError(
            f"data.dvc must name one output with its md5, got {content!r}. Run: dvc add data"
        ) from None


def split_hash(path: Path) -> str:
    """The MD5 of the split table, as in dvc.lock, or "none" where it does not exist."""
    return md5_of(Path(path)) if Path(path).exists() else UNKNOWN


def git_state(root: Path) -> tuple[str, bool]:
    """The commit that is checked out, and whether files differ from it.

    dvc.lock is left out of the comparison: the pipeline itself rewrites it while it runs.

    Returns:
        `(commit, dirty)`: 40 hex digits; `("none", True)` without a git repository, a commit or
        git itself, as nothing then says what code ran.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        commit = git("rev-parse", "--verify", "HEAD")
        return commit, bool(git("status", "--porcelain", "--", ".", ":(exclude)dvc.lock"))
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN, True


def provenance(root: Path, split: Path) -> dict[str, str]:
    """The tags that say what made a run: data hash, split hash, git commit, dirty flag.

    Args:
        root: Where the code runs: the repository, or DVC's temporary copy of it.
        split: The split table.
    """
    commit, dirty = git_state(root)
    values = (data_hash(root), split_hash(split), commit, str(dirty).lower())
    return dict(zip(PROVENANCE, values, strict=True))


def run_name(architecture: str, parameters: Mapping[str, Any]) -> str:
    """A name to tell runs apart by: `unet, 3f9c1e`. Equal parameters give an equal name."""
    canonical = json.dumps(parameters, sort_keys=True, default=str)
    return (
        f"{architecture}, {hashlib.md5(canonical.encode(), usedforsecurity=False).hexdigest()[:6]}"
    )


def flatten(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as `{"train.learning_rate": "0.001"}`; lists are written as JSON.

    Absolute paths are withheld, as they may name a patient.
    """
    flat: dict[str, str] = {}
    for key, value in parameters.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
            flat[name] = "(absolute path withheld)" if absolute else text
    return flat


# --- Runs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A run that is being written.

    Attributes:
        store: Where it is kept.
        run_id: MLflow's id, 32 hex digits.
    """

    store: Store
    run_id: str


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

    It ends as FINISHED, as FAILED on an exception, as KILLED on Ctrl-C. CPU, memory, disk,
    network and GPU use are sampled every 10 s.

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
    """
    mlflow = _mlflow()
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
        tags |= _context(store.root, tags.get("git_commit", UNKNOWN))
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
    finally:
        mlflow.end_run(status)
        # A finished training that is opened again to add an evaluation keeps its duration.
        if before and before.info.status == status == "FINISHED":
            store.client.set_terminated(run.run_id, status, before.info.end_time)


def _existing_run(store: Store, run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        run = store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def _context(root: Path, commit: str) -> dict[str, str]:
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
    short = {name: _shorten(value, _PARAMETER_LENGTH) for name, value in flat.items()}
    if short != flat:
        run.store.client.log_dict(run.run_id, flat, "parameters.json")
    new = [Param(name, value) for name, value in short.items() if name not in before]
    for start in range(0, len(new), 100):  # MLflow takes 100 at a time
        run.store.client.log_batch(run.run_id, params=new[start : start + 100])
    log_tags(run, _changed(before, short))


def _shorten(text: str, length: int) -> str:
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
    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = client.search_runs([parent.info.experiment_id], query)
    if found:
        made = found[0].info
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
    mlflow = _mlflow()
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


# --- The model and the registry -------------------------------------------------------------------


def requirements(packages: Sequence[str] = INFERENCE_PACKAGES) -> list[str]:
    """The installed versions: `["tensorflow==2.21.0", …]`."""
    return [f"{package}=={importlib.metadata.version(package)}" for package in packages]


def log_model(
    run: Run,
    folder: Path,
    *,
    code: Path = Path(__file__).parent,
    packages: Sequence[str] = INFERENCE_PACKAGES,
) -> str:
    """Keep a model in the run, with its preprocessing and code, loadable in a clean process.

    Input: slices (B, H, W), float32, HU. Output: class indices (B, H, W), uint8, or with
    `params={"output": "probabilities"}` (B, H, W, C), float32.

    Args:
        run: From `start_run`; the innermost that is open.
        folder: The model folder: weights, preprocessing.json and what else inference reads.
        code: The package to take along, `src`; its packaged_model.py is what runs.
        packages: What inference imports; the installed versions are pinned.

    Returns:
        The model's address, `models:/m-…`, for `register_champion`.

    Raises:
        FileNotFoundError: if there is no model folder.
        ValueError: if another run, or none, is the innermost that is open.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no model folder at {folder}. Run: dvc repro")
    import numpy as np

    mlflow = _mlflow()
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    active = mlflow.active_run()
    if active is None or active.info.run_id != run.run_id:
        raise ValueError(
            f"a model must be logged in the innermost open run, got run {run.run_id}, while "
            f"{active.info.run_id if active else 'none'} is open. Call log_model within its "
            "`with start_run(...)` block."
        )
    stack = (-1, -1, -1)
    commit = run.store.client.get_run(run.run_id).data.tags.get("git_commit", UNKNOWN)
    context = _context(run.store.root, commit)
    with warnings.catch_warnings():
        # The signature is written by hand: it leaves the size of a slice open, an example cannot.
        warnings.filterwarnings("ignore", ".*input example was not provided", UserWarning)
        information = _pyfunc().log_model(
            name="model",
            python_model=str(Path(code) / "packaged_model.py"),
            artifacts={"model": str(folder)},
            code_paths=[str(code)],
            pip_requirements=[f"mlflow=={mlflow.__version__}", *requirements(packages)],
            signature=ModelSignature(
                inputs=Schema([TensorSpec(np.dtype(np.float32), stack)]),
                outputs=Schema([TensorSpec(np.dtype(np.uint8), stack)]),
                params=ParamSchema([ParamSpec("output", "string", "mask")]),
            ),
            tags=context | {"mlflow.source.git.repoURL": ""},  # it may hold an access token
        )
    return str(information.model_uri)


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a registered model.

    Attributes:
        name: The registered model.
        version: 1, 2, …
        run_id: The run that made it.
        tags: data_hash, split_hash, git_commit, git_dirty, parameters (JSON) and the alias
            history: champion_from, champion_until.
    """

    name: str
    version: int
    run_id: str
    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        """The address for `mlflow.pyfunc.load_model`."""
        return f"models:/{self.name}/{self.version}"


def champion(store: Store, name: str) -> RegisteredVersion | None:
    """The version that holds the alias `champion`, or None where there is none yet."""
    found = store.client.search_registered_models(f"name = '{name}'")
    version = found[0].aliases.get(CHAMPION) if found else None
    if version is None:
        return None
    return _registered(store.client.get_model_version(name, version))


def register_champion(
    store: Store,
    run_id: str,
    model_uri: str,
    *,
    name: str,
    description: str,
    reason: str,
    score: float | None = None,
) -> RegisteredVersion:
    """Register a run's model and give it the alias `champion`.

    A run that has a version already gets no second one. The history can be read in the UI: tags
    champion_from and champion_until of each version, and one line a change in the tag
    champion_history of the registered model.

    Args:
        store: From `open_store`.
        run_id: The run that made the model.
        model_uri: From `log_model`.
        name: Of the registered model.
        description: The model card, Markdown; cut at 5000 characters, the limit of the store.
        reason: Why it won, for example "validation/dice/mean 0.81".
        score: The number it won by, kept in the tag `validation_score`.

    Returns:
        The champion.

    Raises:
        ValueError: if the run lacks one of the provenance tags.
    """
    client = store.client
    source = client.get_run(run_id)
    missing = [tag for tag in PROVENANCE if tag not in source.data.tags]
    if missing:
        raise ValueError(
            f"run {run_id} cannot be registered without the tags {', '.join(missing)}. "
            "Start it with start_run(..., tags=provenance(root, split))."
        )
    with store.lock:
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        before = champion(store, name)
        if before and before.run_id == run_id:
            return before
        known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        tags = {tag: source.data.tags[tag] for tag in PROVENANCE}
        tags["parameters"] = json.dumps(source.data.params, sort_keys=True)
        tags["reason"] = reason
        if score is not None:
            tags[SCORE_TAG] = str(score)
        made = (
            known[0]
            if known
            else client.create_model_version(
                name,
                model_uri,
                run_id,
                tags=tags,
                description=_shorten(description, _DESCRIPTION_LENGTH),
                model_id=model_uri.removeprefix("models:/"),
            )
        )
        client.set_registered_model_alias(name, CHAMPION, made.version)
        client.set_model_version_tag(name, made.version, "champion_from", now)
        client.delete_model_version_tag(name, made.version, "champion_until")  # held it before
        if before:
            client.set_model_version_tag(name, str(before.version), "champion_until", now)
        _add_to_history(client, name, f"{now}: version {made.version} ({reason})")
        return _registered(client.get_model_version(name, made.version))


def _add_to_history(client: Any, name: str, line: str) -> None:
    history = client.get_registered_model(name).tags.get("champion_history", "")
    lines = [*history.splitlines(), line]
    while len("\n".join(lines)) > _DESCRIPTION_LENGTH:
        del lines[0]
    client.set_registered_model_tag(name, "champion_history", "\n".join(lines))


def _registered(version: Any) -> RegisteredVersion:
    return RegisteredVersion(version.name, int(version.version), version.run_id, version.tags)


def model_of(store: Store, run_id: str) -> str:
    """The address of the newest model that a run logged, `models:/m-…`.

    Raises:
        LookupError: if the run has no model in this store.
    """
    found = store.client.search_logged_models(
        experiment_ids=[store.experiment_id],
        filter_string=f"source_run_id = '{run_id}'",
        order_by=[{"field_name": "creation_timestamp", "ascending": False}],
        max_results=1,
    )
    if not found:
        raise LookupError(
            f"run {run_id} has no model in {store.uri}. Train it here: dvc repro --force train"
        )
    return f"models:/{found[0].model_id}"


def load_champion(store: Store, name: str) -> Any:
    """Load the champion as an MLflow pyfunc.

    In a process that has imported this repository's `src`, that code runs, not the copy in the
    model; use `champion_folder` there.

    Raises:
        LookupError: if there is no champion.
    """
    version = _require_champion(store, name)
    return _pyfunc().load_model(version.uri)


def champion_folder(store: Store, name: str) -> Path:
    """The champion's model folder, as given to `log_model`; downloaded if it is elsewhere.

    Raises:
        LookupError: if there is no champion.
    """
    uri = _require_champion(store, name).uri
    local = Path(_mlflow().artifacts.download_artifacts(artifact_uri=uri))
    from mlflow.models import Model

    return local / str(Model.load(local).flavors["python_function"]["artifacts"]["model"]["path"])


def _require_champion(store: Store, name: str) -> RegisteredVersion:
    version = champion(store, name)
    if version is None:
        raise LookupError(f"no champion of {name!r} in {store.uri}. Run: dvc repro")
    return version


# --- The user interface ---------------------------------------------------------------------------


def serve_ui(root: Path, port: int = 5000) -> None:
    """Replace this process by the MLflow UI at http://127.0.0.1:PORT, seen by this machine only."""
    store = open_store(root)
    remote = store.uri.startswith(("http://", "https://"))
    address = store.uri if remote else f"http://127.0.0.1:{port}"
    runs = f"/#/experiments/{store.experiment_id}/runs?workflowType=machine_learning"
    print(f"Open {address}{runs}", flush=True)  # noqa: T201  # the command's own words
    if remote:
        return
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    command += ["--default-artifact-root", str(_artifacts(store.root, store.uri))]
    command += ["--no-serve-artifacts", "--host", "127.0.0.1", "--port", str(port)]
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # the server's, about its own libraries
    os.execv(sys.executable, [*command, "--workers", "1"])
