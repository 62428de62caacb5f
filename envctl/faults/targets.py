"""From names in a scenario to the nodes a fault touches."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cached_property, partial
from typing import Any, ClassVar, Protocol, Self, TypeVar

from envctl.errors import ResourceError, UsageError
from envctl.faults.base import World
from envctl.model.environment import Node

TARGET: Mapping[str, Any] = {"type": "string", "description": "component or node"}
ZONE: Mapping[str, Any] = {"type": "string", "description": "all nodes that are in this zone when the fault begins"}
PICK: Mapping[str, Any] = {"type": "integer", "minimum": 1, "description": "how many of the target's nodes; default: all"}
AT_ONCE = 64  # nodes


class Named(Protocol):
    """A node, or something of one."""

    @property
    def name(self) -> str:
        """The node's."""


Each = TypeVar("Each", bound=Named)


class AtNodes:
    """A fault of nodes: those of `target` (a component or a node) or, where its schema has it, of `zone`; with `pick` so many of them."""

    tools: ClassVar[tuple[str, ...]] = ()
    instantaneous = False

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        self._params = params
        self._world = world

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> Self:
        """See `FaultKind.build`."""
        return cls(params, world)

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The target or the zone."""
        return [(name, params[name]) for name in ("target", "zone") if isinstance(params.get(name), str)]

    @cached_property
    def _targets(self) -> tuple[Node, ...]:
        """The nodes as they were when they were first asked for, or last probed where a kind looks anew."""
        return aimed_at(self._world, self._params)


def at_each(items: Sequence[Each], do: Callable[[Each], object], *, at_once: bool = False) -> None:
    """Does something at each node, whether or not it is refused at another.  See `all_of`."""
    all_of([(item.name, partial(do, item)) for item in items], at_once=at_once)


def all_of(works: Sequence[tuple[str, Callable[[], object]]], *, at_once: bool = False) -> None:
    """Does each piece of work, whether or not others are refused; then raises what was, or ResourceError that names every one."""
    with ThreadPoolExecutor(AT_ONCE if at_once else 1) as pool:
        refusals = list(pool.map(lambda work: _refusal(*work), works))
    refused = [refusal for refusal in refusals if refusal]
    if len(refused) == 1:
        raise refused[0][1]
    if refused:
        raise ResourceError("; ".join(f"{error}" if name in str(error) else f"{name}: {error}" for name, error in refused)) from refused[0][1]


def _refusal(name: str, work: Callable[[], object]) -> tuple[str, Exception] | None:
    try:
        work()
    except Exception as error:  # noqa: BLE001 — whatever it was, the others come next, and it is raised after them
        return name, error
    return None


def _nodes(world: World) -> list[Node]:
    """By their names, in whatever order they were started: so the same seed picks the same ones."""
    return sorted(world.reach.environment().nodes, key=lambda node: (node.component, len(node.name), node.name))


def nodes_named(world: World, name: str) -> tuple[Node, ...]:
    """All nodes of a component, or the one node of that name.  Raises UsageError when there is none."""
    nodes = _nodes(world)
    found = tuple(node for node in nodes if name in (node.component, node.name))
    if not found:
        known = sorted({node.component for node in nodes})
        raise UsageError(f"no node of this environment is called {name!r}", hint=f"components here: {', '.join(known)}")
    return found


def nodes_in_zone(world: World, zone: str) -> tuple[Node, ...]:
    """All nodes that are in a zone now, but jobs that have ended.  Raises UsageError when there is none."""
    nodes = [node for node in _nodes(world) if node.state != "exited"]
    found = tuple(node for node in nodes if node.zone == zone)
    if not found:
        here = ", ".join(sorted({node.zone for node in nodes}))
        raise UsageError(f"no node of this environment is in the zone {zone!r}", hint=f"its nodes are in the zones: {here}")
    return found


def aimed_at(world: World, params: Mapping[str, Any]) -> tuple[Node, ...]:
    """The nodes of `target` (a component or a node) or, without it, of `zone`; with `pick` so many of them.  Raises UsageError."""
    found = nodes_named(world, params["target"]) if "target" in params else nodes_in_zone(world, params["zone"])
    return pick(world, found, params.get("pick"))


def placed(nodes: Sequence[Node]) -> str:
    """Nodes with their zones, for a person."""
    return ", ".join(f"{node.name} (zone {node.zone})" for node in nodes)


def pick(world: World, nodes: Sequence[Node], count: int | None) -> tuple[Node, ...]:
    """`count` of the nodes, drawn from the fault's own random numbers, in their order; all when None.

    The draw uses none of them up: asked again of the same nodes, it is the same.
    """
    if count is None:
        return tuple(nodes)
    if count > len(nodes):
        raise UsageError(f"asked to pick {count} of {len(nodes)} nodes", hint="pick at most as many as there are")
    drawn = copy(world.rng).sample(range(len(nodes)), count)
    return tuple(nodes[index] for index in sorted(drawn))


def ratio(value: str | float) -> float:
    """`"20 %"` or 0.2 as a ratio between 0 and 1.  Raises UsageError outside that range."""
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise UsageError(f"{value!r} is not a ratio", hint="write it like 20 % or 0.2") from None
    if not 0 <= number <= 1:
        raise UsageError(f"{value!r} is not between 0 % and 100 %")
    return number


def slug(text: str) -> str:
    """A name that packet rules accept."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
