"""A study of this project: its facts, its run in MLflow, and what comes of it in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from ruamel.yaml import YAML

from src import params_file, search, terminal, tracking
from src.config import ARCHITECTURE, Params, leaves, load_params, public_parameters
from src.files import write_text
from src.stages.train import code_hash
from src.tune_trial import CHECKPOINT, Task, changed_code

FACT_GROUPS = ("data", "split", "prepare", "train")
SCORE = "validation_patients/dice/mean_foreground"


# --- Before -------------------------------------------------------------------------------------


def space_of(params: Params) -> tuple[search.Dimension, ...]:
    """The dimensions of the search.

    Raises:
        ValueError: One of them holds a value that the parameter cannot have; all are named.
    """
    current = {f"train.{name}": value for name, value in leaves(params.train.model_dump()).items()}
    current[ARCHITECTURE] = params.architectures[0]
    space = search.dimensions(
        {name: entry.model_dump() for name, entry in params.tune.space.items()}, current
    )
    wrong = []
    for one in space:
        for end in search.ends(one):
            try:
                changed(params, search.parameters_of([one], {one.name: end}))
            except ValueError as error:
                wrong.append(f"  {one.name}: {end} is impossible: {error}")
    if wrong:
        raise ValueError("tune.space in params.yaml:\n" + "\n".join(wrong))
    return space


def changed(params: Params, values: Mapping[str, Any]) -> Params:
    """The parameters with other values of some.

    Args:
        params: All parameters.
        values: Path -> value; `architecture` becomes the one entry of architectures.

    Raises:
        ValueError: They are not possible.
    """
    content = search.with_parameters(params.model_dump(), as_in_file(values))
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        first = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise ValueError(first) from None


def as_in_file(values: Mapping[str, Any]) -> dict[str, Any]:
    """Searched values under the names that params.yaml has."""
    named = {"architectures" if k == ARCHITECTURE else k: v for k, v in values.items()}
    return {k: [v] if k == "architectures" else v for k, v in named.items()}


def facts_of(
    params: Params, space: Sequence[search.Dimension], provenance: Mapping[str, str]
) -> dict[str, str]:
    """What all trials of a study have in common, so that they can be compared.

    Args:
        params: All parameters.
        space: What is searched.
        provenance: Of the data and the split.

    Returns:
        Name -> value, as text; `code_hash` is of the code that trains, here and now.
    """
    # What a factor multiplies stays among the facts: twice as much is twice of that.
    searched = {one.name for one in space}
    public = public_parameters(params, params.architectures[0], params.split.fold[0])
    flat = tracking.flatten({name: public[name] for name in (ARCHITECTURE, *FACT_GROUPS)})
    facts = {key: provenance[key] for key in ("data_hash", "split_hash")}
    facts["code_hash"] = code_hash(Path(__file__).resolve().parent)
    facts |= {name: value for name, value in flat.items() if name not in searched}
    return facts | {f"tune.space.{one.name}": str(one.distribution()) for one in space}


def check_prepared(root: Path) -> None:
    """Raises where prepared/ is not what data/ and params.yaml make.

    Raises:
        ValueError: The message names the command that makes it anew.
    """
    remedy = "Run `dvc repro prepare`."
    if not (root / "prepared" / "split.csv").is_file():
        raise ValueError(f"prepared/ is missing: a study trains on what it holds. {remedy}")
    if not (root / "dvc.lock").is_file():
        return  # the stages were run without DVC
    command = [sys.executable, "-m", "dvc", "status", "--with-deps", "--json", "prepare"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"dvc status failed: {done.stderr.strip()}. {remedy}")
    stale = json.loads(done.stdout or "{}")
    stale.pop("parameters", None)  # it only checks params.yaml, as has been done here
    if stale:
        raise ValueError(
            f"prepared/ is not what data/, src/ and params.yaml make now ({', '.join(stale)} "
            f"changed), so a study would not say what the pipeline does. {remedy}"
        )


# --- The run of the study, and the start of a trial ---------------------------------------------


@contextmanager
def study_run(
    store: tracking.Store, params: Params, found: search.Search, provenance: Mapping[str, str]
) -> Iterator[tracking.Run]:
    """Opens the run that the trials stand below; all workers of the study share it."""
    name = found.setting.name
    settings: dict[str, Any] = {
        "parameters": {"tune": params.tune.model_dump(exclude={"storage", "workers"})},
        "tags": {**provenance, "stage": "study", "study": name, "study_id": found.identity},
    }
    with found.alone():
        run_id = tracking.find_run(
            store, {"stage": "study", "study_id": found.identity}, finished=False
        )
        if run_id is None:
            with tracking.start_run(store, name, **settings) as made:
                run_id = made.run_id
            found.note("mlflow_run", run_id)
    with tracking.start_run(store, name, **settings, run_id=run_id) as run:
        yield run


def starter(
    root: Path,
    params: Params,
    setting: search.Setting,
    run: tracking.Run,
    processes: int,
) -> Callable[[search.Outcome], search.Start]:
    """What makes the folder of a trial, checkpoints/studies/STUDY/trial-N, and its command.

    It raises ValueError where the code that trains has changed since the study began.
    """
    environment = os.environ | {search.ENVIRONMENT: setting.address}
    if processes > 1:
        share = str(max(1, (os.cpu_count() or 1) // processes))
        wanted = {"TF_NUM_INTRAOP_THREADS": share, "OMP_NUM_THREADS": share}
        wanted |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}  # else the first takes all memory of a GPU
        environment = wanted | environment

    def start(outcome: search.Outcome) -> search.Start:
        folder = trial_folder(root, setting.name, outcome)
        values = search.parameters_of(setting.space, outcome.point)
        content = search.with_parameters(params.model_dump(), as_in_file(values))
        folder.mkdir(parents=True, exist_ok=True)
        # A copy: params.yaml may be edited while the study runs.
        with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
            YAML(typ="safe", pure=True).dump(content, stream)
        task = Task(
            study=setting.name,
            number=outcome.number,
            pruner=setting.pruner,
            epochs=setting.epochs,
            fold=params.split.fold[0],
            parent_run_id=run.run_id,
            code_hash=setting.facts["code_hash"],
        )
        # Before its process, too: code in the middle of an edit may not even start.
        if wrong := changed_code(task):
            raise ValueError(wrong)
        task.save(folder)
        command = [sys.executable, "-m", "src.tune_trial", str(folder)]
        return search.Start(command, folder / "log.txt", environment)

    return start


def trial_folder(root: Path, study: str, outcome: search.Outcome) -> Path:
    """Of the first trial, where one follows another: a killed training goes on from there."""
    return root / "checkpoints" / "studies" / study / f"trial-{outcome.first}"


def kept_epoch(root: Path, study: str, outcome: search.Outcome) -> int:
    """The last epoch of which this machine holds the state of a trial; 0 without one.

    Read here, not by `src.training.Checkpoint`: that module takes seconds to import.
    """
    for path in (trial_folder(root, study, outcome) / CHECKPOINT).rglob("state.npz"):
        with np.load(path, allow_pickle=False) as content:
            return int(json.loads(str(content["progress"]))["epoch"])
    return 0


def close_run(store: tracking.Store, outcome: search.Outcome) -> None:
    """Ends the run of a trial whose process is gone or failed."""
    if outcome.run_id and outcome.state in search.GONE:
        status = "FAILED" if outcome.state == "failed" else "KILLED"
        tags = {"state": outcome.state} | ({"reason": outcome.reason} if outcome.reason else {})
        run = tracking.Run(store, outcome.run_id)
        # It is interrupted where the whole command ends, which a server may be the reason for.
        tracking.end_run(run, status, tags, once=outcome.state == "interrupted")


# --- The end ------------------------------------------------------------------------------------


def differences(
    params: Params, space: Sequence[search.Dimension], point: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Path -> value in params.yaml and value of a point, where they differ."""
    now = {one.name: one.current for one in space}
    before, after = (as_in_file(search.parameters_of(space, at)) for at in (now, point))
    if "architectures" in before:
        before["architectures"] = list(params.architectures)
        if point.get(ARCHITECTURE) == before["architectures"][0]:
            after["architectures"] = before["architectures"]
    return {path: (before[path], after[path]) for path in after if before[path] != after[path]}


def write_changed(source: Path, destination: Path, values: Mapping[str, Any]) -> None:
    """Writes params.yaml with other values, its comments kept, after a check that it can be read.

    Raises:
        ValueError: What would be written is no valid params.yaml.
    """
    text = params_file.with_values(source.read_text(encoding="utf-8"), values)
    before = destination.read_text(encoding="utf-8") if destination.is_file() else None
    write_text(destination, text)
    try:
        load_params(destination)
    except ValueError:
        if before is not None:
            write_text(destination, before)
        raise


def log_study(
    run: tracking.Run, found: search.Search, standing: search.Standing, changes: Mapping[str, Any]
) -> None:
    """Writes the study's table, pictures and best trial to its run."""
    import pandas as pd

    from src import figures

    space = found.setting.space
    logarithmic = [one.name for one in space if one.log]
    shown = [
        figures.StudyTrial(one.number, one.state, one.value, one.point)
        for one in standing.outcomes
        if one.value is not None and one.state in ("complete", "pruned")
    ]
    first = next((one for one in standing.outcomes if is_complete_baseline(one)), None)
    history = figures.study_history(shown, baseline=first.value if first else None)
    tracking.log_figure(run, history, "figures/history.png")
    importances = figures.study_importances(found.importances())
    tracking.log_figure(run, importances, "figures/importances.png")
    if shown:
        slices = figures.study_slices(shown, logarithmic)
        tracking.log_figure(run, slices, "figures/slices.png")
    if any(trial.state == "complete" for trial in shown):
        parallel = figures.study_parallel(shown, logarithmic)
        tracking.log_figure(run, parallel, "figures/parallel_coordinates.png")
    table = pd.DataFrame(
        {
            "trial": one.number,
            "state": one.state,
            "validation_mean_iou": one.value,
            "epochs": one.epoch,
            "seconds": one.seconds,
            **search.parameters_of(space, one.point),
            "reason": one.reason,
            "run_id": one.run_id,
        }
        for one in standing.outcomes
    )
    tracking.log_table(run, table, "tables/trials.json")
    best = standing.best
    if best is None or best.value is None:
        return
    tracking.log_metrics(run, {"study/best_validation_mean_iou": best.value}, step=best.number)
    counts = {f"study/{state}": float(number) for state, number in standing.states.items()}
    tracking.log_metrics(run, counts)
    rows = [f"| {path} | {old} | {new} |" for path, (old, new) in changes.items()]
    lines = [
        f"**{found.setting.name}**: {standing.ended} of {standing.wanted} trials; the best is "
        f"trial {best.number} with a validation mean IoU of {best.value:.4f}"
        + (f" (present parameters {first.value:.4f})." if first else "."),
        "",
        *(["| parameter | params.yaml | best |", "|---|---|---|", *rows] if rows else []),
        "",
        "Chosen on validation alone; the test patients were not read.",
    ]
    tags = {"mlflow.note.content": "\n".join(lines), "best_trial": str(best.number)}
    tracking.log_tags(run, tags | {"best_run": best.run_id})


def is_complete_baseline(outcome: search.Outcome) -> bool:
    """Whether it is a complete trial of the parameters that the study began with."""
    return outcome.baseline and outcome.state == "complete"


def register_best(
    params: Params, store: tracking.Store, best: search.Outcome, score: float | None
) -> str:
    """Registers the model of the best trial; it becomes champion if it beats today's.

    On the same data and the same validation patients, by the score that `compare` chooses by. A
    champion of other data, another split or other classes stays: the scores cannot be compared.

    Args:
        params: All parameters.
        store: Of the runs.
        best: The trial.
        score: Of `validation_score`.

    Returns:
        One sentence on what was done.
    """
    name = params.compare.registered_model
    if score is None:
        return (
            f"the model of trial {best.number} is not in this MLflow store: it was trained on "
            "another machine. Run this command there, or let both use one MLflow server "
            "(MLFLOW_TRACKING_URI=http://…)"
        )
    model = tracking.model_of(store, best.run_id)
    trained = changed(params, best_values(params, best))
    label = f"trial {best.number}, {trained.architectures[0]}"
    reason = f"patient-mean foreground Dice on validation {score:.4f}, {label} of a study"
    origin = store.client.get_run(best.run_id).data.tags
    details: dict[str, Any] = {
        "name": name,
        "description": f"**{label}**, the best of a study: {reason}.\n\nResearch use only; not a "
        "clinical device. It knows the scanners and patients of its training data alone.",
        "reason": reason,
        "score": score,
    }
    before = tracking.champion(store, name)
    if before is None or before.run_id == best.run_id:
        made = tracking.register_champion(store, best.run_id, model, **details)
        return f"{name} version {made.version} is champion: {reason}"
    held = before.tags.get(tracking.SCORE_TAG)
    alike = all(before.tags.get(tag) == origin.get(tag) for tag in tracking.COMPARABLE)
    if alike and held is not None and score > float(held):
        made = tracking.register_champion(store, best.run_id, model, **details)
        return (
            f"{name} version {made.version} is champion: {reason}; version {before.version} had "
            f"{float(held):.4f}"
        )
    made = tracking.register_model(store, best.run_id, model, **details)
    why = (
        f"with {float(held):.4f} on the same validation patients"
        if alike and held is not None
        else "as it was made of other data, another split or other classes, so the two cannot be "
        "compared"
    )
    return (
        f"{name} version {made.version} is registered ({reason}); version {before.version} stays "
        f"champion, {why}"
    )


def best_values(params: Params, best: search.Outcome) -> dict[str, Any]:
    """The parameters of a trial: path -> value."""
    return search.parameters_of(space_of(params), best.point)


def validation_score(
    root: Path, params: Params, store: tracking.Store, best: search.Outcome
) -> float | None:
    """Patient-mean foreground Dice on validation at the size of the scans; kept in the run.

    Returns:
        In [0, 1]; -1 where no foreground could be scored; None where this store has no model of
        the trial.
    """
    try:
        model = tracking.model_of(store, best.run_id)
    except LookupError:
        return None
    held = store.client.get_run(best.run_id).data.metrics.get(SCORE)
    if held is not None:
        return float(held)
    from src.evaluation.overlap import MEAN_FOREGROUND
    from src.inference import Segmenter, load_segmenter
    from src.scoring import metrics_of
    from src.stages.evaluate import evaluate
    from src.stages.prepare import cases_with_sides

    cases = cases_with_sides(root / "prepared", params.split.fold[0])
    side = cases[cases["subset"] == "validation"]
    segmenter = load_segmenter(tracking.model_folder(model))
    assert isinstance(segmenter, Segmenter)  # a trial is of one fold
    with terminal.progress("scoring the validation patients", len(side)) as tick:
        scores = evaluate(root / "data", side, segmenter, params, tick).scores
    numbers = {f"validation_patients/{k}": v for k, v in metrics_of(scores.summary).items()}
    tracking.log_metrics(tracking.Run(store, best.run_id), numbers)
    score = scores.summary.to_dict()["dice"][MEAN_FOREGROUND]
    return -1.0 if score is None else float(score)
