"""Real studies, databases and processes; the trials take no time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from src.search import ENVIRONMENT, GO_ON, Outcome, Search, Start, Worker, storage_address
from src.search.storage import alone, used_on_purpose
from tests.search.tiny_trial import value_of
from tests.search.tiny_worker import HERE, setting, work


def worker(
    address: str, study: str, trials: int, behaviour: str, folder: Path
) -> subprocess.Popen[str]:
    """A worker in a process of its own, as on another machine."""
    command = [sys.executable, "-m", "tests.search.tiny_worker", study, str(trials), behaviour]
    environment = os.environ | {ENVIRONMENT: address, "PYTHONPATH": str(HERE.parents[1])}
    return subprocess.Popen(
        [*command, str(folder)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


# --- One worker -----------------------------------------------------------------------------------


def test_a_study_has_the_wanted_trials_and_is_not_worse_than_it_began(
    address: str, tmp_path: Path
) -> None:
    opened = Search(setting(address, "s", 4))
    work(opened, tmp_path, "fine")
    standing = opened.standing()
    assert standing.states == {"complete": 4}
    assert standing.outcomes[0].baseline
    assert standing.outcomes[0].point == {"x": 0.9, "depth": 4, "loss": "dice"}
    assert standing.best is not None
    assert standing.best.value is not None
    assert standing.best.value >= value_of(0.9)
    assert [one.run_id for one in standing.outcomes] == [f"run {n}" for n in range(4)]
    assert [one.epoch for one in standing.outcomes] == [4] * 4


def run_here(opened: Search) -> None:
    """Runs the trials of a study without a process for each."""
    while (outcome := opened.claim()) is not None:
        opened.study.tell(outcome.number, value_of(outcome.point["x"]))


def test_a_finished_study_goes_on_where_more_trials_are_wanted(
    address: str, tmp_path: Path
) -> None:
    work(Search(setting(address, "s", 2)), tmp_path, "fine")
    again = Search(setting(address, "s", 2))
    assert work(again, tmp_path, "fine") == []
    more = Search(setting(address, "s", 3))
    assert [one.number for one in work(more, tmp_path, "fine")] == [2]
    assert more.standing().states == {"complete": 3}


def test_a_trial_whose_process_is_killed_runs_again_with_the_same_parameters(
    address: str, tmp_path: Path
) -> None:
    opened = Search(setting(address, "s", 3))
    work(opened, tmp_path, "killed once")
    standing = opened.standing()
    assert standing.states == {"complete": 3, "killed": 1}
    killed = standing.outcomes[1]
    assert killed.state == "killed"
    (follower,) = (one for one in standing.outcomes if one.first == 1 and one.number != 1)
    assert follower.point == killed.point
    assert follower.state == "complete"


def test_a_trial_that_runs_out_of_memory_fails_alone(address: str, tmp_path: Path) -> None:
    opened = Search(setting(address, "s", 3))
    work(opened, tmp_path, "out of memory")
    standing = opened.standing()
    assert standing.states == {"complete": 2, "failed": 1}
    assert standing.outcomes[1].reason == "out of memory"


def test_a_trial_that_is_killed_again_and_again_is_given_up(address: str, tmp_path: Path) -> None:
    opened = Search(setting(address, "s", 1, retries=1))
    work(opened, tmp_path, "killed always", processes=1)
    standing = opened.standing()
    assert standing.states == {"killed": 1, "failed": 1}
    assert standing.outcomes[1].reason == "its process was killed 2 times"


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("wrong", "depth 9 is too deep"),
        ("crash", r"its process crashed \(SIGABRT\): the disc is on fire"),
    ],
)
def test_a_study_in_which_every_trial_fails_stops_and_says_why(
    address: str, tmp_path: Path, behaviour: str, reason: str
) -> None:
    opened = Search(setting(address, "s", 30))
    with pytest.raises(ValueError, match=f"3 trials failed and none ended well.*{reason}"):
        work(opened, tmp_path, behaviour, processes=3)
    assert opened.standing().states["running"] == 0


def test_a_trial_that_loses_a_server_stops_the_study_and_is_put_back_in_line(
    address: str, tmp_path: Path
) -> None:
    opened = Search(setting(address, "s", 3, retries=0))  # it is no kill
    with pytest.raises(ValueError, match=f"http://host:5000 cannot be reached {GO_ON}"):
        work(opened, tmp_path, "a server is gone", processes=1)
    assert opened.standing().states == {"complete": 1, "interrupted": 1, "waiting": 1}
    work(opened, tmp_path, "fine")
    assert opened.standing().states == {"complete": 3, "interrupted": 1}


def test_a_trial_that_cannot_be_started_is_put_back_in_line(address: str) -> None:
    opened = Search(setting(address, "s", 3, retries=0))
    told = []

    def start(_: Outcome) -> Start:
        raise ValueError("the code was changed")

    with pytest.raises(ValueError, match="the code was changed"):
        Worker(opened, start, processes=2, on_end=told.append).run()
    assert opened.standing().states == {"interrupted": 1, "waiting": 1}
    assert [one.state for one in told] == ["interrupted"]


def test_poor_trials_are_pruned_and_the_baseline_is_not(address: str, tmp_path: Path) -> None:
    # x = 0.3 is the best that there is: of what follows, whatever is below the median is pruned.
    opened = Search(setting(address, "s", 8, pruner="median"))
    work(opened, tmp_path, "prune")
    standing = opened.standing()
    assert standing.ended == 8
    assert standing.states["pruned"] >= 1
    assert standing.outcomes[0].state == "complete"
    pruned = [one for one in standing.outcomes if one.state == "pruned"]
    assert all(1 <= one.epoch <= 4 for one in pruned)


def test_no_trial_is_started_after_the_time_is_up(address: str, tmp_path: Path) -> None:
    opened = Search(setting(address, "s", 50))
    assert work(opened, tmp_path, "fine", deadline=time.monotonic() - 1) == []
    assert opened.standing().states == {"waiting": 1}


def test_ctrl_c_leaves_a_study_that_goes_on(address: str, tmp_path: Path) -> None:
    process = worker(address, "s", 2, "slow", tmp_path)
    wait_for(lambda: len(list(tmp_path.glob("started *"))) == 2)
    pids = [int(path.read_text()) for path in tmp_path.glob("started *")]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert not any(is_alive(pid) for pid in pids)
    opened = Search(setting(address, "s", 2, retries=0))  # an interruption is no kill
    assert opened.standing().states == {"interrupted": 2, "waiting": 2}
    work(opened, tmp_path, "fine")
    standing = opened.standing()
    assert standing.states == {"interrupted": 2, "complete": 2}
    assert sorted(one.first for one in standing.outcomes if one.state == "complete") == [0, 1]


# --- Several workers ------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["sqlite", "postgresql"])
def test_two_workers_one_of_them_killed_complete_exactly_the_wanted_trials(
    server: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    given = request.getfixturevalue("postgresql") if server == "postgresql" else None
    address = storage_address(given, tmp_path, taken=[])
    wanted, study = 6, f"two workers {server}"
    doomed = worker(address, study, wanted, "slow", tmp_path / "doomed")
    # Half way: it has taken two trials, which its sister cannot see the end of.
    wait_for(lambda: len(list((tmp_path / "doomed").glob("started *"))) == 2)
    pids = [int(path.read_text()) for path in (tmp_path / "doomed").glob("started *")]
    other = worker(address, study, wanted, "fine", tmp_path / "other")
    wait_for(lambda: len(list((tmp_path / "other").glob("started *"))) >= 2)
    doomed.kill()  # -9: nothing of it can tell the study
    doomed.communicate()
    said, _ = other.communicate(timeout=120)
    assert other.returncode == 0, said
    wait_for(lambda: not any(is_alive(pid) for pid in pids))  # its trials ended with it

    opened = Search(setting(address, study, wanted))
    standing = opened.standing()
    assert standing.states == {"complete": wanted, "killed": 2}
    complete = [one for one in standing.outcomes if one.state == "complete"]
    # None is lost, none is double: each that was begun is complete once, some by a follower.
    begun = [one.number for one in standing.outcomes if one.first == one.number]
    assert len(begun) == wanted
    assert Counter(one.first for one in complete) == Counter(begun)
    for one in complete:
        assert one.point == standing.outcomes[one.first].point
        assert one.value == pytest.approx(value_of(one.point["x"]))
    drawn = [one.point["x"] for one in complete]
    assert len(set(drawn)) == wanted
    assert standing.left == 0
    assert work(opened, tmp_path / "again", "fine") == []
    opened.close()


@pytest.mark.parametrize("server", ["sqlite", "postgresql"])
def test_a_trial_that_runs_while_its_worker_waits_for_the_lock_is_not_lost(
    server: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    given = request.getfixturevalue("postgresql") if server == "postgresql" else None
    address = storage_address(given, tmp_path, taken=[])
    study = f"waiting {server}"
    process = worker(address, study, 2, "told when to end", tmp_path)
    wait_for(lambda: len(list(tmp_path.glob("started *"))) == 2)
    pid = int((tmp_path / "started 1").read_text())
    with alone(address):
        (tmp_path / "end 1").touch()
        wait_for(lambda: not is_alive(pid))  # its worker cannot note the end
        time.sleep(6)  # a sign of life lasts 4 s
    time.sleep(2)  # for the worker to look after all trials
    for number in (0, 2):  # 2 would follow a trial that was taken for dead
        (tmp_path / f"end {number}").touch()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    opened = Search(setting(address, study, 2))
    assert opened.standing().states == {"complete": 2}
    opened.close()


# --- What a study is ------------------------------------------------------------------------------


def test_a_study_of_other_data_is_refused_by_name(address: str) -> None:
    Search(setting(address, "s", 1))
    with pytest.raises(ValueError, match="s was made with other data, parameters or code") as error:
        Search(setting(address, "s", 1, facts={"data_hash": "e", "epochs": "3"}))
    assert "  data_hash: d -> e" in str(error.value)
    assert "  epochs: none -> 3" in str(error.value)


def test_a_study_that_is_there_is_refused_where_it_is_not_to_be_resumed(address: str) -> None:
    Search(setting(address, "s", 1, resume=False))
    with pytest.raises(ValueError, match="there is a study s already"):
        Search(setting(address, "s", 1, resume=False))


def test_the_search_depends_on_its_seed_and_not_on_interruptions(
    tmp_path: Path,
) -> None:
    points = []
    for name, parts in (("a", [14]), ("b", [5, 12, 14])):  # from the 11th on it is no chance
        address = storage_address(f"sqlite:///{name}.db", tmp_path, taken=[])
        for trials in parts:
            opened = Search(setting(address, "s", trials))
            run_here(opened)
        points.append([one.point for one in opened.standing().outcomes])
    assert points[0] == points[1]


def test_a_trial_claimed_by_a_process_that_died_at_once_is_not_lost(address: str) -> None:
    opened = Search(setting(address, "s", 1))
    with used_on_purpose():
        opened.study.ask()  # as `claim` does, and is then killed before the first sign of life
    assert opened.standing().states == {"running": 1}
    again = Search(setting(address, "s", 1)).claim()
    assert again is not None
    assert (again.number, again.first) == (1, 0)
    assert again.point == {"x": 0.9, "depth": 4, "loss": "dice"}
    assert again.baseline


def test_importances_name_the_dimension_that_matters(address: str) -> None:
    few = Search(setting(address, "s", 3))
    run_here(few)
    assert few.importances() == {}
    opened = Search(setting(address, "s", 30))
    run_here(opened)
    found = opened.importances()
    assert max(found, key=found.__getitem__) == "x"
    assert sum(found.values()) == pytest.approx(1)
