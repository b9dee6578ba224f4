"""The trials of a study as tables and pictures show them, out of what the database holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Names of Optuna's user attributes; its dashboard shows them.
REASON = "reason"  # why a trial failed
FOLLOWS = "follows"  # number of the trial that is run again
FIRST = "first"  # number of the first of them
ATTEMPT = "attempt"  # times that it was killed
INTERRUPTED = "interrupted"  # ended by Ctrl-C, which does not count as an attempt
BASELINE = "baseline"  # the trial of the present parameters, which is not pruned
RUN = "mlflow_run"
GONE = ("killed", "interrupted", "failed")  # states of a trial whose process told no end


@dataclass(frozen=True)
class Outcome:
    """One trial, as tables and pictures show it.

    Attributes:
        number: Optuna's.
        state: waiting, running, complete, pruned, failed; killed, or interrupted by Ctrl-C, where
            another one follows it.
        value: What it reached, of the last epoch that it reported; None before the first.
        epoch: The last that it reported; 0 before the first.
        point: Name of a dimension -> value.
        reason: Why it failed.
        run_id: Of its MLflow run; "" before it started.
        first: Its number, or that of the first of the trials that it follows.
        baseline: Whether it is that of the present parameters.
        seconds: That it took; None before it ended.
        follows: Number of the trial that it runs again; None of a new one.
    """

    number: int
    state: str
    value: float | None
    epoch: int
    point: Mapping[str, Any]
    reason: str
    run_id: str
    first: int
    baseline: bool
    seconds: float | None
    follows: int | None = None


@dataclass(frozen=True)
class Standing:
    """Where a study stands.

    Attributes:
        outcomes: All trials, by number.
        wanted: How many it shall have.
    """

    outcomes: tuple[Outcome, ...]
    wanted: int

    @property
    def best(self) -> Outcome | None:
        """The complete trial with the highest value, the first of several; None without one."""
        complete = [one for one in self.outcomes if one.state == "complete"]
        return max(complete, key=lambda one: (one.value or 0.0, -one.number), default=None)

    @property
    def states(self) -> Counter[str]:
        """State -> number of trials."""
        return Counter(one.state for one in self.outcomes)

    @property
    def ended(self) -> int:
        """Trials that came to an end and are not run again."""
        return sum(self.states[state] for state in ("complete", "pruned", "failed"))

    @property
    def left(self) -> int:
        """Trials that are still to come to an end."""
        unfinished = self.states["waiting"] + self.states["running"]
        return max(self.wanted - self.ended, unfinished)


def attempts_of(trial: Any) -> int:
    """How often it was killed, this time included."""
    return int(trial.user_attrs.get(ATTEMPT, 0)) + (INTERRUPTED not in trial.user_attrs)


def outcome_of(trial: Any, is_followed: bool) -> Outcome:
    """A trial of Optuna's.

    Args:
        trial: As the database holds it.
        is_followed: Whether another trial runs it again.
    """
    attributes = trial.user_attrs
    state = trial.state.name.lower()
    if state == "fail":
        again = "interrupted" if INTERRUPTED in attributes else "killed"
        state = again if is_followed else "failed"
    reason = str(attributes.get(REASON, ""))
    if state == "failed" and not reason:
        reason = f"its process was killed {attempts_of(trial)} times"
    epoch = trial.last_step or 0
    return Outcome(
        number=trial.number,
        state=state,
        value=trial.value if state == "complete" else trial.intermediate_values.get(epoch),
        epoch=epoch,
        point=dict(trial.params),
        reason=reason,
        run_id=str(attributes.get(RUN, "")),
        first=int(attributes.get(FIRST, trial.number)),
        baseline=bool(attributes.get(BASELINE)),
        seconds=trial.duration.total_seconds() if trial.duration else None,
        follows=attributes.get(FOLLOWS),
    )
