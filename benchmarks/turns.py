"""Programs that are timed in turn: each in a process of its own, waiting while another runs.

A program says when it is ready, then does as many steps as it is told, again and again, and tells
how long they took; lines of JSON over its standard input and output. The standard library alone is
imported, for the peers read this file in environments of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

LAST_WORDS = 15  # lines of a failed program's log that are shown


class Turns:
    """The program's end of the line."""

    def __init__(self) -> None:
        # What a library prints goes to the log and not between the lines.
        self._lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def ready(self, **told: Any) -> None:
        """Everything is built and warm; `told` says what was built."""
        self._say(told)

    def next(self) -> int:
        """Waits for its turn: the number of steps to do, 0 for no more."""
        line = sys.stdin.readline()
        return int(line) if line.strip() else 0

    def took(self, seconds: float) -> None:
        """The steps of this turn are done."""
        self._say({"seconds": seconds})

    def serve(self, run: Callable[[int], float], **told: Any) -> None:
        """All of the above: `run` does so many steps and returns the seconds that they took."""
        self.ready(**told)
        while steps := self.next():
            self.took(run(steps))

    def _say(self, content: Mapping[str, Any]) -> None:
        self._lines.write(json.dumps(content) + "\n")
        self._lines.flush()


class Program:
    """The other end: a program that was started, is ready, and does steps when it is asked.

    Attributes:
        told: What it said of itself when it was ready.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        """Starts a program and waits until it is ready.

        Args:
            name: Of the program, for messages.
            command: What to run.
            environment: Of its process.
            log: Takes what it prints.

        Raises:
            ValueError: It ended before it was ready; the message holds its last words.
        """
        self._name, self._log = name, log
        with log.open("w", encoding="utf-8") as stream:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=stream, text=True, encoding="utf-8",
            )  # fmt: skip
        self.told = self._answer()

    def seconds(self, steps: int) -> float:
        """How long so many steps took, by the program's own clock."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return float(self._answer()["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            words = self._log.read_text(encoding="utf-8").splitlines()[-LAST_WORDS:]
            raise ValueError(f"{self._name} failed. Its last words:\n" + "\n".join(words))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.stdin:
            self._process.stdin.close()  # the end of its turns
        if kind is not None:
            self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
