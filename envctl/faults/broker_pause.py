"""Broker pause: brokers of a Kafka stand still with their connections open, until the cluster takes them for dead, and then go on.

A paused broker does not know that others lead its partitions by now: that is what tells it from a killed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from envctl.faults.base import Blast, Effect
from envctl.faults.brokers import OfBrokers, both, whole
from envctl.faults.node_pause import NodePause
from envctl.faults.targets import PICK, TARGET


class BrokerPause(OfBrokers, NodePause):
    """`{fault: broker-pause, target: bus, pick: 1}`, where `target` is a kafka component or one of its nodes."""

    name: ClassVar[str] = "broker-pause"
    proof: ClassVar[str] = "their state as the machine sees it; the broker fenced, its partitions led by others"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["target"],
        "additionalProperties": False,
        "properties": {"target": TARGET, "pick": PICK},
    }
    quorum: ClassVar[bool] = False  # a broker would pass the question on to a controller that stands still

    def probe(self) -> Blast:
        """See `Fault.probe`: the cluster must be whole."""
        return self._watched(super().probe())

    def verify(self) -> Effect:
        """Each target stands still, and is fenced; it leads nothing, and if it was the controller another one is."""
        still = super().verify()
        if not still.shown or self._watch is None:
            return Effect(False, still.summary, still.detail)
        return both(still, self._watch.gone())

    def absent(self) -> Effect:
        """Every target goes on, ready and a broker of the cluster, and all replicas are in sync."""
        going = super().absent()
        return both(going, whole(self._world, self._targets)) if going.shown else going
