"""A worker: claims trials and runs each in a process of its own.

Of its own, because Keras keeps some memory of every network that was built, and because a process
that the system kills must take nothing else with it.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from src.search.outcomes import Outcome
from src.search.study import Search
from src.search.trial import HALT_MARK, HALTED

TICK_SECONDS = 0.2
LOOK_SECONDS = 3.0  # between two looks for a trial to take, while others run
HOPELESS = 3  # so many failed trials, and not one that ended well
KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


@dataclass(frozen=True)
class Start:
    """How the process of a trial is started.

    Attributes:
        command: The command line.
        log: Takes what it prints.
        environment: All of its variables.
    """

    command: Sequence[str]
    log: Path
    environment: dict[str, str]


@dataclass
class _Running:
    outcome: Outcome
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    start: Start
    out_of_memory: int


class Worker:
    """Runs trials of a search until there are no more, so many at a time."""

    def __init__(
        self,
        search: Search,
        start: Callable[[Outcome], Start],
        *,
        processes: int,
        deadline: float | None = None,
        on_end: Callable[[Outcome], None] = lambda _: None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Makes a worker.

        Args:
            search: The study.
            start: A claimed trial -> how it is started.
            processes: How many trials at a time.
            deadline: By `time.monotonic()`; after it no further trial is started.
            on_end: Called for each trial that ended here.
            on_tick: Called a few times a second.
        """
        self._search, self._start = search, start
        self._processes, self._deadline = processes, deadline
        self._on_end, self._on_tick = on_end, on_tick
        self._running: list[_Running] = []
        self._failed, self._good = 0, 0

    def run(self) -> None:
        """Works until every wanted trial came to an end on all machines, or the time is up.

        Ctrl-C, or SIGTERM, stops the trials that run here and puts them back in line.

        Raises:
            KeyboardInterrupt: It was stopped.
            ValueError: Trial after trial fails, or one says that the study has to stop; the
                message says why.
            ConnectionError: The database server of the study is gone.
        """
        before = signal.signal(signal.SIGTERM, _interrupt)
        beat = look = 0.0
        try:
            while True:
                now = time.monotonic()
                if now - beat >= self._search.setting.heartbeat_seconds:
                    # First of all: after the sleep of a laptop these are alive, not lost.
                    self._search.give_signs_of_life()
                    beat = now
                if self._reap():
                    look = 0.0
                is_late = self._deadline is not None and now >= self._deadline
                if now - look >= LOOK_SECONDS and not is_late:
                    self._fill()
                    if not self._running and self._search.is_over:
                        return
                    look = now
                if is_late and not self._running:
                    return
                self._on_tick()
                time.sleep(TICK_SECONDS)
        finally:
            self._stop()
            signal.signal(signal.SIGTERM, before)

    def _fill(self) -> None:
        while len(self._running) < self._processes:
            outcome = self._search.claim()
            if outcome is None:
                return
            try:
                start = self._start(outcome)
            except BaseException:
                self._put_back([outcome.number])
                raise
            start.log.parent.mkdir(parents=True, exist_ok=True)
            log = start.log.open("ab")
            process = subprocess.Popen(
                start.command,
                env=start.environment,
                stdin=subprocess.PIPE,  # its end tells the process that this one is gone
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process; it stops the others
            )
            self._running.append(_Running(outcome, process, log, start, _times_out_of_memory()))

    def _reap(self) -> bool:
        """Takes note of processes that ended; whether there were any."""
        ended = [one for one in self._running if one.process.poll() is not None]
        for one in ended:
            if one.process.returncode == HALTED:
                raise ValueError(_last_halt(one.start.log))
        for one in ended:
            self._running.remove(one)
            self._close(one)
            outcome = self._search.fail(one.outcome.number, self._reason(one))
            self._on_end(outcome)
            self._failed += outcome.state == "failed"
            self._good += outcome.state in ("complete", "pruned")
            if self._failed >= HOPELESS and not self._good:
                raise ValueError(
                    f"{self._failed} trials failed and none ended well, the last one because: "
                    f"{outcome.reason}. What it said: {one.start.log}"
                )
        return bool(ended)

    def _reason(self, one: _Running) -> str | None:
        """Why a process ended that told no end; None where it was killed and is to run again."""
        code = one.process.returncode
        if code < 0 and -code in KILLS:
            if -code == signal.SIGKILL and _times_out_of_memory() > one.out_of_memory:
                return "out of memory"
            return None
        said = one.start.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = said[-1] if said else "it said nothing"
        if code < 0:
            last = "out of memory" if "bad_alloc" in "".join(said[-3:]) else last
            return f"its process crashed ({signal.Signals(-code).name}): {last}"[:500]
        return f"its process ended with exit code {code}: {last}"[:500]

    def _stop(self) -> None:
        if not self._running:
            return
        for one in self._running:
            one.process.terminate()
        for one in self._running:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(timeout=5)
            one.process.kill()
            one.process.wait()
            self._close(one)
        numbers = [one.outcome.number for one in self._running]
        self._running.clear()
        self._put_back(numbers)

    def _put_back(self, numbers: list[int]) -> None:
        for outcome in self._search.interrupt(numbers).values():
            self._on_end(outcome)

    @staticmethod
    def _close(one: _Running) -> None:
        if one.process.stdin is not None:
            one.process.stdin.close()
        one.log.close()


def _last_halt(log: Path) -> str:
    """Why a trial had the study stop, which its process has just said."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.removeprefix(HALT_MARK) for line in lines if line.startswith(HALT_MARK)]
    return said[-1]


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _times_out_of_memory() -> int:
    """How often the kernel has killed a process for memory; 0 where it does not say."""
    times = 0
    for path in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with suppress(OSError, ValueError):
            for line in Path(path).read_text(encoding="ascii").splitlines():
                if line.startswith("oom_kill "):
                    times += int(line.split()[1])
    return times
