"""`python -m src.serve`: the registered model behind MLflow's scoring server, for this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from src import terminal, tracking
from src.config import load_params


def main(
    port: Annotated[int, typer.Option(help="port on 127.0.0.1", min=1, max=65535)] = 5002,
    model: Annotated[
        str | None, typer.Option(help="registered model; compare.registered_model if not given")
    ] = None,
) -> None:
    """Serves the champion on 127.0.0.1: slices in HU in, masks out; Ctrl-C ends it.

    The slices of a request are one scan where the model has context or postprocessing. It takes
    JSON alone: MLflow's server has no binary form for arrays of any size. For folders of
    scans `python -m src.predict` is faster, and keeps their geometry.

    Example: python -m src.serve --port 5003
    """
    root = Path.cwd()
    name = model or load_params(root / "params.yaml").compare.registered_model
    tracking.serve_model(root, name, port)


if __name__ == "__main__":
    terminal.run(main)
