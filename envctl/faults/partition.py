"""Partition: nodes that can't hear each other, though all of them live.

Three shapes: a link that is cut, one way or both; a node that is cut off from all others; a component whose minority is cut off
from its majority.  Only nodes are kept apart: telemetry and control go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from envctl.errors import UsageError
from envctl.faults.base import Blast, Effect, World
from envctl.faults.links import ARROWS, Drops, Link, links, links_between, senders_of
from envctl.faults.probes import gone, measure
from envctl.faults.targets import nodes_named, pick
from envctl.model.environment import Node

PROBES = 50  # from each sender of each link: not one may arrive


class Partition:
    """`{fault: partition, from: orders, to: bus, direction: both|forward|reverse}`, `{isolate: bus-1}`, or `{split: bus, minority: 1}`."""

    name: ClassVar[str] = "partition"
    tools: ClassVar[tuple[str, ...]] = ("nft",)
    mechanism: ClassVar[str] = "nft drops everything at the receiver"
    proof: ClassVar[str] = "probes are lost in the intended direction only; the rule's counters"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "additionalProperties": False,
        "oneOf": [{"required": ["from"]}, {"required": ["isolate"]}, {"required": ["split"]}],
        "dependentRequired": {"from": ["to"], "direction": ["from"], "pick": ["isolate"], "minority": ["split"]},
        "description": "it needs `from` and `to`, or `isolate`, or `split`",
        "properties": {
            "from": {"type": "string", "description": "component or node at one end"},
            "to": {"type": "string", "description": "component or node at the other end"},
            "direction": {"enum": ["forward", "reverse", "both"], "description": "what does not get through; default: both"},
            "isolate": {"type": "string", "description": "component or node that is cut off from all other nodes, and its nodes from each other"},
            "pick": {"type": "integer", "minimum": 1, "description": "how many of the nodes to isolate; default: all"},
            "split": {"type": "string", "description": "component whose nodes are parted; everybody else hears both parts"},
            "minority": {"type": "integer", "minimum": 1, "description": "how many nodes are in the smaller part; default: as many as a minority can have"},
        },
    }
    instantaneous = False

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        self._params = params
        self._world = world

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> Partition:
        """See `FaultKind.build`."""
        return cls(params, world)

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """Whatever nodes it names."""
        return [(name, params[name]) for name in ("from", "to", "isolate", "split") if isinstance(params.get(name), str)]

    @cached_property
    def _apart(self) -> tuple[Node, ...]:
        """The nodes that are cut off, where it is not a link that is cut."""
        if "isolate" in self._params:
            return pick(self._world, nodes_named(self._world, self._params["isolate"]), self._params.get("pick"))
        nodes = nodes_named(self._world, self._params["split"])
        most = (len(nodes) - 1) // 2
        count = self._params.get("minority", most)
        if not 1 <= count <= most:
            raise UsageError(f"{self._params['split']} has {len(nodes)} nodes: {count or 'none'} of them can't be a minority",
                             hint="split a component of at least three nodes, or `isolate` one node")
        return pick(self._world, nodes, count)

    @cached_property
    def _links(self) -> tuple[Link, ...]:
        if "from" in self._params:
            return links_between(self._world, self._params["from"], self._params["to"], self._direction)
        inside = self._apart
        everybody = self._world.reach.environment().nodes if "isolate" in self._params else nodes_named(self._world, self._params["split"])
        others = [node for node in everybody if "isolate" in self._params or node not in inside]
        return links(inside, [node for node in others if node.state != "exited"], "both")

    @property
    def _direction(self) -> Any:
        return self._params.get("direction", "both")

    @cached_property
    def _drops(self) -> Drops:
        return Drops(self._world, self._links, 1.0, "cut")

    def probe(self) -> Blast:
        """See `Fault.probe`.  The blast is the ends of a link, or the nodes that are cut off."""
        self._drops.check()
        if "from" in self._params:
            arrow = ARROWS[self._direction]
            return Blast(tuple(link.receiver for link in self._links), f"{self._params['from']} {arrow} {self._params['to']} cut", senders_of(self._links))
        names = ", ".join(node.name for node in self._apart)
        return Blast(self._apart, f"{names} cut off from {self._params.get('split', 'all others')}")

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return self._drops.undo

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`."""
        self._drops.set(lease_s)

    def verify(self) -> Effect:
        """No probe gets through where nothing should, all do where they should, and every rule has counted what it dropped."""
        measured = measure(self._world, self._links, PROBES)
        back = measure(self._world, open_links, PROBES) if (open_links := self._open_links()) else []
        through = sum(m.sent - m.lost for m in measured)
        counted = [dropped for _, dropped in self._drops.counters() or [(m.sent, m.lost) for m in measured]]
        idle = sum(dropped < m.lost for dropped, m in zip(counted, measured, strict=True))
        lost_back, harmed = sum(m.lost for m in back), sum(m.canary_lost for m in (*measured, *back))
        sent = sum(m.sent for m in measured)
        summary = f"none of {sent:,} probes got through"
        if through or idle:
            summary = f"{through:,} of {sent:,} probes got through, {idle} of {len(measured)} rules dropped too little"
        elif lost_back or harmed:
            summary += f"; the other way lost {lost_back}, the canary {harmed}"
        detail = {"probes_sent": sent, "probes_through": through, "rules_idle": idle, "dropped": sum(counted), "other_way_lost": lost_back,
                  "other_way_sent": sum(m.sent for m in back), "canary_sent": sum(m.canary_sent for m in (*measured, *back)), "canary_lost": harmed}
        return Effect(not (through or idle or lost_back or harmed), summary, detail)

    def _open_links(self) -> tuple[Link, ...]:
        """The ways back of links that are cut one way: whoever sends there still hears."""
        if "from" not in self._params or self._direction == "both":
            return ()
        return links_between(self._world, self._params["to"], self._params["from"], self._direction)

    def heal(self) -> None:
        """See `Fault.heal`."""
        self._drops.remove()

    def absent(self) -> Effect:
        """See `probes.gone`."""
        return gone(self._world, self._drops, self._links)
