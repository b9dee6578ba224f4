"""A study that any number of processes, on any number of machines, work on.

What is true of it stands in the database alone, and every decision is taken by one process at a
time (`storage.alone`). A trial is claimed and gives its first sign of life under that lock. It
fails for good only with a reason; one that failed without (its process was killed, its machine
switched off) is followed by another trial of the same parameters. So the number of trials that
follow no other is the number that was begun, and never more than was wanted.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from src.search.outcomes import (
    ATTEMPT,
    BASELINE,
    FIRST,
    FOLLOWS,
    GONE,
    INTERRUPTED,
    REASON,
    Outcome,
    Standing,
    attempts_of,
    outcome_of,
)
from src.search.space import Dimension, baseline
from src.search.storage import alone, join_storage, open_storage, quiet_optuna, used_on_purpose

# Names of attributes of a whole study.
FACTS = "facts"
IDENTITY = "identity"  # tells a study from another of the same name in another database


@dataclass(frozen=True)
class Setting:
    """How a study searches.

    Attributes:
        name: Of the study.
        address: Of its database, from `storage_address`.
        space: The dimensions.
        facts: What all its trials have in common, such as the data hash; a study is taken up only
            where they are the same. Name -> value, as text.
        trials: How many it shall have.
        epochs: Of a trial that is not pruned.
        pruner: hyperband, median or none.
        seed: Of the search.
        retries: How often a trial is run again whose process was killed.
        heartbeat_seconds: Between two signs of life of a trial; four missed ones, and it is dead.
        resume: Whether a study of this name is gone on with, or refused.
    """

    name: str
    address: str
    space: tuple[Dimension, ...]
    facts: Mapping[str, str]
    trials: int
    epochs: int
    pruner: str
    seed: int
    retries: int
    heartbeat_seconds: int
    resume: bool = True


class Search:
    """A study, opened by a process that claims trials."""

    def __init__(
        self,
        setting: Setting,
        on_killed: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        """Opens the study, and makes it where there is none, with the present parameters in line.

        Args:
            setting: How it searches.
            on_killed: Called for a trial whose process turned out to be gone.

        Raises:
            ValueError: There is a study of this name with other facts, or one at all where it is
                not to be resumed.
            OSError: The database cannot be reached.
        """
        self.setting = setting
        self._on_killed = on_killed
        self._claimed: set[int] = set()  # numbers of the trials that run here
        optuna = quiet_optuna()
        with alone(setting.address):
            self._storage = open_storage(
                setting.address, heartbeat_seconds=setting.heartbeat_seconds
            )
            try:
                self.study = optuna.create_study(
                    study_name=setting.name,
                    storage=self._storage,
                    direction="maximize",
                    load_if_exists=setting.resume,
                )
            except optuna.exceptions.DuplicatedStudyError:
                raise ValueError(
                    f"there is a study {setting.name} already. Leave out --no-resume to go on with "
                    "it, or name another with --study."
                ) from None
            held = self.study.user_attrs.get(FACTS)
            if held is None:
                with used_on_purpose():
                    self.study.set_metric_names(["validation mean IoU"])
                self.study.set_user_attr(IDENTITY, secrets.token_hex(6))
                self.study.set_user_attr(FACTS, dict(setting.facts))
            elif held != dict(setting.facts):
                raise ValueError(_other_facts(setting.name, held, setting.facts))
            first = baseline(setting.space)
            trials = self.study.get_trials(deepcopy=False)
            known = any(t.params == first or _enqueued(t) == first for t in trials)
            if not known and self._begun(trials) < setting.trials:
                self.study.enqueue_trial(first, user_attrs={BASELINE: True})

    # --- Deciding, one process at a time ----------------------------------------------------------

    def claim(self) -> Outcome | None:
        """Takes the next trial: one that waits, or a new one; None where there is nothing to take.

        What is running elsewhere may still turn out to be killed: ask again until `is_over`.
        """
        states = quiet_optuna().trial.TrialState
        with alone(self.setting.address):
            self._sweep()
            trials = self.study.get_trials(deepcopy=False)
            waiting = any(trial.state == states.WAITING for trial in trials)
            if not waiting and self._begun(trials) >= self.setting.trials:
                return None
            # By the number of trials, so that no two of them draw alike on any machine, and a
            # study with one worker is the same however often it was interrupted.
            with used_on_purpose():
                self.study.sampler = _sampler(self.setting.seed + len(trials))
                trial = self.study.ask({one.name: one.distribution() for one in self.setting.space})
            self._storage.record_heartbeat(trial._trial_id)
            self._claimed.add(trial.number)
            return self._outcome(trial.number)

    def fail(self, number: int, reason: str | None) -> Outcome:
        """Notes the end of a trial whose process ended without telling one.

        Args:
            number: Of the trial; one that has ended keeps its end.
            reason: None where its process was killed: it is run again.
        """
        return self._end({number: reason})[number]

    def interrupt(self, numbers: list[int]) -> dict[int, Outcome]:
        """Puts running trials back in line, at Ctrl-C; that does not count as an attempt."""
        return self._end(dict.fromkeys(numbers), interrupted=True)

    def _end(
        self, reasons: Mapping[int, str | None], *, interrupted: bool = False
    ) -> dict[int, Outcome]:
        states = quiet_optuna().trial.TrialState
        self._claimed.difference_update(reasons)
        with alone(self.setting.address):
            for number, reason in reasons.items():
                trial = self._trial(number)
                if trial.state != states.RUNNING:
                    continue
                if interrupted:
                    self._storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)
                if reason is not None:
                    self._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
                self.study.tell(number, state=states.FAIL, skip_if_finished=True)
            self._sweep()
        return {number: self._outcome(number) for number in reasons}

    def _sweep(self) -> None:
        """Finds the trials of processes that are gone, and puts what was killed back in line.

        Each step can be repeated: a process that is killed within it leaves nothing undone.
        """
        optuna = quiet_optuna()
        states = optuna.trial.TrialState
        self.give_signs_of_life()  # the lock may have been waited for longer than they last
        running = self.study.get_trials(deepcopy=False, states=(states.RUNNING,))
        signs = self._with_sign_of_life()
        for trial in running:
            if trial._trial_id not in signs:  # killed between its claim and its first sign
                self.study.tell(trial.number, state=states.FAIL, skip_if_finished=True)
        with used_on_purpose():
            optuna.storages.fail_stale_trials(self.study)
        trials = self.study.get_trials(deepcopy=False)
        followed = {trial.user_attrs.get(FOLLOWS) for trial in trials}
        for trial in trials:
            attempts = attempts_of(trial)
            if trial.state != states.FAIL or REASON in trial.user_attrs:
                continue
            if trial.number not in followed and attempts <= self.setting.retries:
                self.study.add_trial(_follower(trial))
        for trial in running:
            outcome = self._outcome(trial.number)
            if outcome.state in GONE:
                self._on_killed(outcome)

    def _with_sign_of_life(self) -> set[int]:
        import sqlalchemy

        with self._storage.engine.connect() as connection:
            return set(connection.scalars(sqlalchemy.text("SELECT trial_id FROM trial_heartbeats")))

    @staticmethod
    def _begun(trials: Any) -> int:
        return sum(FOLLOWS not in trial.user_attrs for trial in trials)

    # --- Looking ----------------------------------------------------------------------------------

    @property
    def identity(self) -> str:
        """What tells this study from all others, 12 hex digits."""
        return str(self.study.user_attrs[IDENTITY])

    def close(self) -> None:
        """Closes the connections to the database."""
        self._storage.engine.dispose()

    def alone(self) -> AbstractContextManager[None]:
        """Runs a block in one worker at a time, of all machines."""
        return alone(self.setting.address)

    def give_signs_of_life(self) -> None:
        """Says that the trials which were claimed here, and have not ended, are alive."""
        for number in self._claimed:
            self._storage.record_heartbeat(self._trial(number)._trial_id)

    def standing(self) -> Standing:
        """Where the study stands."""
        trials = self.study.get_trials(deepcopy=False)
        followed = {trial.user_attrs.get(FOLLOWS) for trial in trials}
        found = [outcome_of(trial, trial.number in followed) for trial in trials]
        begun = self._begun(trials)
        return Standing(tuple(found), max(self.setting.trials, begun))

    @property
    def is_over(self) -> bool:
        """Whether every wanted trial came to an end, on every machine."""
        return self.standing().left == 0

    def importances(self) -> dict[str, float]:
        """How much of the differences each dimension explains, in [0, 1]; {} where too few ended.

        Functional analysis of variance of a random forest (Hutter et al. 2014).
        """
        optuna = quiet_optuna()
        complete = self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len({trial.value for trial in complete}) < 4:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.setting.seed)
        return dict(optuna.importance.get_param_importances(self.study, evaluator=evaluator))

    def note(self, name: str, value: str) -> None:
        """Keeps a fact about the whole study, which the dashboard shows."""
        self.study.set_user_attr(name, value)

    def _trial(self, number: int) -> Any:
        return self.study.get_trials(deepcopy=False)[number]

    def _outcome(self, number: int) -> Outcome:
        return self.standing().outcomes[number]


def load_study(address: str, name: str, *, pruner: str, epochs: int) -> Any:
    """The study as the process of a trial opens it."""
    optuna = quiet_optuna()
    return optuna.load_study(
        study_name=name,
        storage=join_storage(address),
        # It suggests nothing; the sampler of the search would read all trials for nothing.
        sampler=optuna.samplers.RandomSampler(),
        pruner=_pruner(pruner, epochs),
    )


def _sampler(seed: int) -> Any:
    # Grouped and multivariate: the parameters are drawn together, as one needs the other (a deeper
    # network another learning rate). What runs elsewhere counts as bad, so none is tried twice.
    return quiet_optuna().samplers.TPESampler(
        multivariate=True, group=True, constant_liar=True, seed=seed
    )


def _pruner(kind: str, epochs: int) -> Any:
    pruners = quiet_optuna().pruners
    if kind == "hyperband":
        # A first look after a ninth of the epochs, then after a third.
        return pruners.HyperbandPruner(
            min_resource=max(1, epochs // 9), max_resource=epochs, reduction_factor=3
        )
    if kind == "median":
        return pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=epochs // 4)
    return pruners.NopPruner()


def _enqueued(trial: Any) -> Any:
    return trial.system_attrs.get("fixed_params")


def _follower(trial: Any) -> Any:
    """A trial in line with the parameters of one that was killed."""
    optuna = quiet_optuna()
    attributes = {
        FOLLOWS: trial.number,
        FIRST: trial.user_attrs.get(FIRST, trial.number),
        ATTEMPT: attempts_of(trial),
    }
    if BASELINE in trial.user_attrs:
        attributes[BASELINE] = True
    fixed = _enqueued(trial)
    return optuna.create_trial(
        state=optuna.trial.TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=attributes,
        system_attrs={} if fixed is None else {"fixed_params": fixed},
    )


def _other_facts(name: str, held: Mapping[str, str], now: Mapping[str, str]) -> str:
    names = [key for key in {**held, **now} if held.get(key) != now.get(key)]
    lines = [f"  {key}: {held.get(key, 'none')} -> {now.get(key, 'none')}" for key in names]
    return (
        f"the study {name} was made with other data, parameters or code, so its trials and new "
        "ones could not be compared. Begin another with --study, or put back what changed:\n"
        + "\n".join(lines)
    )
