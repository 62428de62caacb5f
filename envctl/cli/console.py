"""How progress looks: one line a step, live on a terminal, plain elsewhere.  Only answers go to standard output."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from envctl.report.words import inert

if TYPE_CHECKING:
    from rich.live import Live

NAME_WIDTH = 8
HEARTBEAT_S = 15.0  # in a log, silence longer than this looks like a hang
MARKS = {True: "✔", False: "✘", None: "·"}
COLOURS = {"✔": "32", "✘": "31"}


class Line:
    """One step under way.  `update` replaces its text; `note` adds a line below it that stays."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self.name = name
        self.text = ""
        self.begun = time.monotonic()
        self.ok: bool | None = None

    def update(self, text: str) -> None:
        """What the step is doing now."""
        self.text = text
        self._console.refresh(self)

    def note(self, text: str) -> None:
        """Something that happened during the step and stays on the screen."""
        self._console.above(text)

    def done(self, text: str, *, ok: bool | None = True) -> None:
        """The step's result; `ok` None for one that is neither good nor bad."""
        self.text = text
        self.ok = ok


class Console:
    """Writes progress to `stream`: a live line on a terminal, finished lines elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = self._terminal and "NO_COLOR" not in os.environ
        self._width = min(120, os.get_terminal_size(self._stream.fileno()).columns) if self._terminal else 110
        self._live: Live | None = None
        self._beat = time.monotonic()

    @contextmanager
    def step(self, name: str) -> Iterator[Line]:
        """A step from its begin to its end; an exception marks it as failed and goes on."""
        line = Line(self, name)
        with self._updating():
            try:
                yield line
            except BaseException:
                line.ok = False
                raise
            finally:
                if self._live is not None:
                    self._live.update("", refresh=True)
                self._write(self._render(line, final=True))

    @contextmanager
    def _updating(self) -> Iterator[None]:
        if not self._terminal:
            yield
            return
        from rich.console import Console as Terminal
        from rich.live import Live

        terminal = Terminal(file=self._stream, highlight=False, markup=False, no_color=not self._colour)
        with Live("", console=terminal, refresh_per_second=8, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def refresh(self, line: Line) -> None:
        """Shows a step's newest text: at once on a terminal, now and then in a log."""
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(self._render(line, final=False)))
        elif not self._terminal and time.monotonic() - self._beat > HEARTBEAT_S:
            self._write(self._render(line, final=False))

    def above(self, text: str) -> None:
        """A line that stays, above whatever is live."""
        self._write(inert(text))

    def _render(self, line: Line, *, final: bool) -> str:
        elapsed = f"{time.monotonic() - line.begun:.1f} s"
        mark = MARKS[line.ok] if final else "…"
        body = inert(f"{line.name:<{NAME_WIDTH}}{mark} {line.text}")
        room = self._width - len(elapsed) - 1
        return f"{body[:room]:<{room}} {elapsed}" if len(body) <= room or not final else f"{body}  {elapsed}"

    def _write(self, text: str) -> None:
        self._beat = time.monotonic()
        if self._colour:
            for mark, colour in COLOURS.items():
                text = text.replace(mark, f"\x1b[{colour}m{mark}\x1b[0m")
        if self._live is not None:
            from rich.text import Text

            self._live.console.print(Text.from_ansi(text), soft_wrap=True)
        else:
            with suppress(OSError):  # nobody reads any more; what is under way must still be finished, and taken down
                self._stream.write(text + "\n")
                self._stream.flush()
