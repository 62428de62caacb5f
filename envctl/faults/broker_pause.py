"""Broker pause: brokers of a Kafka stand still until the controller takes them for dead, with their connections open, and then go on.

It is held for as long as it takes to be fenced (`broker.session.timeout.ms`), even where it is asked for less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from envctl.faults.base import Blast, Effect, World
from envctl.faults.brokers import Watch, both, whole, wrong_target
from envctl.faults.node_pause import NodePause
from envctl.model.topology import Topology


class BrokerPause(NodePause):
    """`{fault: broker-pause, target: bus, pick: 1}`, where `target` is a kafka component or one of its nodes."""

    name: ClassVar[str] = "broker-pause"
    mechanism: ClassVar[str] = "all processes stopped until fenced"
    proof: ClassVar[str] = "their state; the broker fenced, leaders and controller moved"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["target"],
        "additionalProperties": False,
        "properties": {name: NodePause.schema["properties"][name] for name in ("target", "pick")},
    }
    _watch: Watch | None = None

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> BrokerPause:
        """See `FaultKind.build`."""
        return cls(params, world)

    @classmethod
    def unfit(cls, params: Mapping[str, Any], topology: Topology) -> Sequence[tuple[str, str, str]]:
        """See `FaultKind.unfit`."""
        return wrong_target(params, topology, minority=True)

    def probe(self) -> Blast:
        """See `Fault.probe`: the cluster must be whole."""
        blast = super().probe()
        self._watch = Watch(self._world, blast.nodes)
        return blast

    def verify(self) -> Effect:
        """Each target stands still and is fenced; a controller has moved.  Nobody else stands still or was fenced."""
        still = super().verify()
        if not still.shown or self._watch is None:
            return Effect(False, still.summary, still.detail)
        fenced = self._watch.gone()
        detail = {**still.detail, **fenced.detail}
        for name in ("canary_sent", "canary_lost"):  # those of both
            detail[name] = still.detail[name] + fenced.detail[name]
        return Effect(fenced.shown, f"{still.summary}; {fenced.summary}", detail)

    def absent(self) -> Effect:
        """No target stands still; each is ready and a broker of the cluster, and all replicas are in sync."""
        going = super().absent()
        return both(going, whole(self._world, self._targets)) if going.shown else going
