"""`envctl logs`: shows or follows the output of nodes, one colour a node."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import click

from envctl.cli.environments import meant
from envctl.errors import NoEnvironmentError, UsageError

COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green", "bright_magenta")
POLL_S = 0.2


@click.command()
@click.argument("nodes", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on as the nodes go on writing.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines of each node.")
@click.option("--env", "environment", metavar="ENV", help="Another environment than this checkout's.")
def logs(*, nodes: tuple[str, ...], follow: bool, tail: int | None, environment: str | None) -> None:
    """Show the output of NODES (nodes or whole components; all by default), each line after its node's name."""
    from envctl.lease import locate

    reach, found = locate(meant(environment))
    wanted = chosen(nodes, {node.name: node.component for node in found.nodes})
    width = max(map(len, wanted), default=0)
    readers = []
    for number, name in enumerate(wanted):
        prefix = click.style(f"{name:<{width}} |", fg=COLOURS[number % len(COLOURS)])
        paths = reach.logs(name)
        for line in last_lines(paths, tail):
            click.echo(f"{prefix} {line}")
        readers.append((prefix, Follower(paths[-1] if paths else found.directory / "logs" / f"{name}.log")))
    if follow:
        _follow(readers, lambda: _is_there(found.directory))


def chosen(asked: Sequence[str], components: dict[str, str]) -> list[str]:
    """The nodes meant by names of nodes and components; `components` maps node to component.  Raises UsageError."""
    from envctl.plugins import nearest

    for name in asked:
        if name not in components and name not in components.values():
            raise UsageError(f"no node or component is called {name!r}", hint=nearest(name, (*components, *components.values())))
    return [node for node, component in components.items() if not asked or node in asked or component in asked]


def last_lines(paths: Sequence[Path], tail: int | None) -> Iterator[str]:
    """The lines of some files one after the other, or the last `tail` of them."""

    def lines() -> Iterator[str]:
        for path in paths:
            with suppress(FileNotFoundError), path.open(errors="replace") as file:
                yield from (line.rstrip("\n") for line in file)

    return lines() if tail is None else iter(deque(lines(), maxlen=tail))


class Follower:
    """Reads what is added to a file from now on, also over its replacement by a new one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = None
        self._rest = ""
        if path.exists():
            self._file = path.open(errors="replace")
            self._file.seek(0, os.SEEK_END)

    def new_lines(self) -> list[str]:
        """Whole lines that were added since the last call."""
        text = self._rest + (self._file.read() if self._file else "")
        if self._replaced():
            self._file = self._path.open(errors="replace")
            text += self._file.read()
        elif self._file and self._file.tell() > os.fstat(self._file.fileno()).st_size:
            self._file.seek(0)  # truncated
        *lines, self._rest = text.split("\n")
        return lines

    def _replaced(self) -> bool:
        try:
            now = self._path.stat().st_ino
        except FileNotFoundError:
            return False
        return self._file is None or os.fstat(self._file.fileno()).st_ino != now


def _follow(readers: Sequence[tuple[str, Follower]], there: Callable[[], bool]) -> None:
    with suppress(KeyboardInterrupt):
        while there():
            for prefix, reader in readers:
                for line in reader.new_lines():
                    click.echo(f"{prefix} {line}")
            time.sleep(POLL_S)


def _is_there(directory: Path) -> bool:
    from envctl.lease import locate

    try:
        locate(directory.name)
    except NoEnvironmentError:
        return False
    return True
