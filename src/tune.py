"""`python -m src.tune`: searches for better parameters, and registers the best model it finds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from src import addresses, search, terminal, tracking
from src.config import Params, load_params, truth_parameters

VIEW_SECONDS = 1.0


class View:
    """Where the study stands, live at a terminal; a line for each trial anywhere."""

    def __init__(self, opened: search.Search, deadline: float | None, processes: int) -> None:
        self._search, self._deadline, self._processes = opened, deadline, processes
        self._started = time.monotonic()
        self._ended_before = opened.standing().ended
        self._live = Live(console=terminal.console, auto_refresh=False, transient=True)
        self._drawn = 0.0

    def __enter__(self) -> View:
        if terminal.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def tick(self) -> None:
        """Draws anew, once a second."""
        now = time.monotonic()
        if self._live.is_started and now - self._drawn >= VIEW_SECONDS:
            self._live.update(self._picture(self._search.standing()), refresh=True)
            self._drawn = now

    def begin(self, outcome: search.Outcome, kept_epoch: int) -> None:
        """Prints which trial a claimed one goes on with; of a new trial nothing."""
        if outcome.follows is not None:
            before = self._search.standing().outcomes[outcome.follows]
            said = what_is_followed(before, kept_epoch)
            terminal.console.print(f"trial {outcome.number:3d}  {said}")

    def line(self, outcome: search.Outcome) -> None:
        """Prints how a trial ended, and how far the study is."""
        standing = self._search.standing()
        value = "" if outcome.value is None else f"  mean IoU {outcome.value:.4f}"
        best = "  best so far" if standing.best and standing.best.number == outcome.number else ""
        why = f"  {outcome.reason}" if outcome.reason else ""
        again = f"  {what_follows(outcome)}" if outcome.state in ("killed", "interrupted") else ""
        terminal.console.print(
            f"trial {outcome.number:3d}  {outcome.state:11s} after epoch {outcome.epoch}{value}"
            f"{best}{why}{again}  ({standing.ended} of {standing.wanted} ended)"
        )

    def _picture(self, standing: search.Standing) -> Table:
        best, setting = standing.best, self._search.setting
        picture = Table.grid()
        picture.add_row(f"{setting.name}: {states(standing)}")
        if best is None:
            picture.add_row("no trial is complete yet")
        else:
            first = [one for one in standing.outcomes if one.baseline and one.state == "complete"]
            so_far = f" (present parameters {first[-1].value:.4f})" if first else ""
            picture.add_row(
                f"best so far: trial {best.number}, validation mean IoU {best.value:.4f}{so_far}"
            )
            picture.add_row(f"  {described(best.point)}")
        running = Table("trial", "epoch", "mean IoU", "parameters", box=None, pad_edge=False)
        for one in standing.outcomes:
            if one.state == "running":
                value = "" if one.value is None else f"{one.value:.4f}"
                epoch = f"{one.epoch}/{setting.epochs}"
                running.add_row(str(one.number), epoch, value, described(one.point))
        picture.add_row(running)
        picture.add_row(ProgressBar(total=standing.wanted, completed=standing.ended, width=40))
        picture.add_row(self._time(standing))
        return picture

    def _time(self, standing: search.Standing) -> str:
        now = time.monotonic()
        past = now - self._started
        words = f"{clock(past)} so far"
        done = standing.ended - self._ended_before
        if done > 0:
            words += f", about {clock(past / done * standing.left)} left"
        if self._deadline is not None:
            words += f"; the last trial starts in {clock(max(0.0, self._deadline - now))}"
        return f"{words}. Ctrl-C stops; the same command goes on"


def states(standing: search.Standing) -> str:
    """The numbers of trials by state, in words."""
    order = ("complete", "pruned", "failed", "killed", "interrupted", "running")
    parts = [f"{standing.states[s]} {s}" for s in order if standing.states[s]]
    return f"{standing.ended} of {standing.wanted} trials ended" + (
        f" ({', '.join(parts)})" if parts else ""
    )


def what_follows(outcome: search.Outcome) -> str:
    """How a killed or interrupted trial goes on, under another number."""
    if outcome.state == "killed":
        return "it goes on from there" if outcome.epoch else "it runs again"
    return f"the same command {'goes on from there' if outcome.epoch else 'runs it again'}"


def what_is_followed(before: search.Outcome, kept_epoch: int) -> str:
    """Which trial another one goes on with, or begins again.

    Args:
        before: The killed or interrupted one.
        kept_epoch: The last epoch of which this machine holds the state; 0 without one.
    """
    if kept_epoch:
        return f"goes on with trial {before.number}, after epoch {kept_epoch}"
    why = ": its checkpoint is not on this machine" if before.epoch else ""
    return f"begins trial {before.number} again{why}"


def described(point: Mapping[str, Any]) -> str:
    """A point of the search in one line: `architecture unet, learning_rate 0.002`."""
    return ", ".join(
        f"{name.removeprefix('train.').removeprefix('model.')} "
        + (f"{value:.4g}" if isinstance(value, float) else str(value))
        for name, value in point.items()
    )


def clock(seconds: float) -> str:
    """A duration for people: 0:42 min, 12 min, 3:05 h."""
    minutes = seconds / 60
    if minutes < 10:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
    if minutes < 90:
        return f"{minutes:.0f} min"
    return f"{int(minutes) // 60}:{int(minutes) % 60:02d} h"


def setting_of(
    root: Path, params: Params, *, study: str | None, storage: str | None, resume: bool
) -> search.Setting:
    """How the study of these parameters searches.

    Raises:
        ValueError: tune.space does not suit the parameters, prepared/ is out of date, or the
            storage is none.
    """
    from src import tuning

    space = tuning.space_of(params)
    search.baseline(space)
    tuning.check_prepared(root)
    fold = params.split.fold[0]
    facts = tuning.facts_of(
        params,
        space,
        tracking.provenance(root, root / "prepared" / "split.csv", truth_parameters(params), fold),
    )
    return search.Setting(
        name=study or f"study-{tracking.short_hash(facts)}",
        address=search.storage_address(
            storage or params.tune.storage, root, taken=[tracking.store_uri(root)]
        ),
        space=space,
        facts=facts,
        trials=params.tune.trials,
        epochs=params.train.epochs,
        pruner=params.tune.pruner,
        seed=params.tune.seed,
        retries=params.tune.retries,
        heartbeat_seconds=params.tune.heartbeat_seconds,
        resume=resume,
    )


def work(
    root: Path,
    params: Params,
    opened: search.Search,
    store: tracking.Store,
    run: tracking.Run,
) -> None:
    """Runs trials here until the study has all of them, or the time is up; tells of each."""
    from src import tuning

    study, tune = opened.setting.name, params.tune
    deadline = None if tune.minutes is None else time.monotonic() + 60 * tune.minutes
    start = tuning.starter(root, params, opened.setting, run, tune.workers)
    with View(opened, deadline, tune.workers) as view:

        def on_claim(outcome: search.Outcome) -> search.Start:
            view.begin(outcome, tuning.kept_epoch(root, study, outcome))
            return start(outcome)

        def on_end(outcome: search.Outcome) -> None:
            view.line(outcome)
            tuning.close_run(store, outcome)
            if outcome.state in ("complete", "pruned"):
                shutil.rmtree(tuning.trial_folder(root, study, outcome), ignore_errors=True)

        search.Worker(
            opened,
            on_claim,
            processes=tune.workers,
            deadline=deadline,
            on_end=on_end,
            on_tick=view.tick,
        ).run()


def conclude(
    root: Path,
    params: Params,
    opened: search.Search,
    store: tracking.Store,
    run: tracking.Run,
    *,
    apply: bool,
) -> None:
    """Says what is best, writes it down, and registers the best model.

    Raises:
        ValueError: No trial is complete.
    """
    from src import tuning

    standing = opened.standing()
    best = standing.best
    if best is None:
        raise ValueError(
            f"no trial of {opened.setting.name} is complete ({states(standing)}). Run the same "
            "command again, with more time."
        )
    space = opened.setting.space
    changes = tuning.differences(params, space, best.point)
    values = {path: new for path, (_, new) in changes.items()}
    tuning.log_study(run, opened, standing, changes)
    terminal.console.print(
        f"{opened.setting.name}: {states(standing)}. Best is trial {best.number}, validation mean "
        f"IoU {best.value:.4f}"
    )
    for path, (old, new) in changes.items():
        terminal.console.print(f"  {path}: {old} -> {new}")
    if not changes:
        terminal.console.print("  the parameters of params.yaml are the best of them")
    source = root / "params.yaml"
    # Not to reports/, which may be shared: params.yaml may hold names.
    tuning.write_changed(source, root / "prepared" / "best_params.yaml", values)
    # Before the lock: it takes minutes on real scans, and other workers wait for the lock.
    score = tuning.validation_score(root, params, store, best)
    with opened.alone():  # one machine at a time, so that one of them makes the version
        registered = tuning.register_best(params, store, best, score)
    terminal.console.print(registered)
    if apply and changes:
        tuning.write_changed(source, source, values)
        said = "params.yaml has them now: dvc repro makes the model through the pipeline"
    else:
        said = "prepared/best_params.yaml has them"
        said += "" if apply else "; --apply writes them into params.yaml"
    terminal.console.print(f"{said}. Look at the study: make ui, make study")


def main(
    trials: Annotated[
        int | None,
        typer.Option(help="of the whole study; default: tune.trials", min=1),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="minutes; no trial starts after; default: tune.minutes", min=0.01),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="trials at a time here; default: tune.workers", min=1),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="its name; default: made of data, parameters and code")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="address of the studies, with a password better in the variable; "
            "default: tune.storage",
            envvar=search.ENVIRONMENT,
            show_envvar=True,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="go on with a study of this name, or refuse to")
    ] = True,
    apply: Annotated[bool, typer.Option(help="write the best parameters to params.yaml")] = False,
) -> None:
    """Searches for better parameters, by validation alone; params.yaml says what is searched.

    The first trial has the present parameters, so the best is never worse. A study that was
    stopped goes on where it was. The same command on another machine with the same storage (a
    PostgreSQL address) is another worker of the same study.

    Example: python -m src.tune --trials 40 --workers 2
    """
    from src import tuning

    root = tracking.repository(Path.cwd())
    params = load_params(root / "params.yaml")
    given = {"trials": trials, "minutes": timeout, "workers": workers}
    tune = params.tune.model_copy(update={k: v for k, v in given.items() if v is not None})
    params = params.model_copy(update={"tune": tune})
    setting = setting_of(root, params, study=study, storage=storage, resume=resume)
    store = tracking.open_store(root)

    def on_killed(outcome: search.Outcome) -> None:
        tuning.close_run(store, outcome)
        then = f": {outcome.reason}" if outcome.state == "failed" else f"; {what_follows(outcome)}"
        terminal.console.print(f"trial {outcome.number:3d}  its process is gone{then}")

    opened = search.Search(setting, on_killed=on_killed)
    standing = opened.standing()
    terminal.console.print(
        f"{setting.name}: {states(standing)}, in {addresses.hide_password(setting.address)}"
    )
    origin = tracking.provenance(
        root, root / "prepared" / "split.csv", truth_parameters(params), params.split.fold[0]
    )
    try:
        with tuning.study_run(store, params, opened, origin) as run:
            work(root, params, opened, store, run)
            conclude(root, params, opened, store, run, apply=apply)
    except ConnectionError as error:
        raise ConnectionError(f"{error} {search.GO_ON}") from error
    except KeyboardInterrupt:
        terminal.warn(f"stopped: {states(opened.standing())}. The same command goes on from there.")
        raise typer.Exit(terminal.INTERRUPTED) from None
    finally:
        opened.close()


if __name__ == "__main__":
    terminal.run(main)
