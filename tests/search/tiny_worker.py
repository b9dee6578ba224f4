"""A worker on a study of tiny trials: `python tiny_worker.py STUDY TRIALS BEHAVIOUR`."""

import json
import os
import signal
import sys
from pathlib import Path

from src.search import ENVIRONMENT, Dimension, Outcome, Search, Setting, Worker
from src.search.worker import Start

HERE = Path(__file__).parent
SPACE = (
    Dimension("x", 0.9, 0.0, 1.0),
    Dimension("depth", 4, 2, 5),
    Dimension("loss", "dice", choices=("dice", "focal")),
)


def setting(address: str, name: str, trials: int, **changes: object) -> Setting:
    values: dict[str, object] = {
        "name": name, "address": address, "space": SPACE, "facts": {"data_hash": "d"},
        "trials": trials, "epochs": 4, "pruner": "median", "seed": 7, "retries": 2,
        "heartbeat_seconds": 1,
    }  # fmt: skip
    return Setting(**(values | changes))  # type: ignore[arg-type]


def work(
    opened: Search,
    folder: Path,
    behaviour: str,
    *,
    processes: int = 2,
    deadline: float | None = None,
) -> list[Outcome]:
    """Runs a worker to its end; returns what ended here, in that order."""
    ended: list[Outcome] = []

    def start(outcome: Outcome) -> Start:
        command = [sys.executable, "-m", "tests.search.tiny_trial", behaviour]
        command += [opened.setting.name, str(outcome.number)]
        environment = os.environ | {
            ENVIRONMENT: opened.setting.address,
            "TINY_FOLDER": str(folder),
            "TINY_POINT": json.dumps(outcome.point),
            "PYTHONPATH": str(HERE.parents[1]),
        }
        return Start(command, folder / f"{outcome.number}.log", environment)

    Worker(opened, start, processes=processes, deadline=deadline, on_end=ended.append).run()
    return ended


if __name__ == "__main__":
    # A shell that runs the tests in its background has its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    study, trials, behaviour, folder = sys.argv[1:]
    Path(folder).mkdir(exist_ok=True)
    opened = Search(setting(os.environ[ENVIRONMENT], study, int(trials)))
    for one in work(opened, Path(folder), behaviour):
        sys.stdout.write(f"{one.number} {one.state}\n")
