"""Many files at a time: work on all cores whose results come in order, and few of them in memory.

In threads: decoding, hashing and arithmetic let other threads run meanwhile, and a thread starts at
once and shares what it read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")

# Opens a progress bar for (label, number of steps) and gives the function that takes a step.
Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]

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
    on_end: Callable[[], None] = lambda: None,
) -> Generator[Result, None, None]:
    """Does `work` on each item in threads.

    Args:
        work: Called in a thread; what it raises is raised here, and no further item is begun.
        items: Taken as they are needed.
        workers: Threads, at least one.
        on_end: Called once nothing more is wanted, also where this is closed early; it may tell
            long work that is under way, which is then waited for.

    Yields:
        The results in the order of the items. However slowly they are taken, only a few wait.
    """
    keep_memory()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > _AHEAD * max(workers, 1):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            on_end()
            for future in waiting:
                future.cancel()


def keep_memory() -> None:
    """Makes the arrays of one slice take the memory of those before, in every thread."""
    np.empty(_KEPT_BYTES, np.uint8)  # never touched, so never taken; and freed at once


def batches(items: Sequence[Item], workers: int) -> Iterator[Sequence[Item]]:
    """Items in small runs for `in_order`; one at a time where there are few."""
    size = max(1, min(_BATCH, len(items) // (_SHARES * max(workers, 1))))
    for start in range(0, len(items), size):
        yield items[start : start + size]
