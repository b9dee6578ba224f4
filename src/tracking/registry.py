"""Models: kept in runs, registered, the best of them under the alias `champion`."""

from __future__ import annotations

import importlib.metadata
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from src.tracking.hindrances import machine_errors
from src.tracking.origin import PROVENANCE, UNKNOWN
from src.tracking.runs import Run, shorten, source_tags
from src.tracking.store import Store, pyfunc, quiet_mlflow

CHAMPION = "champion"
SCORE_TAG = "validation_score"  # of a registered version: what the choice rested on
INFERENCE_PACKAGES = ("openvino", "tensorflow", "keras", "numpy", "opencv-python-headless")
_DESCRIPTION_LENGTH = 5000  # MLflow's column for the description of a version, and tags of a model


def requirements(packages: Sequence[str] = INFERENCE_PACKAGES) -> list[str]:
    """The installed versions: `["tensorflow==2.21.0", …]`."""
    return [f"{package}=={importlib.metadata.version(package)}" for package in packages]


def log_model(
    run: Run,
    folder: Path,
    *,
    code: Path = Path(__file__).parents[1],
    packages: Sequence[str] = INFERENCE_PACKAGES,
) -> str:
    """Keep a model in the run, with its preprocessing and code, loadable in a clean process.

    Input: slices (B, H, W), float32, HU. Output: class indices (B, H, W), uint8, or with
    `params={"output": "probabilities"}` (B, H, W, C), float32. A model whose slices get a common
    spacing also asks for that of the input: `params={"spacing_mm": [y, x]}`.

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

    mlflow = quiet_mlflow()
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
    context = source_tags(run.store.root, commit)
    with warnings.catch_warnings():
        # The signature is written by hand: it leaves the size of a slice open, an example cannot.
        warnings.filterwarnings("ignore", ".*input example was not provided", UserWarning)
        information = pyfunc().log_model(
            name="model",
            python_model=str(Path(code) / "packaged_model.py"),
            artifacts={"model": str(folder)},
            code_paths=[str(code)],
            pip_requirements=[f"mlflow=={mlflow.__version__}", *requirements(packages)],
            signature=ModelSignature(
                inputs=Schema([TensorSpec(np.dtype(np.float32), stack)]),
                outputs=Schema([TensorSpec(np.dtype(np.uint8), stack)]),
                params=ParamSchema(
                    [
                        ParamSpec("output", "string", "mask"),
                        ParamSpec("spacing_mm", "double", [], shape=(-1,)),  # []: not known
                    ]
                ),
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


def register_model(
    store: Store,
    run_id: str,
    model_uri: str,
    *,
    name: str,
    description: str,
    reason: str,
    score: float | None = None,
) -> RegisteredVersion:
    """Register a run's model as a version without an alias.

    A run that has a version already gets no second one.

    Args:
        store: From `open_store`.
        run_id: The run that made the model.
        model_uri: From `log_model`.
        name: Of the registered model.
        description: The model card, Markdown; cut at 5000 characters, the limit of the store.
        reason: Why it was chosen, for example "validation/dice/mean 0.81".
        score: The number it was chosen by, kept in the tag `validation_score`.

    Raises:
        ValueError: if the run lacks one of the provenance tags.
    """
    with store.lock, machine_errors(store.uri):
        return _version_of(
            store,
            run_id,
            model_uri,
            name=name,
            description=description,
            reason=reason,
            score=score,
        )


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

    The history can be read in the UI: tags champion_from and champion_until of each version, and
    one line a change in the tag champion_history of the registered model.

    Args:
        store: From `open_store`.
        run_id: The run that made the model.
        model_uri: From `log_model`.
        name: Of the registered model.
        description: The model card, see `register_model`.
        reason: Why it won, for example "validation/dice/mean 0.81".
        score: The number it won by, kept in the tag `validation_score`.

    Returns:
        The champion.

    Raises:
        ValueError: if the run lacks one of the provenance tags.
    """
    client = store.client
    with store.lock, machine_errors(store.uri):
        before = champion(store, name)
        if before and before.run_id == run_id:
            return before
        made = _version_of(
            store,
            run_id,
            model_uri,
            name=name,
            description=description,
            reason=reason,
            score=score,
        )
        number = str(made.version)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        client.set_registered_model_alias(name, CHAMPION, number)
        client.set_model_version_tag(name, number, "champion_from", now)
        client.delete_model_version_tag(name, number, "champion_until")  # held it before
        if before:
            client.set_model_version_tag(name, str(before.version), "champion_until", now)
        _add_to_history(client, name, f"{now}: version {number} ({reason})")
        return _registered(client.get_model_version(name, number))


def _version_of(
    store: Store,
    run_id: str,
    model_uri: str,
    *,
    name: str,
    description: str,
    reason: str,
    score: float | None,
) -> RegisteredVersion:
    """The version of a run, made where there is none yet. The caller holds the lock."""
    client = store.client
    source = client.get_run(run_id)
    missing = [tag for tag in PROVENANCE if tag not in source.data.tags]
    if missing:
        raise ValueError(
            f"run {run_id} cannot be registered without the tags {', '.join(missing)}. "
            "Start it with start_run(..., tags=provenance(root, split, truth))."
        )
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if known:
        return _registered(client.get_model_version(name, known[0].version))
    tags = {tag: source.data.tags[tag] for tag in PROVENANCE}
    tags["parameters"] = json.dumps(source.data.params, sort_keys=True)
    tags["reason"] = reason
    if score is not None:
        tags[SCORE_TAG] = str(score)
    made = client.create_model_version(
        name,
        model_uri,
        run_id,
        tags=tags,
        description=shorten(description, _DESCRIPTION_LENGTH),
        model_id=model_uri.removeprefix("models:/"),
    )
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
            f"run {run_id} has no model in {store.shown}. Train it here: dvc repro --force train"
        )
    return f"models:/{found[0].model_id}"


def champion_folder(store: Store, name: str) -> Path:
    """The champion's model folder, as given to `log_model`; downloaded if it is elsewhere.

    Raises:
        LookupError: if there is no champion.
    """
    return model_folder(_require_champion(store, name).uri)


def model_folder(uri: str) -> Path:
    """The folder that was given to `log_model`, of a model's address; downloaded if elsewhere."""
    mlflow = quiet_mlflow()
    with machine_errors(mlflow.get_tracking_uri()):
        local = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    from mlflow.models import Model

    return local / str(Model.load(local).flavors["python_function"]["artifacts"]["model"]["path"])


def _require_champion(store: Store, name: str) -> RegisteredVersion:
    version = champion(store, name)
    if version is None:
        raise LookupError(f"no champion of {name!r} in {store.shown}. Run: dvc repro")
    return version
