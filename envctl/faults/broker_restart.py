"""Broker restart: brokers of a Kafka are restarted in good order, as an upgrade or a change of their settings does.

Each hands its partitions over before it ends.  `rolling`: the next one only when all replicas of all partitions are in sync again;
`together`: all at once, which no majority survives where it is hit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from envctl.errors import ResourceError
from envctl.faults.base import Blast, Effect, World
from envctl.faults.brokers import OfBrokers, both, whole
from envctl.faults.node_restart import NodeRestart
from envctl.faults.restarting import restart
from envctl.model.environment import Node
from envctl.stack_provider.ground import begin

LOOK_S = 0.2


class BrokerRestart(OfBrokers, NodeRestart):
    """`{fault: broker-restart, target: bus, pick: 2, mode: rolling|together}`, where `target` is a kafka component or one of its nodes."""

    name: ClassVar[str] = "broker-restart"
    mechanism: ClassVar[str] = "stopped in good order and started again"
    proof: ClassVar[str] = "start times; leaders handed over, all replicas in sync between"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["target"],
        "additionalProperties": False,
        "properties": {
            **{name: NodeRestart.schema["properties"][name] for name in ("target", "pick")},
            "mode": {"enum": ["rolling", "together"], "description": "default: rolling"},
        },
    }
    minority: ClassVar[bool] = False

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        super().__init__({**params, "rolling": params.get("mode") != "together"}, world)
        self._restarted: list[str] = []  # those after which everything was in sync again

    def probe(self) -> Blast:
        """See `Fault.probe`: the cluster must be whole."""
        return self._watched(super().probe())

    def apply(self, lease_s: float) -> None:  # noqa: ARG002
        """See `Fault.apply`.  A restart lasts by itself; a renewal restarts nothing twice."""
        with ThreadPoolExecutor(1 if self._rolling else len(self._targets)) as pool:
            list(pool.map(self._replace, self._targets))

    def _replace(self, node: Node) -> None:
        if node.name in self._restarted or self._world.stopping.is_set():
            return
        doing = begin(lambda: restart(self._world, node))
        while not doing.done():
            if self._watch is not None:
                self._watch.now()  # a broker that leads nothing is seen to be away only meanwhile
            time.sleep(LOOK_S)
        doing.result()
        again = whole(self._world, [node])
        if not again.shown and not self._world.stopping.is_set():
            raise ResourceError(f"after the restart of {node.name}: {again.summary}")
        self._restarted.append(node.name)

    def verify(self) -> Effect:
        """Each target was started once more, in its turn, after what was restarted before was in sync; its partitions were handed over; nobody else was restarted."""
        if self._watch is None:
            return Effect(False, "not probed")
        restarted = super().verify()
        done = restarted.shown and sorted(self._restarted) == sorted(node.name for node in self._targets)
        return both(restarted, self._watch.passed()) if done else Effect(False, restarted.summary, restarted.detail)

    def absent(self) -> Effect:
        """Every target is ready and a broker of the cluster, and all replicas are in sync."""
        return both(super().absent(), whole(self._world, self._targets))
