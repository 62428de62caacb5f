"""`envctl logs`: shows or follows the output of nodes, one colour a node."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from envctl.cli.environments import meant
from envctl.errors import NoEnvironmentError, UsageError

if TYPE_CHECKING:
    from envctl.substrates.base import Reach

COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green", "bright_magenta")


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
    prefixes = {name: click.style(f"{name:<{width}} |", fg=COLOURS[number % len(COLOURS)]) for number, name in enumerate(wanted)}
    if follow:
        _follow(reach, prefixes, tail)
        return
    for name, prefix in prefixes.items():
        for line in reach.log(name, tail=tail):
            click.echo(f"{prefix} {line}")


def chosen(asked: Sequence[str], components: dict[str, str]) -> list[str]:
    """The nodes meant by names of nodes and components; `components` maps node to component.  Raises UsageError."""
    from envctl.plugins import nearest

    for name in asked:
        if name not in components and name not in components.values():
            raise UsageError(f"no node or component is called {name!r}", hint=nearest(name, (*components, *components.values())))
    return [node for node, component in components.items() if not asked or node in asked or component in asked]


def _follow(reach: Reach, prefixes: Mapping[str, str], tail: int | None) -> None:
    """Prints what all nodes say, as they say it, until the environment has ended or somebody interrupts."""

    def copy(name: str, prefix: str) -> None:
        with suppress(NoEnvironmentError):
            for line in reach.log(name, tail=tail, follow=True):
                click.echo(f"{prefix} {line}")

    threads = [threading.Thread(target=copy, args=each, daemon=True) for each in prefixes.items()]
    for thread in threads:
        thread.start()
    with suppress(KeyboardInterrupt):
        for thread in threads:
            thread.join()
