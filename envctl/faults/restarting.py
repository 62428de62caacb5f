"""Restarts in good order, as long as the run goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from envctl.faults.base import World
from envctl.model.environment import Node
from envctl.stack_provider.ground import begin
from envctl.waiting import until

RESTART_S = 30.0  # how long a node may take to be started again, and to be ready


def roll(world: World, nodes: Sequence[Node]) -> None:
    """Restarts nodes one after the other, each once the one before it is ready again; takes no further one when the run is stopped."""
    for node in nodes:
        if world.stopping.is_set():
            return
        restart(world, node)
        unless_stopped(world, partial(world.reach.wait_ready, node.name, RESTART_S))


def restart(world: World, node: Node) -> None:
    """Ends a node in good order and has it started again, unless it was since `node` was looked at."""
    if world.reach.node(node.name).starts == node.starts:
        unless_stopped(world, partial(world.reach.restart, node.name))
        until(lambda: world.stopping.is_set() or world.reach.node(node.name).starts > node.starts, RESTART_S)


def unless_stopped(world: World, work: Callable[[], None]) -> None:
    """Waits for something no longer than the run goes on: a node may take its time to end, or to be ready again.  Raises what it raises."""
    doing = begin(work)  # which keeps no run from ending either
    until(lambda: world.stopping.is_set() or doing.done(), math.inf)
    if doing.done():
        doing.result()
