"""Node kill: SIGKILL to a node's main process, which ends everything in the node at once.

With `restart: true` its supervisor starts it again; with `restart: false` it stays down until the fault is healed.  A target
may be a zone, whose nodes all go at the same time.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any, ClassVar

from envctl.errors import UsageError
from envctl.faults.base import Blast, Effect, World
from envctl.faults.restarting import RESTART_S
from envctl.faults.targets import PICK, TARGET, ZONE, AtNodes, aimed_at, at_each, placed
from envctl.model.environment import Node
from envctl.waiting import until

KILLED = 128 + signal.SIGKILL
OBSERVE_S = 10.0  # how long the kill may take to be seen


class NodeKill(AtNodes):
    """`{fault: node-kill, target: payments, pick: 1, restart: true}`, where `target` is a component or a node; or `{zone: b}`."""

    name: ClassVar[str] = "node-kill"
    mechanism: ClassVar[str] = "SIGKILL"
    proof: ClassVar[str] = "exit status, start time"
    claims: ClassVar[frozenset[str]] = frozenset({"processes"})
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "additionalProperties": False,
        "oneOf": [{"required": ["target"]}, {"required": ["zone"]}],
        "description": "it needs either `target` or `zone`",
        "properties": {
            "target": TARGET,
            "zone": ZONE,
            "pick": PICK,
            "restart": {"type": "boolean", "description": "default: true, the supervisor restarts it"},
        },
    }

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        super().__init__(params, world)
        self._restart = bool(params.get("restart", True))
        self.instantaneous = self._restart

    def probe(self) -> Blast:
        """See `Fault.probe`: every target must be alive, or its death could not be ours.  Looks anew each time it is asked."""
        self._targets = aimed_at(self._world, self._params)
        dead = [node.name for node in self._targets if node.state != "ready" or node.pid is None]
        if dead:
            raise UsageError(f"can't kill what is not alive: {', '.join(dead)}")
        return Blast(self._targets, placed(self._targets))

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return {"release": [node.name for node in self._targets]}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`.  A renewal only renews the hold; nothing is killed twice."""
        at_each(self._targets, lambda node: self._strike(node, lease_s), at_once=True)  # as a zone goes

    def _strike(self, node: Node, lease_s: float) -> None:
        if not self._restart:
            self._world.reach.hold(node.name, lease_s)
        if self._now(node).pid == node.pid:
            self._world.reach.signal(node.name, signal.SIGKILL)

    def verify(self) -> Effect:
        """Each target ended by SIGKILL, and was started again or stays down, as asked."""
        if not until(lambda: all(self._ended(node) for node in self._targets), OBSERVE_S):
            return Effect(False, "not seen to die", self._detail())
        if self._restart:
            again = until(lambda: all(self._now(node).starts > node.starts for node in self._targets), RESTART_S)
            return Effect(again, "exit 137, restarted" if again else "exit 137, not restarted", self._detail())
        down = all(self._now(node).pid is None for node in self._targets)
        return Effect(down, "exit 137, held down" if down else "exit 137, but it came back", self._detail())

    def heal(self) -> None:
        """See `Fault.heal`."""
        at_each(self._targets, lambda node: self._world.reach.release(node.name))

    def absent(self) -> Effect:
        """Every target is started again and ready."""
        for node in self._targets:
            self._world.reach.wait_ready(node.name, RESTART_S)
        return Effect(True, "running again", self._detail())

    def _now(self, node: Node) -> Node:
        return self._world.reach.node(node.name)

    def _ended(self, node: Node) -> bool:
        now = self._now(node)
        return now.exit_status == KILLED and (now.starts > node.starts or now.pid is None)

    def _detail(self) -> dict[str, Any]:
        now = [self._now(node) for node in self._targets]
        return {"nodes": [{"node": n.name, "zone": n.zone, "exit_status": n.exit_status, "starts": n.starts, "started_at": n.started_at} for n in now]}
