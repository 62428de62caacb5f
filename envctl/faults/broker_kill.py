"""Broker kill: SIGKILL to brokers of a Kafka, proven by their exit and by what the cluster's metadata says of them.

Started again at once, a broker is taken back only when its session is over (`broker.session.timeout.ms`): until then its partitions have no leader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from envctl.faults.base import Blast, Effect
from envctl.faults.brokers import OfBrokers, both, whole
from envctl.faults.node_kill import NodeKill


class BrokerKill(OfBrokers, NodeKill):
    """`{fault: broker-kill, target: bus, pick: 1, restart: true}`, where `target` is a kafka component or one of its nodes."""

    name: ClassVar[str] = "broker-kill"
    mechanism: ClassVar[str] = "SIGKILL"
    proof: ClassVar[str] = "exit status; the broker fenced, leaders and controller moved"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["target"],
        "additionalProperties": False,
        "properties": {name: NodeKill.schema["properties"][name] for name in ("target", "pick", "restart")},
    }

    def probe(self) -> Blast:
        """See `Fault.probe`: the cluster must be whole."""
        return self._watched(super().probe())

    def verify(self) -> Effect:
        """Each target ended by SIGKILL; it is fenced, or (once started again) its partitions have had other leaders; a controller has moved."""
        ended = super().verify()
        if not ended.shown or self._watch is None:
            return Effect(False, ended.summary, ended.detail)
        return both(ended, self._watch.passed() if self._restart else self._watch.gone())

    def absent(self) -> Effect:
        """Every target is started again, ready and a broker of the cluster, and all replicas are in sync."""
        return both(super().absent(), whole(self._world, self._targets))
