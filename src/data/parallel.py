"""Many files at a time: work on all cores whose results come in order, and few of them in memory.

In threads, which start at once and share what they read, or in processes. Of small slices most time
goes to a hundred short calls each, of which Python lets one thread at a time make any; where there
are enough of them to pay for the start of processes (0.2 s of a core each), these are quicker.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from multiprocessing import connection, get_context, parent_process
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")

# Opens a progress bar for (label, number of steps) and gives the function that takes a step.
Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]

MANY = 2000  # files with their masks, from which on processes pay for their start

_AHEAD = 3  # pieces of work a thread that are begun or waiting: none idles, and memory stays flat
_BATCH = 32  # small files handed over at once: a hand-over costs as much as a few percent of one
_SHARES = 8  # pieces of work a thread, where there are few: the threads then end together
# glibc hands freed memory back to the system, whose pages are slow to take anew, until a block of
# this size was freed once; then it keeps as much as twice of it.
_KEPT_BYTES = 16 << 20


def no_progress(label: str, total: int) -> AbstractContextManager[Callable[[], None]]:
    """A progress bar that shows nothing."""
    return nullcontext(lambda: None)


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    *,
    processes: bool = False,
) -> Iterator[Result]:
    """Does `work` on each item in threads or processes.

    Args:
        work: Called in a worker; what it raises is raised here, and no further item is begun.
        items: Taken as they are needed.
        workers: Threads or processes, at least one.
        processes: Whether in processes; `work`, items and results can then be pickled, and `work`
            is pickled once for each process.

    Yields:
        The results in the order of the items. However slowly they are taken, only a few wait.

    Raises:
        ChildProcessError: The system ended a process.
    """
    waiting: deque[Future[Result]] = deque()
    number = max(workers, 1)
    with _pool(work, number, processes) as (pool, task):
        try:
            for item in items:
                with _starting() if processes else nullcontext():
                    waiting.append(pool.submit(task, item))
                if len(waiting) > _AHEAD * number:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a process that helped was ended by the system, most often because memory ran out. "
                "Close other programs, then give the same command again."
            ) from error
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _pool(
    work: Callable[[Item], Result], workers: int, processes: bool
) -> Iterator[tuple[Executor, Callable[[Item], Result]]]:
    """The workers, and what to call in them."""
    if not processes:
        keep_memory()
        with ThreadPoolExecutor(workers) as threads:
            yield threads, work
        return
    # Not forked: threads of this process, such as that of a progress bar, may hold locks.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (work,)) as pool:
        yield pool, _do


_work: Callable[[Any], Any]  # of a process that helps


def _begin(work: Callable[[Any], Any]) -> None:
    """Makes this process ready to help."""
    global _work
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where `_starting` could not keep it off
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)  # there are as many processes as cores
    keep_memory()
    _work = work


def _do(item: Any) -> Any:
    return _work(item)


def _end_with_parent() -> None:
    """A parent that is killed cannot tell its helpers, which would wait for work forever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _starting() -> Iterator[None]:
    """What a process that is started meanwhile inherits: no main program, and no Ctrl-C.

    It would first import the program that starts it, which it never calls. Ctrl-C reaches every
    process, but it is for the parent to end its helpers.
    """
    main, blocks = sys.modules["__main__"], hasattr(signal, "pthread_sigmask")
    sys.modules["__main__"] = ModuleType("__main__")
    if blocks:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if blocks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def keep_memory() -> None:
    """Makes the arrays of one slice take the memory of those before, in every thread."""
    np.empty(_KEPT_BYTES, np.uint8)  # never touched, so never taken; and freed at once


def batches(items: Sequence[Item], workers: int) -> Iterator[Sequence[Item]]:
    """Items in small runs for `in_order`; one at a time where there are few."""
    size = max(1, min(_BATCH, len(items) // (_SHARES * max(workers, 1))))
    for start in range(0, len(items), size):
        yield items[start : start + size]
