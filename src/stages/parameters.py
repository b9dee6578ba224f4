"""Stage `parameters`: all of params.yaml is checked before any other stage begins.

Each stage checks the file too, but DVC puts the old results of a stage away before it starts it: a
misspelt line found there would cost them until the next run, and one under `tune` would not be
found at all.

Writes prepared/parameters.txt: always the same words, so that what depends on it waits for the
check and is not run again because of it.
"""

from __future__ import annotations

from pathlib import Path

from src import terminal
from src.config import load_params
from src.files import write_text


def main() -> None:
    """Checks every line of params.yaml, and names those that are wrong.

    Example: python -m src.stages.parameters
    """
    load_params(Path("params.yaml"))
    write_text(Path("prepared/parameters.txt"), "params.yaml has been checked\n")
    terminal.console.print("params.yaml: every line can be read")


if __name__ == "__main__":
    terminal.run(main)
