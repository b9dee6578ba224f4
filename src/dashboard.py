"""`python -m src.dashboard`: Optuna's dashboard over this project's studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from src import addresses, search, terminal, tracking
from src.config import load_params


def main(
    port: Annotated[int, typer.Option(help="port on 127.0.0.1", min=1, max=65535)] = 8080,
    storage: Annotated[
        str | None,
        typer.Option(help="address; default: tune.storage", envvar=search.ENVIRONMENT),
    ] = None,
) -> None:
    """Starts Optuna's dashboard on 127.0.0.1 and says where it is; Ctrl-C ends it.

    Example: python -m src.dashboard --port 8081
    """
    root = tracking.repository(Path.cwd())
    given = storage or load_params(root / "params.yaml").tune.storage
    address = search.storage_address(given, root, taken=[tracking.store_uri(root)])
    addresses.refuse_a_used_port(port, "make study")
    search.serve_dashboard(address, port)


if __name__ == "__main__":
    terminal.run(main)
