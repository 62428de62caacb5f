"""Reads the log of a node or helper, which is moved to `.1` and emptied when it is full."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

POLL_S = 0.2


def lines_of(log: Path, *, tail: int | None, there: Callable[[], bool] | None) -> Iterator[str]:
    """Its lines, or the last `tail` of them; goes on as it grows for as long as `there` says that the environment is."""
    growth = _Growth(log)
    lines = [*_lines(log.with_suffix(".log.1")), *growth.new_lines()]
    if there is None and growth.rest:
        lines.append(growth.rest)
    yield from lines if tail is None else lines[max(0, len(lines) - tail):]
    while there:
        alive = there()
        yield from growth.new_lines()
        if not alive:
            return
        time.sleep(POLL_S)


def _lines(path: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return path.read_text(errors="replace").splitlines()
    return []


class _Growth:
    """What is in a file and is added to it, also over its replacement by a new one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = None
        self.rest = ""  # of a line that has not ended yet
        with suppress(FileNotFoundError):
            self._file = path.open(errors="replace")

    def new_lines(self) -> list[str]:
        """Whole lines that were added since the last call."""
        text = self.rest + (self._file.read() if self._file else "")
        if self._replaced():
            self._file = self._path.open(errors="replace")
            text += self._file.read()
        elif self._file and self._file.tell() > os.fstat(self._file.fileno()).st_size:
            self._file.seek(0)  # truncated
        *lines, self.rest = text.split("\n")
        return lines

    def _replaced(self) -> bool:
        try:
            now = self._path.stat().st_ino
        except FileNotFoundError:
            return False
        return self._file is None or os.fstat(self._file.fileno()).st_ino != now
