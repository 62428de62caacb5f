"""Node pause: all processes of a node stand still, with their connections open and their locks held, and then go on as if nothing had been.

It is what a long collection of garbage, a stalled machine or a suspended virtual machine looks like to everybody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from envctl.errors import UsageError
from envctl.faults.acting import bystanders, canary, unexplained
from envctl.faults.base import Blast, Effect
from envctl.faults.targets import PICK, TARGET, ZONE, AtNodes, at_each, placed
from envctl.model.environment import Node

READY_S = 30.0  # how long a node may take to be ready again


class NodePause(AtNodes):
    """`{fault: node-pause, target: bus, pick: 1}`, where `target` is a component or a node; or `{zone: b}`."""

    name: ClassVar[str] = "node-pause"
    mechanism: ClassVar[str] = "all processes stopped (freezer, or SIGSTOP)"
    proof: ClassVar[str] = "their state as the machine sees it"
    claims: ClassVar[frozenset[str]] = frozenset({"processes", "turns"})
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "additionalProperties": False,
        "oneOf": [{"required": ["target"]}, {"required": ["zone"]}],
        "description": "it needs either `target` or `zone`",
        "properties": {
            "target": TARGET,
            "zone": ZONE,
            "pick": PICK,
        },
    }

    def probe(self) -> Blast:
        """See `Fault.probe`: every target must be alive."""
        dead = [node.name for node in map(self._now, self._targets) if node.pid is None]
        if dead:
            raise UsageError(f"can't pause what is not alive: {', '.join(dead)}")
        return Blast(self._targets, placed(self._targets))

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return {"resume": [node.name for node in self._targets]}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`.  A target that was started again meanwhile is paused anew; one that is down stands still as it is."""
        living = [node for node in map(self._now, self._targets) if node.pid is not None]
        at_each(living, lambda node: self._world.reach.pause(node.name, lease_s), at_once=True)

    def verify(self) -> Effect:
        """Each target stands still as the machine sees it, and no other node does."""
        names = {node.name for node in self._targets}
        others = [node.name for node in bystanders(self._world, self._targets, ready=False)]
        paused = [name for name in names if self._now_paused(name)]
        hit = unexplained(self._world, [name for name in others if self._now_paused(name)])
        summary = f"{len(paused)} of {len(names)} stood still" + (f"; so did {', '.join(hit)}" if hit else "")
        return Effect(len(paused) == len(names) and not hit, summary,
                      {"paused": sorted(paused), **canary(self._world, others, hit)})

    def heal(self) -> None:
        """See `Fault.heal`."""
        at_each(self._targets, lambda node: self._world.reach.resume(node.name))

    def absent(self) -> Effect:
        """No target stands still, and each is ready."""
        left = [node.name for node in self._targets if self._now_paused(node.name)]
        for node in self._targets:
            if node.name not in left:
                self._world.reach.wait_ready(node.name, READY_S)
        return Effect(not left, f"{', '.join(left)} still stands still" if left else "going on", {"paused": left})

    def _now(self, node: Node) -> Node:
        return self._world.reach.node(node.name)

    def _now_paused(self, name: str) -> bool:
        return self._world.reach.node(name).pid is not None and self._world.reach.is_paused(name)
