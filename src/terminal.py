"""How the commands speak: one message for a mistake, a progress bar for long work, an exit code.

Exit codes: 0 done, 1 a finding or a failure, 2 wrong use of the command, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import errno
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

INTERRUPTED = 128 + 2  # as shells have it: ended by signal 2

console = Console(highlight=False, soft_wrap=True)
_errors = Console(stderr=True, highlight=False, soft_wrap=True)


def run(command: Callable[..., None], *, to_go_on: str = "Give the same command to go on.") -> None:
    """Runs `command` as a program: its arguments from the command line, mistakes as messages.

    A `ValueError` or `OSError` is a user's mistake or a machine's limit: it ends in one message and
    exit code 1. Anything else is a defect of this program and keeps its traceback.

    Args:
        command: A function that typer can read (annotated arguments, a docstring for `--help`).
        to_go_on: What is to be done after Ctrl-C.
    """

    # Around the command: typer itself would end it without a word.
    @functools.wraps(command)
    def stoppable(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt:
            _errors.print(f"\nstopped. {to_go_on}")
            raise typer.Exit(INTERRUPTED) from None

    program = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    # Lines of a docstring are joined to paragraphs, which the terminal's width breaks anew.
    text = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.__doc__ or ""))
    program.command(help=text, context_settings={"help_option_names": ["-h", "--help"]})(stoppable)
    try:
        program()
    except (ValueError, OSError) as error:
        if os.environ.get("CT_SEGMENTATION_TRACEBACK"):
            raise
        fail(explain(error))


def fail(message: str) -> None:
    """Prints `message` as an error and leaves with exit code 1."""
    _errors.print(Text.assemble(("error: ", "bold red"), message))
    sys.exit(1)


def warn(message: str) -> None:
    """Prints `message` as a warning to standard error."""
    _errors.print(Text.assemble(("warning: ", "bold yellow"), message))


def explain(error: ValueError | OSError) -> str:
    """The message for a user: what was found, and the remedy where the system's words lack it."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    remedies = {
        errno.ENOSPC: "the disk is full. Free some space, then run the same command again; "
        "nothing half-written was kept.",
        errno.EFBIG: "the file would be larger than this system allows. Raise the limit "
        "(ulimit -f), then run the same command again; nothing half-written was kept.",
        errno.EDQUOT: "your disk quota is used up. Free some space, then run the same command "
        "again; nothing half-written was kept.",
        errno.EROFS: "the folder is read-only. Work in a folder that you may write to.",
        errno.EACCES: "permission denied. Give yourself the right to read and write there "
        "(ls -ld shows who may), then run the same command again.",
        errno.EPERM: "not permitted. Give yourself the right to read and write there "
        "(ls -ld shows who may), then run the same command again.",
        errno.ENOENT: "no such file or folder.",
    }
    return where + remedies.get(error.errno, error.strerror or str(error))


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A progress bar; at something that is no terminal it prints one line at the end.

    Args:
        label: What is being done.
        total: The number of steps, where known.

    Yields:
        A function to call after each step.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)
