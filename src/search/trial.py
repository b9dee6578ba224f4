"""The process of one trial: it reports every epoch, and ends with its search."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from src.search.outcomes import BASELINE, REASON, RUN
from src.search.storage import GO_ON, quiet_optuna
from src.search.study import load_study

# Exit codes.
TAKEN_OVER = 3  # another process has ended the trial
HALTED = 4  # the study has to stop; the trial is not to blame
HALT_MARK = "error: "  # before the reason, in what the process prints


@dataclass(frozen=True)
class RunningTrial:
    """A trial of which this process is in charge.

    Attributes:
        number: Optuna's.
    """

    number: int
    _trial: Any
    _reported: set[int]

    def started(self, run_id: str) -> None:
        """Notes the MLflow run."""
        self._trial.set_user_attr(RUN, run_id)

    def report(self, epoch: int, value: float) -> None:
        """Notes the value of an epoch; one that was reported, or is not a number, is left alone."""
        if epoch not in self._reported and not math.isnan(value):
            self._trial.report(value, epoch)
            self._reported.add(epoch)

    @property
    def is_hopeless(self) -> bool:
        """Whether to stop, as others do better; never the trial of the present parameters."""
        return not self._trial.user_attrs.get(BASELINE) and bool(self._trial.should_prune())


def run_trial(
    objective: Callable[[RunningTrial], float],
    *,
    address: str,
    study: str,
    number: int,
    pruner: str,
    epochs: int,
    pruned: type[Exception],
) -> int:
    """Runs a trial that a search has claimed, and tells the study its end.

    The process ends when its standard input does: the search holds the other end.

    Args:
        objective: -> the value; it raises `pruned` where `is_hopeless` says so.
        address: Of the database.
        study: Its name.
        number: Of the trial.
        pruner: See `Setting`.
        epochs: See `Setting`.
        pruned: The exception for it.

    Returns:
        The exit code: `HALTED` where a server is gone, that of the study or one of the objective's.
    """
    threading.Thread(target=_end_with_search, daemon=True).start()
    try:
        opened = load_study(address, study, pruner=pruner, epochs=epochs)
        return _run(objective, opened, number, pruned)
    except ConnectionError as error:
        return halt(f"{error} {GO_ON}")


def halt(reason: str) -> int:
    """Says why the study has to stop, to the search; returns the exit code that tells it so.

    Args:
        reason: One line, with the remedy.
    """
    sys.stderr.write(f"{HALT_MARK}{reason}\n")
    return HALTED


def _run(
    objective: Callable[[RunningTrial], float], opened: Any, number: int, pruned: type[Exception]
) -> int:
    optuna = quiet_optuna()
    states = optuna.trial.TrialState
    trial = optuna.Trial(opened, opened.get_trials(deepcopy=False)[number]._trial_id)

    def fail(reason: str) -> int:
        trial.set_user_attr(REASON, reason)
        opened.tell(number, state=states.FAIL)
        return 1

    try:
        value = objective(RunningTrial(number, trial, set()))
        if math.isnan(value):
            return fail("its validation value is no number: there is no foreground to score")
        opened.tell(number, value)
    except pruned:
        opened.tell(number, state=states.PRUNED)
    except optuna.exceptions.UpdateFinishedTrialError:
        return TAKEN_OVER
    except ConnectionError:  # no fault of the trial: it runs again
        raise
    except (ValueError, OSError) as error:
        return fail(str(error))
    except Exception as error:
        if not _is_out_of_memory(error):
            fail(f"{type(error).__name__}: {error}"[:500])
            raise
        return fail("out of memory")
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    # TensorFlow's error is told by its name: this package imports no TensorFlow.
    return isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"


def _end_with_search() -> None:
    """Waits for the end of standard input, then ends the process at once."""
    # Not sys.stdin: a thread that waits in it hinders the interpreter's own end.
    while os.read(0, 1):
        pass
    os._exit(TAKEN_OVER)
