"""`envctl setup`: gets the tools that are missing into the user's cache."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from envctl.errors import UsageError

if TYPE_CHECKING:
    from envctl.toolchain.client import Progress

_EVERY_S = 10.0  # between two plain lines of one tool


@click.command
@click.argument("tools", nargs=-1, metavar="[TOOL[@VERSION]]...")
def setup(tools: tuple[str, ...]) -> None:
    """Get the tools that are missing into the cache: all of them, or those that are named (such as postgres@15).

    Nothing is installed on the machine, nothing needs root, and doing it again costs nothing.
    """
    from envctl.plugins import nearest
    from envctl.toolchain import ensure
    from envctl.toolchain.lookup import PROGRAMS

    wanted = tools or tuple(PROGRAMS)
    for name in (wish.partition("@")[0] for wish in wanted):
        if name not in PROGRAMS:
            raise UsageError(f"no tool is called {name!r}", hint=nearest(name, tuple(PROGRAMS)))
    with _bar(len(wanted)) if sys.stderr.isatty() else _lines() as progress:
        ensure(wanted, progress=progress)


@contextmanager
def _lines() -> Iterator[Progress]:
    """Plain lines on stderr: where a tool's work begins and ends, and now and then in between."""
    started = time.monotonic()
    shown: dict[str, float] = {}

    def progress(tool: str, doing: str) -> None:
        now = time.monotonic()
        if _is_end(doing) or now - shown.get(tool, -_EVERY_S) >= _EVERY_S:
            shown[tool] = now
            click.echo(f"setup {now - started:6.1f} s  {tool:<9} {doing}", err=True)

    yield progress


@contextmanager
def _bar(count: int) -> Iterator[Progress]:
    """A bar over the tools, and under it what is being done now."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    console = Console(stderr=True)
    what = TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1))
    with Bar(SpinnerColumn(), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), what, console=console, expand=True) as bar:
        task = bar.add_task("", total=count)

        def progress(tool: str, doing: str) -> None:
            bar.update(task, description=f"{tool}: {doing}".replace("[", r"\["))
            if _is_end(doing):
                console.print(f"{tool:<9} {doing}", markup=False, highlight=False)
                bar.advance(task)

        yield progress


def _is_end(doing: str) -> bool:
    return doing == "failed" or " ready (" in doing
