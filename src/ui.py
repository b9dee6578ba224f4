"""`python -m src.ui`: the MLflow UI over this project's store, for this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from src import terminal, tracking


def main(
    port: Annotated[int, typer.Option(help="port on 127.0.0.1", min=1, max=65535)] = 5000,
) -> None:
    """Starts the MLflow UI on 127.0.0.1 and says where it is; Ctrl-C ends it.

    Example: python -m src.ui --port 5001
    """
    tracking.serve_ui(Path.cwd(), port)


if __name__ == "__main__":
    terminal.run(main)
