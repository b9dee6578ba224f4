"""MLflow's servers, seen by this machine only: its UI, and a registered model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from src.addresses import refuse_a_used_port, without_user
from src.tracking.registry import CHAMPION, champion
from src.tracking.store import artifacts_of, open_store


def serve_ui(root: Path, port: int = 5000) -> None:
    """Replace this process by the MLflow UI at http://127.0.0.1:PORT, seen by this machine only."""
    store = open_store(root)
    remote = store.uri.startswith(("http://", "https://"))
    address = without_user(store.uri) if remote else f"http://127.0.0.1:{port}"
    runs = f"/#/experiments/{store.experiment_id}/runs?workflowType=machine_learning"
    if remote:
        print(f"Open {address}{runs}", flush=True)  # noqa: T201  # the command's own words
        return
    refuse_a_used_port(port, "make ui")
    print(f"The MLflow UI starts (seconds; Ctrl-C ends it): {address}{runs}", flush=True)  # noqa: T201
    os.environ["MLFLOW_BACKEND_STORE_URI"] = store.uri  # everyone can read a command line
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--default-artifact-root", str(artifacts_of(store.root, store.uri))]
    command += ["--no-serve-artifacts", "--host", "127.0.0.1", "--port", str(port)]
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # the server's, about its own libraries
    os.execv(sys.executable, [*command, "--workers", "1"])


def serve_model(root: Path, name: str, port: int) -> None:
    """Replace this process by MLflow's scoring server of a champion, at http://127.0.0.1:PORT.

    Args:
        root: The repository.
        name: Of the registered model.
        port: Where it listens.

    Raises:
        ValueError: There is no champion of that name, or the port is used.
    """
    store = open_store(root)
    version = champion(store, name)
    if version is None:
        raise ValueError(f"{name} has no champion in {store.shown}. Train one: dvc repro")
    refuse_a_used_port(port, "make serve")
    address = f"http://127.0.0.1:{port}"
    print(  # noqa: T201  # the command's own words
        f"{name} version {version.version} is being loaded (seconds; Ctrl-C ends it). Then: POST "
        f"{address}/invocations, see examples/client.py; {address}/docs lists the rest",
        flush=True,
    )
    os.environ["MLFLOW_TRACKING_URI"] = store.uri  # the server asks the registry itself
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    # MLflow starts uvicorn by its name, which is found only where the environment is activated.
    beside = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join((beside, os.environ.get("PATH", os.defpath)))
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--model-uri", f"models:/{name}@{CHAMPION}", "--host", "127.0.0.1"]
    os.execv(sys.executable, [*command, "--port", str(port), "--workers", "1"])
