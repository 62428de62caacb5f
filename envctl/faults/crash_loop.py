"""Crash loop: a node that dies again whenever it has come up, as one with a broken configuration or a poison message does.

Its supervisor starts it, later each time; whoever kills it is this very process, so that the loop ends with us.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

from envctl.errors import ResourceError, UsageError
from envctl.faults.acting import bystanders, canary, unexplained
from envctl.faults.base import Blast, Effect, World
from envctl.faults.targets import PICK, TARGET, AtNodes, at_each, placed
from envctl.model.environment import Node
from envctl.waiting import until

CRASHES = 2  # of each target: one could be anybody's
OBSERVE_S = 20.0  # how long they may take: supervisors wait between starts
READY_S = 60.0  # how long a node may take to be ready again, after the last of those waits
LOOK_S = 0.05


class CrashLoop(AtNodes):
    """`{fault: crash-loop, target: payments, pick: 1, for: 10s}`, where `target` is a component or a node."""

    name: ClassVar[str] = "crash-loop"
    mechanism: ClassVar[str] = "SIGKILL whenever the node is up again"
    proof: ClassVar[str] = "starts of the target, exit status"
    claims: ClassVar[frozenset[str]] = frozenset({"processes"})
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["target"],
        "additionalProperties": False,
        "properties": {
            "target": TARGET,
            "pick": PICK,
        },
    }

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        super().__init__(params, world)
        self._loop: threading.Thread | None = None
        self._over = threading.Event()
        self._until = 0.0  # when the lease runs out, on the monotonic clock
        self._crashes: Counter[str] = Counter()  # of each target, by us
        self._seen: Counter[str] = Counter()  # those that have been measured
        self._starts: dict[str, int] = {}  # of each target when it was measured
        self._others: dict[str, int] = {}  # node that is no target → its starts before the first crash

    def probe(self) -> Blast:
        """See `Fault.probe`: every target must be alive."""
        dead = [node.name for node in map(self._now, self._targets) if node.pid is None]
        if dead:
            raise UsageError(f"can't kill what is not alive: {', '.join(dead)}")
        return Blast(self._targets, placed(self._targets))

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return {"release": [node.name for node in self._targets]}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`."""
        self._until = time.monotonic() + lease_s
        if self._loop is None and not self._over.is_set():
            self._others = {node.name: node.starts for node in bystanders(self._world, self._targets, ready=False)}
            self._loop = threading.Thread(target=self._kill, name="crash loop", daemon=True)
            self._loop.start()

    def _kill(self) -> None:
        """Kills whatever target has a process, as long as the lease lasts."""
        while not self._over.wait(LOOK_S) and time.monotonic() < self._until:
            for node in map(self._now, self._targets):
                if node.pid is not None and not self._over.is_set():
                    with suppress(ResourceError):  # it has ended by itself meanwhile
                        self._world.reach.signal(node.name, signal.SIGKILL)
                        self._crashes[node.name] += 1

    def verify(self) -> Effect:
        """Since it was measured last, each target has been killed several times and started again by its supervisor, and no other node has ended."""
        shown = until(lambda: all(map(self._again, self._targets)) or not self._acts(), OBSERVE_S) and self._acts()
        nodes = self._world.reach.environment().nodes
        others = [node for node in nodes if node.name in self._others]
        hit = unexplained(self._world, [node.name for node in others if node.starts != self._others[node.name]])
        targets = [node for node in nodes if node.name in {target.name for target in self._targets}]
        fewest = min((self._crashes[node.name] - self._seen[node.name] for node in targets), default=0)
        self._seen, self._starts = Counter(self._crashes), {node.name: node.starts for node in targets}
        told = [{"node": n.name, "crashes": self._crashes[n.name], "starts": n.starts, "exit_status": n.exit_status} for n in targets]
        summary = f"crashed {fewest} times" + (f"; so did {', '.join(hit)}" if hit else "")
        return Effect(shown and not hit, summary, {"nodes": told, **canary(self._world, others, hit)})

    def _again(self, node: Node) -> bool:
        started = self._now(node).starts - self._starts.get(node.name, node.starts)
        return self._crashes[node.name] >= self._seen[node.name] + CRASHES and started >= CRASHES - 1

    def _acts(self) -> bool:
        return self._loop is not None and self._loop.is_alive()

    def heal(self) -> None:
        """See `Fault.heal`: the next start may last."""
        self._over.set()
        if self._loop is not None:
            self._loop.join()
        at_each(self._targets, lambda node: self._world.reach.release(node.name))

    def absent(self) -> Effect:
        """Nobody kills them any more, and each is ready."""
        if self._acts():
            return Effect(shown=False, summary="still killed again and again")
        for node in self._targets:
            self._world.reach.wait_ready(node.name, READY_S)
        return Effect(shown=True, summary="running again")

    def _now(self, node: Node) -> Node:
        return self._world.reach.node(node.name)
