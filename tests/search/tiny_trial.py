"""The process of a trial that takes no time: `python tiny_trial.py BEHAVIOUR STUDY NUMBER`.

It does what a training does, with x in place of a network: it reports epochs, and ends at
1 - (x - 0.3)². BEHAVIOUR says what goes wrong.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

from src.search import ENVIRONMENT, RunningTrial, run_trial

EPOCHS = 4


class PrunedError(Exception):
    pass


def value_of(x: float) -> float:
    return 1 - (x - 0.3) ** 2


def main(behaviour: str, study: str, number: str) -> int:
    folder = Path(os.environ["TINY_FOLDER"])
    point = json.loads(os.environ["TINY_POINT"])

    def objective(trial: RunningTrial) -> float:
        trial.started(f"run {number}")
        (folder / f"started {number}").write_text(str(os.getpid()))
        if behaviour == "out of memory" and number == "1":
            resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
            bytearray(2**33)
        if behaviour == "killed always" or (behaviour == "killed once" and number == "1"):
            os.kill(os.getpid(), signal.SIGKILL)
        if behaviour == "crash":
            os.write(1, b"the disc is on fire\n")
            os.abort()
        if behaviour == "wrong":
            raise ValueError("depth 9 is too deep")
        if behaviour == "a server is gone" and number == "1":
            raise ConnectionError("http://host:5000 cannot be reached")
        while behaviour == "told when to end" and not (folder / f"end {number}").exists():
            time.sleep(0.05)
        for epoch in range(1, EPOCHS + 1):
            time.sleep(60 if behaviour == "slow" else 0.05)
            trial.report(epoch, value_of(point["x"]) * epoch / EPOCHS)
            if behaviour == "prune" and trial.is_hopeless:
                raise PrunedError
        return value_of(point["x"])

    return run_trial(
        objective,
        address=os.environ[ENVIRONMENT],
        study=study,
        number=int(number),
        pruner="median",
        epochs=EPOCHS,
        pruned=PrunedError,
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
