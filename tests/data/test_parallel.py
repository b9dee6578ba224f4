import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.data.parallel import batches, in_order
from src.terminal import explain

ROOT = Path(__file__).resolve().parent.parent.parent


def test_results_come_in_the_order_of_the_items_whichever_is_done_first() -> None:
    second_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_is_done.wait(10)
        if item == 1:
            second_is_done.set()
        return item * item

    assert list(in_order(work, range(50), workers=2)) == [item * item for item in range(50)]


def test_few_items_are_taken_before_their_results_are_wanted() -> None:
    taken = 0

    def items():
        nonlocal taken
        for item in range(1000):
            taken += 1
            yield item

    results = in_order(str, items(), workers=2)
    assert [next(results) for _ in range(10)] == [str(item) for item in range(10)]
    assert taken < 20
    results.close()


def test_an_error_comes_out_and_ends_the_work() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("the fourth")
        return item

    with pytest.raises(ValueError, match="the fourth"):
        list(in_order(work, range(1000), workers=2))
    assert len(begun) < 20


def test_nothing_to_do_gives_nothing() -> None:
    assert list(in_order(str, [], workers=0)) == []


def test_batches_hold_every_item_once_and_one_each_where_there_are_few() -> None:
    assert [list(part) for part in batches(range(3), workers=2)] == [[0], [1], [2]]
    parts = [list(part) for part in batches(range(10_000), workers=2)]
    assert [item for part in parts for item in part] == list(range(10_000))
    assert max(map(len, parts)) == 32


def test_processes_give_the_results_in_order_too() -> None:
    found = in_order(math.sqrt, range(50), workers=2, processes=True)
    assert list(found) == [math.sqrt(item) for item in range(50)]


def test_an_error_in_a_process_comes_out_as_it_is() -> None:
    # os.stat names the file in what it raises; a user's message is made of both.
    with pytest.raises(FileNotFoundError) as caught:
        list(in_order(os.stat, [".", "not-there"], workers=1, processes=True))
    assert explain(caught.value) == "not-there: no such file or folder."


def test_a_process_that_the_system_ends_is_told_in_words() -> None:
    with pytest.raises(ChildProcessError, match="ended by the system"):
        list(in_order(os._exit, [1], workers=1, processes=True))


def test_processes_end_with_the_one_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from src.data.parallel import in_order\n"
        "from tests.data.test_parallel import tell_then_wait\n"
        "list(in_order(tell_then_wait, [sys.argv[1]], workers=1, processes=True))\n"
    )
    told = tmp_path / "process"
    with subprocess.Popen([sys.executable, "-c", code, str(told)], cwd=ROOT) as parent:
        process = int(eventually(lambda: told.is_file() and told.read_text()))
        parent.kill()
    assert eventually(lambda: not is_running(process))


@pytest.mark.parametrize("processes", [False, True])
def test_ctrl_c_ends_the_work_without_a_word_of_the_workers(tmp_path: Path, processes) -> None:
    code = (
        "import sys\n"
        "from src.data.parallel import in_order\n"
        "from tests.data.test_parallel import tell_then_rest\n"
        "try:\n"
        f"    list(in_order(tell_then_rest, [sys.argv[1]] * 9, workers=2, processes={processes}))\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped')\n"
    )
    told = tmp_path / "process"
    # As a terminal does it: the signal goes to the whole group.
    with subprocess.Popen(
        [sys.executable, "-c", code, str(told)], cwd=ROOT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as parent:  # fmt: skip
        assert eventually(told.is_file)
        os.killpg(parent.pid, signal.SIGINT)
        output, errors = parent.communicate(timeout=30)
    assert (output, errors) == ("stopped\n", "")


def tell_then_wait(path: str) -> None:
    whole = Path(path).with_suffix(".part")
    whole.write_text(str(os.getpid()))
    whole.rename(path)
    time.sleep(60)


def tell_then_rest(path: str) -> None:
    Path(path).touch()
    time.sleep(0.5)


def is_running(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.is_file() and status.read_text().split()[2] != "Z"


def eventually(look: Callable[[], Any], seconds: float = 30) -> Any:
    """What `look` gives as soon as it is true, or at the end of the time."""
    end = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.02)
    return found
