"""A study of tiny networks by the command itself, and what becomes of the champion."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from ruamel.yaml import YAML

from src import search, tracking, tuning
from src import tune as tune_command
from src.config import Params, load_params
from src.data.phantom import write_phantom
from src.stages.train import code_hash
from src.tune_trial import Task
from tests.conftest import Server
from tests.tiny_models import NATIVE, save_threshold_model

ROOT = Path(__file__).parent.parent
MODEL = "ct-segmentation"
TAGS = {
    "data_hash": "d" * 32, "split_hash": "5" * 32, "truth_hash": "f" * 6, "git_commit": "c" * 40,
    "git_dirty": "false",
}  # fmt: skip
SPACE = """
  space:
    train.learning_rate: {low: 1e-3, high: 3e-2, scale: log}
    train.model.depth: {low: 2, high: 3, scale: linear}
    architecture: {choices: [unet, attention_unet]}
    strength: {low: 0.0, high: 2.0, scale: linear, multiplies: [train.augmentation.noise]}
"""
OPEN = """
from pathlib import Path
from src import search, tune
from src.config import load_params
root = Path.cwd()
params = load_params(root / "params.yaml")
for study in [None, "named"]:
    setting = tune.setting_of(root, params, study=study, storage=None, resume=True)
    search.Search(setting).close()
    print(setting.name)
"""
STAGES = "from src.stages import audit, prepare, split; audit.main(); split.main(); prepare.main(0)"


def with_space(space: str, **train: Any) -> str:
    """params.yaml of the repository, its comments too, with a small training and another space."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for old, new in {
        "image_size: [128, 128]": "image_size: [32, 32]",
        "epochs: 20": "epochs: 2",
        "warmup_epochs: 2": "warmup_epochs: 0",
        "architectures: [unet, unetpp, attention_unet]": "architectures: [unet]",
        "    depth: 4 ": "    depth: 2 ",
        "    filters: 16 ": "    filters: 4 ",
        "precision: auto": "precision: float32",
        **train,
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    return text[: text.index("  # Any number or word of `train`")] + space.strip("\n") + "\n"


def parameters(folder: Path, space: str, **train: Any) -> Params:
    path = folder / "params.yaml"
    path.write_text(with_space(space, **train), encoding="utf-8")
    return load_params(path)


def environment(root: Path) -> dict[str, str]:
    """For a command in a folder, whose own databases it is to use."""
    unwanted = ("MLFLOW_TRACKING_URI", search.ENVIRONMENT)
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return kept | {"PYTHONPATH": str(root)}


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder; stdout holds all that it printed."""
    return subprocess.run(
        [sys.executable, *command], cwd=root, env=environment(root), text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def tune(root: Path, *arguments: str) -> str:
    """Runs the command; returns what it printed."""
    done = run(root, "-m", "src.tune", *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which a study of three trials ran, and what it said."""
    root = tmp_path_factory.mktemp("repository")
    (root / "src").symlink_to(ROOT / "src")
    write_phantom(root / "data", patients=6, seed=7)
    parameters(root, SPACE)
    done = run(root, "-c", STAGES)
    assert done.returncode == 0, done.stdout
    return root, tune(root, "--study", "first", "--trials", "3", "--workers", "2", "--apply")


@pytest.fixture
def project(finished: tuple[Path, str], tmp_path: Path) -> Path:
    """A folder with the data and parameters of `finished`, and without its studies and code."""
    for name in ("data", "prepared"):
        (tmp_path / name).symlink_to(finished[0] / name)
    parameters(tmp_path, SPACE)
    return tmp_path


@pytest.fixture(scope="module")
def store(finished: tuple[Path, str]) -> tracking.Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return tracking.open_store(finished[0])


@pytest.fixture(scope="module")
def outcomes(finished: tuple[Path, str]) -> tuple[search.Outcome, ...]:
    root = finished[0]
    optuna = search.storage.quiet_optuna()
    study = optuna.load_study(study_name="first", storage=search.default_address(root))
    return tuple(search.outcomes.outcome_of(trial, False) for trial in study.get_trials())


def runs(store: tracking.Store, stage: str) -> list[Any]:
    return list(store.client.search_runs([store.experiment_id], f"tags.stage = '{stage}'"))


def best_of(outcomes: tuple[search.Outcome, ...]) -> search.Outcome:
    best = search.Standing(outcomes, 3).best
    assert best is not None
    return best


def test_the_wanted_trials_ran_and_the_first_had_the_present_parameters(
    finished: tuple[Path, str], outcomes: tuple[search.Outcome, ...]
) -> None:
    assert len(outcomes) == 3
    assert {one.state for one in outcomes} <= {"complete", "pruned"}
    assert outcomes[0].state == "complete"
    assert outcomes[0].point == {
        "train.learning_rate": 0.002, "train.model.depth": 2, "architecture": "unet", "strength": 1,
    }  # fmt: skip
    assert (best_of(outcomes).value or 0) >= (outcomes[0].value or 1)
    assert "3 of 3 trials ended" in finished[1]


def test_there_is_a_run_for_the_study_and_one_below_it_for_each_trial(
    store: tracking.Store, outcomes: tuple[search.Outcome, ...]
) -> None:
    (parent,) = runs(store, "study")
    assert parent.info.run_name == "first"
    assert parent.info.status == "FINISHED"
    trials = {int(run.data.tags["optuna_trial"]): run for run in runs(store, "trial")}
    assert sorted(trials) == [0, 1, 2]
    for outcome in outcomes:
        run = trials[outcome.number]
        assert run.info.run_id == outcome.run_id  # each names the other
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["study"] == "first"
        assert run.data.tags["state"] == outcome.state
        assert run.data.params["train.model.depth"] == str(outcome.point["train.model.depth"])
        assert run.data.params["architecture"] == outcome.point["architecture"]
        noise = 0.05 * outcome.point["strength"]
        assert float(run.data.params["train.augmentation.noise"]) == pytest.approx(noise, rel=1e-3)
        curve = store.client.get_metric_history(run.info.run_id, "validation/mean_iou")
        assert [point.step for point in curve] == list(range(1, outcome.epoch + 1))


def test_the_value_of_a_trial_is_that_of_the_epoch_whose_weights_were_kept(
    store: tracking.Store, outcomes: tuple[search.Outcome, ...]
) -> None:
    run = store.client.get_run(outcomes[0].run_id)
    curve = store.client.get_metric_history(run.info.run_id, "validation/mean_iou")
    by_epoch = {point.step: point.value for point in curve}
    best = int(run.data.metrics["train_summary/best_epoch"])
    assert outcomes[0].value == pytest.approx(by_epoch[best])
    assert run.data.metrics["trial/validation_mean_iou"] == pytest.approx(by_epoch[best])


def test_the_run_of_the_study_holds_its_table_and_pictures(
    store: tracking.Store, outcomes: tuple[search.Outcome, ...]
) -> None:
    (parent,) = runs(store, "study")
    listed = store.client.list_artifacts(parent.info.run_id, "figures")
    assert {Path(item.path).stem for item in listed} == {
        "history", "importances", "parallel_coordinates", "slices",
    }  # fmt: skip
    path = store.client.download_artifacts(parent.info.run_id, "tables/trials.json")
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    table = pd.DataFrame(content["data"], columns=content["columns"])
    assert table["run_id"].tolist() == [one.run_id for one in outcomes]
    best = best_of(outcomes)
    assert parent.data.tags["best_run"] == best.run_id
    assert f"the best is trial {best.number}" in parent.data.tags["mlflow.note.content"]
    assert parent.data.params["tune.space.train.model.depth.high"] == "3"


def test_the_best_parameters_are_printed_written_and_applied_with_comments_kept(
    finished: tuple[Path, str], outcomes: tuple[search.Outcome, ...]
) -> None:
    root, said = finished
    text = (root / "params.yaml").read_text(encoding="utf-8")
    assert text == (root / "prepared" / "best_params.yaml").read_text(encoding="utf-8")
    best = best_of(outcomes)
    params = load_params(root / "params.yaml")
    assert params.train.model.depth == best.point["train.model.depth"]
    assert params.architectures == (best.point["architecture"],)
    rate = best.point["train.learning_rate"]
    assert params.train.learning_rate == pytest.approx(rate, rel=1e-3)
    before = with_space(SPACE).splitlines()
    changed = [(old, new) for old, new in zip(before, text.splitlines(), strict=True) if old != new]
    assert len(changed) == said.count(" -> ")
    for old, new in changed:
        assert old.partition("#")[2] == new.partition("#")[2]


def test_the_model_of_the_best_trial_is_the_champion_where_there_was_none(
    finished: tuple[Path, str], store: tracking.Store, outcomes: tuple[search.Outcome, ...]
) -> None:
    champion = tracking.champion(store, MODEL)
    assert champion is not None
    assert champion.run_id == best_of(outcomes).run_id
    assert "ct-segmentation version 1 is champion" in finished[1]


def test_a_study_touches_no_output_of_the_pipeline_and_leaves_no_checkpoint(
    finished: tuple[Path, str],
) -> None:
    root = finished[0]
    assert not (root / "models").exists()
    assert not (root / "reports" / "curves").exists()
    # It may be shared: nothing that params.yaml may hold, such as names, goes there.
    assert not list((root / "reports").rglob("*.yaml"))
    assert list((root / "checkpoints" / "studies" / "first").iterdir()) == []


# --- The champion ---------------------------------------------------------------------------------


OTHER_DATA, OTHER_SPLIT = TAGS | {"data_hash": "e" * 32}, TAGS | {"split_hash": "6" * 32}
OTHER_LABELS = TAGS | {"truth_hash": "0" * 6}


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[tracking.Store, str]]:
    """A store, and the run of a trial in it, with a model and a validation score of 0.6."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        root = tmp_path_factory.mktemp("champions")
        store = tracking.open_store(root)
        with tracking.start_run(store, "trial 3", parameters={}, tags=TAGS) as trial:
            tracking.log_model(trial, save_threshold_model(root / "model"), code=ROOT / "src")
            tracking.log_metrics(trial, {tuning.SCORE: 0.6})
        yield store, trial.run_id


@pytest.mark.parametrize(
    ("held", "tags", "champion", "words"),
    [
        (0.5, TAGS, 2, "version 2 is champion"),
        (0.9, TAGS, 1, "version 1 stays champion, with 0.9000 on the same validation patients"),
        (0.6, TAGS, 1, "version 1 stays champion, with 0.6000"),  # no better is not better
        (0.5, OTHER_DATA, 1, "so the two cannot be compared"),
        (0.5, OTHER_SPLIT, 1, "so the two cannot be compared"),
        (0.5, OTHER_LABELS, 1, "so the two cannot be compared"),
    ],
)
def test_the_best_trial_becomes_champion_only_if_it_beats_todays_on_the_same_patients(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    candidates: tuple[tracking.Store, str],
    held: float,
    tags: dict[str, str],
    champion: int,
    words: str,
) -> None:
    store, trial = candidates
    name = f"model-{abs(hash(request.node.name))}"  # a registry for each case
    here = {"registered_model: ct-segmentation": f"registered_model: {name}"}
    params = parameters(tmp_path, SPACE, **here)
    with tracking.start_run(store, "today's", parameters={}, tags=tags) as today:
        pass
    tracking.register_champion(
        store, today.run_id, tracking.model_of(store, trial),
        name=name, description="", reason="", score=held,
    )  # fmt: skip
    point = {"train.learning_rate": 0.01, "architecture": "unet"}
    best = search.Outcome(3, "complete", 0.5, 2, point, "", trial, 3, False, 1.0)
    score = tuning.validation_score(tmp_path, params, store, best)
    assert words in tuning.register_best(params, store, best, score)
    now = tracking.champion(store, name)
    assert now is not None
    assert now.version == champion
    assert len(store.client.search_model_versions(f"name = '{name}'")) == 2


@dataclass(frozen=True)
class Unscored:
    """A study of one trial, which is complete and not scored yet."""

    params: Params
    opened: search.Search
    store: tracking.Store
    best: search.Outcome


@pytest.fixture
def unscored(project: Path) -> Iterator[Unscored]:
    """A study in `project`; its model predicts background alone."""
    root, params = project, load_params(project / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        store = tracking.open_store(root)
        settings = replace(NATIVE, window_low=5000.0, window_high=6000.0)  # HU that no slice holds
        with tracking.start_run(store, "trial 0", parameters={}, tags=TAGS) as trial:
            tracking.log_model(trial, save_threshold_model(root / "m", settings), code=ROOT / "src")
        setting = search.Setting(
            "s", search.default_address(root), tuning.space_of(params), {}, 1, 2, "none", 0, 0, 1
        )
        opened = search.Search(setting)
        claimed = opened.claim()
        assert claimed is not None
        begun = opened.study.get_trials()[claimed.number]
        opened._storage.set_trial_user_attr(begun._trial_id, search.outcomes.RUN, trial.run_id)
        opened.study.tell(claimed.number, 0.0)
        best = opened.standing().best
        assert best is not None
        yield Unscored(params, opened, store, best)
        opened.close()


def test_the_validation_patients_are_scored_before_the_lock_of_the_study_is_taken(
    project: Path, unscored: Unscored
) -> None:
    store, run_id = unscored.store, unscored.best.run_id

    def is_scored() -> bool:
        return tuning.SCORE in store.client.get_run(run_id).data.metrics

    with tracking.start_run(store, "s", parameters={}, tags=TAGS) as run:
        ending = threading.Thread(
            target=tune_command.conclude,
            args=(project, unscored.params, unscored.opened, store, run),
            kwargs={"apply": False},
        )
        with unscored.opened.alone():  # as another worker that claims a trial
            ending.start()
            end = time.monotonic() + 60
            while not is_scored():
                assert time.monotonic() < end, "the score waits for the lock"
                time.sleep(0.05)
            assert tracking.champion(store, MODEL) is None
        ending.join(timeout=60)
    champion = tracking.champion(store, MODEL)
    assert champion is not None
    assert champion.run_id == run_id


def test_a_validation_dice_of_zero_is_zero(project: Path, unscored: Unscored) -> None:
    arguments = (project, unscored.params, unscored.store, unscored.best)
    assert tuning.validation_score(*arguments) == 0.0
    assert tuning.validation_score(*arguments) == 0.0  # as the run holds it


# --- What is said ---------------------------------------------------------------------------------


def outcome_of(number: int, state: str, value: float | None = None) -> search.Outcome:
    return search.Outcome(number, state, value, 3, {}, "", "", number, False, None)


def test_the_states_of_a_study_are_told_in_words() -> None:
    states = ["complete", "pruned", "failed", "killed", "interrupted", "running", "waiting"]
    outcomes = tuple(outcome_of(number, state) for number, state in enumerate(states))
    standing = search.Standing(outcomes, wanted=10)
    # What was killed runs again, so it has not ended.
    assert tune_command.states(standing) == (
        "3 of 10 trials ended (1 complete, 1 pruned, 1 failed, 1 killed, 1 interrupted, 1 running)"
    )
    assert standing.left == 7


@pytest.mark.parametrize(
    ("state", "epoch", "said"),
    [
        ("killed", 3, "it goes on from there"),
        ("killed", 0, "it runs again"),
        ("interrupted", 3, "the same command goes on from there"),
        ("interrupted", 0, "the same command runs it again"),
    ],
)
def test_how_a_trial_goes_on_is_told(state: str, epoch: int, said: str) -> None:
    assert tune_command.what_follows(replace(outcome_of(1, state), epoch=epoch)) == said


@pytest.mark.parametrize(
    ("epoch", "kept_epoch", "said"),
    [
        (5, 4, "goes on with trial 3, after epoch 4"),  # killed before it kept the state
        (0, 4, "goes on with trial 3, after epoch 4"),  # killed before it told of that of another
        (5, 0, "begins trial 3 again: its checkpoint is not on this machine"),
        (0, 0, "begins trial 3 again"),
    ],
)
def test_what_a_trial_goes_on_with_is_told(epoch: int, kept_epoch: int, said: str) -> None:
    before = replace(outcome_of(3, "killed"), epoch=epoch)
    assert tune_command.what_is_followed(before, kept_epoch) == said


def test_the_first_of_the_best_is_the_best() -> None:
    outcomes = [outcome_of(0, "complete", 0.4), outcome_of(1, "complete", 0.7)]
    outcomes += [outcome_of(2, "complete", 0.7), outcome_of(3, "pruned", 0.9)]
    best = search.Standing(tuple(outcomes), 4).best
    assert best is not None
    assert best.number == 1


def test_a_point_is_told_in_one_line() -> None:
    point = {"architecture": "unet", "train.learning_rate": 0.00123456, "train.model.depth": 3}
    said = "architecture unet, learning_rate 0.001235, depth 3"
    assert tune_command.described(point) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(42, "0:42 min"), (605, "10 min"), (2 * 3600 + 300, "2:05 h")]
)
def test_a_duration_is_told_in_the_unit_that_suits_it(seconds: float, said: str) -> None:
    assert tune_command.clock(seconds) == said


# --- What is searched -----------------------------------------------------------------------------


def test_a_range_with_an_impossible_end_is_refused(tmp_path: Path) -> None:
    space = "  space:\n    train.model.depth: {low: 2, high: 6, scale: linear}\n"
    with pytest.raises(ValueError, match=r"train\.model\.depth: 6 is impossible") as error:
        tuning.space_of(parameters(tmp_path, space))
    assert "prepare.image_size: must be divisible by 64" in str(error.value)


def test_a_factor_that_takes_a_parameter_too_far_is_refused(tmp_path: Path) -> None:
    space = (
        "  space:\n    s: {low: 0, high: 20, scale: linear, multiplies: [train.augmentation.scale]}"
    )
    with pytest.raises(ValueError, match=r"s: 20\.0 is impossible"):
        tuning.space_of(parameters(tmp_path, space))


def test_the_space_of_the_repository_can_be_searched() -> None:
    params = load_params(ROOT / "params.yaml")
    space = tuning.space_of(params)
    point = search.baseline(space)
    assert tuning.changed(params, search.parameters_of(space, point)).train.model == (
        params.train.model
    )
    assert tuning.differences(params, space, point) == {}


def test_facts_are_what_the_search_leaves_alone(tmp_path: Path) -> None:
    params = parameters(tmp_path, SPACE)
    facts = tuning.facts_of(params, tuning.space_of(params), TAGS)
    assert facts["data_hash"] == TAGS["data_hash"]
    assert facts["train.epochs"] == "2"
    # Twice as strong is twice of what params.yaml has now.
    assert facts["train.augmentation.noise"] == "0.05"
    assert not {"train.learning_rate", "train.model.depth", "architecture"} & set(facts)
    other = parameters(tmp_path, SPACE, **{"learning_rate: 2e-3": "learning_rate: 3e-3"})
    assert tuning.facts_of(other, tuning.space_of(other), TAGS) == facts


def test_a_study_is_not_gone_on_with_by_other_code_that_trains(project: Path) -> None:
    source = shutil.copytree(ROOT / "src", project / "src")
    first = run(project, "-c", OPEN)
    assert first.returncode == 0, first.stdout
    (source / "ui.py").write_text("# trains nothing\n", encoding="utf-8")
    assert run(project, "-c", OPEN).stdout == first.stdout
    with (source / "models" / "unet.py").open("a", encoding="utf-8") as stream:
        stream.write("# changed\n")
    refused = run(project, "-m", "src.tune", "--study", "named")
    assert refused.returncode == 1
    assert "error: the study named was made with other data, parameters or code" in refused.stdout
    assert re.search(r"what changed:\n  code_hash: \w{6} -> \w{6}\n$", refused.stdout)
    other = run(
        project, "-c", OPEN.replace(', "named"', "")
    )  # under the name that it gets by itself
    assert other.returncode == 0, other.stdout
    assert other.stdout not in first.stdout


def test_code_that_changes_while_a_study_runs_stops_it_before_the_next_trial(
    project: Path,
) -> None:
    source = shutil.copytree(ROOT / "src", project / "src")
    process = started(project, "--study", "s", "--trials", "2", "--workers", "1")
    folder = project / "checkpoints" / "studies" / "s" / "trial-0"
    wait_for(folder / "checkpoint" / "unet" / "fold0" / "state.npz", process)
    with (source / "models" / "unet.py").open("a", encoding="utf-8") as stream:
        stream.write("# changed\n")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert "trial   0  complete" in said  # it had the code of the study
    assert "trial   1  interrupted after epoch 0" in said
    error = said.splitlines()[-1]
    message = (
        r"error: the code that trains was changed while s ran \(code_hash \w{6} -> \w{6}\), so "
    )
    assert re.match(message, error)
    assert "Put back what changed, and the same command goes on" in error


def test_the_process_of_a_trial_looks_at_the_code_that_it_has_loaded(tmp_path: Path) -> None:
    Task("s", 7, "none", 2, 0, "r", code_hash="3f9c1e").save(tmp_path)
    done = run(ROOT, "-m", "src.tune_trial", str(tmp_path))
    assert done.returncode == search.trial.HALTED
    said = done.stdout.splitlines()[-1]
    assert said.startswith("error: the code that trains was changed while s ran")


def started(root: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command, still at work, with this code; a signal stops it as at a terminal."""
    if not (root / "src").exists():
        (root / "src").symlink_to(ROOT / "src")
    code = (
        "import runpy, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # it is off in the background
        f"sys.argv = {['tune', *arguments]}\n"
        "runpy.run_module('src.tune', run_name='__main__')\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, env=environment(root), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until a file is there, which the command or its trial makes."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_ends_the_command_as_terminals_have_it_and_says_how_to_go_on(project: Path) -> None:
    process = started(project, "--study", "s", "--workers", "1")
    wait_for(project / "checkpoints" / "studies" / "s" / "trial-0" / "trial.json", process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "The same command goes on from there." in said.splitlines()[-1]


def test_a_trial_that_goes_on_with_a_killed_one_says_with_which_and_from_where(
    project: Path,
) -> None:
    parameters(project, SPACE, **{"epochs: 20": "epochs: 500"})
    process = started(project, "--study", "s", "--trials", "1")
    folder = project / "checkpoints" / "studies" / "s" / "trial-0"
    wait_for(folder / "checkpoint" / "unet" / "fold0" / "state.npz", process)
    (trial,) = psutil.Process(process.pid).children()
    trial.kill()
    assert process.stdout is not None
    lines = []
    while not lines or "goes on with" not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], lines
    log = (folder / "log.txt").read_text(encoding="utf-8")
    while "going on after epoch" not in log:  # as the training itself says
        assert process.poll() is None
        time.sleep(0.1)
        log = (folder / "log.txt").read_text(encoding="utf-8")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    kept = re.findall(r"going on after epoch (\d+) of an unfinished run", log)
    assert re.search(r"trial   0  killed +after epoch \d+ .* it goes on from there", lines[-2])
    assert lines[-1] == f"trial   1  goes on with trial 0, after epoch {kept[0]}\n"


def test_a_study_whose_database_is_lost_says_so_in_one_line_and_goes_on_when_it_is_back(
    project: Path, own_server: Server
) -> None:
    changes = {"epochs: 20": "epochs: 60", "heartbeat_seconds: 30": "heartbeat_seconds: 1"}
    parameters(project, SPACE, **changes)
    storage = own_server.address.replace("tester@", "tester:secret@")
    arguments = ("--study", "s", "--trials", "1", "--storage", storage)
    process = started(project, *arguments)
    folder = project / "checkpoints" / "studies" / "s" / "trial-0"
    wait_for(folder / "checkpoint" / "unet" / "fold0" / "state.npz", process)
    own_server.stop()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1, said
    shown = storage.replace("secret", "***").replace("postgresql", "postgresql+psycopg")
    (line,) = (line for line in said.splitlines() if "error" in line)
    assert line.startswith(f"error: {shown} cannot be reached: ")
    assert line.endswith(search.GO_ON)
    assert "Traceback" not in said
    assert "secret" not in said

    own_server.start()
    said = tune(project, *arguments)
    assert re.search(r"trial   1  goes on with trial 0, after epoch \d+\n", said)
    assert "1 of 1 trials ended (1 complete, 1 killed)" in said


def test_a_trial_has_the_searched_parameters_and_the_present_rest(tmp_path: Path) -> None:
    params = parameters(tmp_path, SPACE)
    space = tuning.space_of(params)
    facts = {"code_hash": code_hash(ROOT / "src")}
    setting = search.Setting("s", "sqlite:///x.db", space, facts, 1, 2, "none", 0, 0, 1)
    store = tracking.Store(tmp_path, "sqlite:///none.db", "0")
    point = {"train.learning_rate": 0.01, "architecture": "attention_unet", "strength": 2.0}
    outcome = search.Outcome(7, "running", None, 0, point, "", "", 4, False, None)
    start = tuning.starter(tmp_path, params, setting, tracking.Run(store, "r"), 1)(outcome)
    folder = tmp_path / "checkpoints" / "studies" / "s" / "trial-4"  # where trial 4 was killed
    assert start.command[-1] == str(folder)
    found = load_params(folder / "params.yaml")
    assert found.architectures == ("attention_unet",)
    assert found.train.learning_rate == 0.01
    assert found.train.augmentation.noise == 0.1
    assert found.train.model == params.train.model
    task = json.loads((folder / "trial.json").read_text())
    assert (task["number"], task["code_hash"]) == (7, facts["code_hash"])


def test_stale_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"prepared/ is missing.*dvc repro prepare"):
        tuning.check_prepared(tmp_path)


def test_the_dump_of_parameters_is_yaml_that_reads_the_same(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    path = tmp_path / "params.yaml"
    with path.open("w", encoding="utf-8") as stream:
        YAML(typ="safe", pure=True).dump(params.model_dump(), stream)
    assert load_params(path) == params
