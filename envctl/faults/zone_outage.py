"""Zone outage: every node of a zone falls silent and ends, and none comes back before the zone does.

They are silenced before they are killed, and stay so: who was connected to them is not told, as by a machine without power.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from envctl.faults.acting import bystanders, unexplained
from envctl.faults.base import Blast, Effect, World
from envctl.faults.links import Drops, Link, links
from envctl.faults.node_kill import NodeKill
from envctl.faults.probes import CANARY_PROBES, measure
from envctl.faults.targets import all_of, nodes_in_zone
from envctl.model.environment import Node
from envctl.waiting import until

RELEASED_S = 3.0  # how long a node that is released may take to begin its start


class ZoneOutage:
    """`{for: 8s, fault: zone-outage, zone: b}`."""

    name: ClassVar[str] = "zone-outage"
    mechanism: ClassVar[str] = "nft drops everything, then SIGKILL, held down"
    proof: ClassVar[str] = "exit status of each; nothing of it arrives elsewhere"
    claims: ClassVar[frozenset[str]] = frozenset({"processes"})
    tools: ClassVar[tuple[str, ...]] = ("nft",)
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["zone"],
        "properties": {"zone": {"type": "string", "description": "all nodes that are in this zone when the fault begins"}},
    }
    instantaneous = False

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        self._world = world
        self._zone = str(params["zone"])
        self._kill = NodeKill({"zone": self._zone, "restart": False}, world)
        self._acts, self._silenced_s = False, 0.0

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> ZoneOutage:
        """See `FaultKind.build`."""
        return cls(params, world)

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The zone."""
        return [("zone", params["zone"])] if isinstance(params.get("zone"), str) else []

    @cached_property
    def _inside(self) -> tuple[Node, ...]:
        return nodes_in_zone(self._world, self._zone)

    @cached_property
    def _others(self) -> tuple[Node, ...]:
        names = {node.name for node in self._inside}
        return tuple(node for node in self._world.reach.environment().nodes if node.name not in names and node.pid is not None)

    @cached_property
    def _drops(self) -> Drops:
        return Drops(self._world, links(self._inside, self._others, "forward"), 1.0, "outage")

    def probe(self) -> Blast:
        """See `Fault.probe`."""
        blast = self._kill.probe()
        self._inside = blast.nodes
        self.__dict__.pop("_others", None)
        self.__dict__.pop("_drops", None)
        self._drops.check()
        return Blast(blast.nodes, f"zone {self._zone}: {', '.join(node.name for node in blast.nodes)}")

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return {**self._kill.undo(), **self._drops.undo}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`."""
        if not self._acts:
            begun = time.monotonic()
            self._drops.set(lease_s)
            self._silenced_s = time.monotonic() - begun
            self._kill.apply(lease_s)
            self._acts = True
        else:
            all_of([("", lambda: self._drops.set(lease_s)), ("", lambda: self._kill.apply(lease_s))])

    def verify(self) -> Effect:
        """Each node of the zone was killed and stays down, each of the others hears nothing from there, and they hear each other."""
        silent = set(self._drops.acting()) if self._drops.counters() is not None else {node.name for node in self._others}
        if self._others and not silent:
            return Effect(shown=False, summary="it is cut off from nobody")
        killed = self._kill.verify()
        open_ = [node.name for node in self._others if node.name not in silent]
        nodes = self._world.reach.environment().nodes
        down = {node.name for node in nodes if node.pid is None}
        hit = unexplained(self._world, sorted(down & {node.name for node in self._others}))
        sent, lost = self._bystanders(bystanders(self._world, self._inside, ready=False))
        summary = f"{len(down & {node.name for node in self._inside})} of {len(self._inside)} nodes down: {killed.summary}"
        if open_ or hit or lost:
            summary += f"; not cut off from {', '.join(open_) or 'nobody'}, down too: {', '.join(hit) or 'nobody'}, {lost} of {sent} other probes lost"
        detail = {**killed.detail, "silenced_within_s": self._silenced_s, "not_cut_off_from": open_, "canary_sent": len(self._others) + sent, "canary_lost": len(hit) + lost}
        return Effect(killed.shown and not open_ and not hit and not lost, summary, detail)

    def _bystanders(self, living: Sequence[Node]) -> tuple[int, int]:
        """Probes between two of the others, and from beside the nodes: how many were sent, how many of them were lost."""
        if not living:
            return 0, 0
        (measured,) = measure(self._world, [Link(living[0], tuple(living[1:2]))], CANARY_PROBES)
        return measured.sent + measured.canary_sent, measured.lost + measured.canary_lost

    def heal(self) -> None:
        """See `Fault.heal`."""
        all_of([("", self._drops.remove), ("", self._kill.heal)])

    def absent(self) -> Effect:
        """No rule is left, and every node of the zone is started again and ready."""
        if not until(lambda: not self._held(), RELEASED_S):
            return Effect(shown=False, summary=f"still down: {', '.join(self._held())}")
        running, left = self._kill.absent(), self._drops.left()
        return Effect(shown=False, summary=f"rules left in {', '.join(left)}") if left else running

    def _held(self) -> list[str]:
        return [node.name for node in self._inside if self._world.reach.node(node.name).state == "held"]
