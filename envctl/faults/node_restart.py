"""Node restart: nodes end in good order (their stop signal, their grace) and start again with their data, as at a deployment.

All at once, or with `rolling: true` each once the one before it is ready again.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from envctl.errors import UsageError
from envctl.faults.acting import bystanders, canary, unexplained
from envctl.faults.base import Blast, Effect, World
from envctl.faults.restarting import RESTART_S, restart, roll
from envctl.faults.targets import PICK, TARGET, ZONE, AtNodes, aimed_at, at_each, placed
from envctl.model.environment import Node


class NodeRestart(AtNodes):
    """`{fault: node-restart, target: orders, pick: 1}`, where `target` is a component or a node; or `{zone: b, rolling: true}`."""

    name: ClassVar[str] = "node-restart"
    mechanism: ClassVar[str] = "stopped in good order and started again"
    proof: ClassVar[str] = "start times, of others too"
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
            "rolling": {"type": "boolean", "description": "each once the one before it is ready again; default: all at once"},
        },
    }
    instantaneous = True

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        super().__init__(params, world)
        self._rolling = bool(params.get("rolling", False))
        self._others: dict[str, Node] = {}  # that are no target, as they were when the fault was probed

    def probe(self) -> Blast:
        """See `Fault.probe`: every target must be ready, or it would not be its restart that is seen.  Looks anew each time it is asked."""
        self._targets = aimed_at(self._world, self._params)
        unready = [node.name for node in self._targets if node.state != "ready" or node.pid is None]
        if unready:
            raise UsageError(f"can't restart what is not ready: {', '.join(unready)}")
        self._others = {node.name: node for node in bystanders(self._world, self._targets, ready=False)}
        return Blast(self._targets, placed(self._targets))

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`.  A node that has ended in good order is started again by its supervisor."""
        return {"release": [node.name for node in self._targets]}

    def apply(self, lease_s: float) -> None:  # noqa: ARG002
        """See `Fault.apply`.  Nothing is held, and a renewal restarts nobody again."""
        if self._rolling:
            roll(self._world, self._targets)
            return
        with ThreadPoolExecutor(len(self._targets)) as pool:
            list(pool.map(lambda node: restart(self._world, node), self._targets))

    def verify(self) -> Effect:
        """Each target was started once more, in its turn where it rolls, and no other node was."""
        now = [self._world.reach.node(node.name) for node in self._targets]
        again = [new.name for new, old in zip(now, self._targets, strict=True) if new.starts == old.starts + 1 and new.started_at != old.started_at]
        begun = [node.started_at or 0.0 for node in now]
        turns = not self._rolling or begun == sorted(set(begun))
        others = {node.name: node for node in self._world.reach.environment().nodes if node.name in self._others}
        hit = [name for name, old in self._others.items() if name not in others or others[name].starts != old.starts]
        hit = unexplained(self._world, hit)
        summary = f"{len(again)} of {len(now)} restarted" + (" one after the other" if self._rolling and turns and len(again) == len(now) else "")
        if self._world.stopping.is_set():
            summary += "; the run was stopped on the way"
        told = [{"node": n.name, "zone": n.zone, "exit_status": n.exit_status, "starts": n.starts, "started_at": n.started_at} for n in now]
        return Effect(len(again) == len(now) and turns and not hit, summary + (f"; so was {', '.join(hit)}" if hit else ""),
                      {"nodes": told, **canary(self._world, tuple(self._others), hit)})

    def heal(self) -> None:
        """See `Fault.heal`."""
        at_each(self._targets, lambda node: self._world.reach.release(node.name))

    def absent(self) -> Effect:
        """Every target is ready again."""
        for node in self._targets:
            self._world.reach.wait_ready(node.name, RESTART_S)
        return Effect(shown=True, summary="running again")
