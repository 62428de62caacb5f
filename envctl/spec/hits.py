"""Which nodes a fault will hit, as far as files tell: its `target` or `zone`, the zones that nodes get, how many it picks."""

from __future__ import annotations

from collections.abc import Sequence

from envctl import plugins
from envctl.model.scenario import FaultSpec
from envctl.model.topology import AnyComponent, Topology
from envctl.spec.names import nodes_of


def within_reach(fault: FaultSpec, topology: Topology) -> frozenset[str]:
    """The nodes of a fault's target or zone: those it hits are among them."""
    target, zone = fault.params.get("target"), fault.params.get("zone")
    return frozenset(
        node for node, owner in nodes_of(topology).items()
        if target in (node, owner) or (zone is not None and _zone(topology.components[owner], node, topology) == zone)
    )


def _zone(component: AnyComponent, node: str, topology: Topology) -> str:
    """As `engines.base.Site.zone` gives them."""
    zones = component.zones or topology.zones or ("",)
    return zones[int(node.rpartition("-")[2]) % len(zones)]


def count_hit(faults: Sequence[FaultSpec], topology: Topology) -> int | None:
    """How many nodes faults hit together; None where only the living environment tells, or a name or a number is a mistake."""
    hit = [within_reach(fault, topology) for fault in faults]
    picks = [fault.params.get("pick", len(nodes)) for fault, nodes in zip(faults, hit, strict=True)]
    if not all(hit) or not all(isinstance(pick, int) for pick in picks):
        return None
    picked: list[int] = [min(pick, len(nodes)) for pick, nodes in zip(picks, hit, strict=True)]
    if len({fault.place for fault in faults}) == 1:  # one entry, repeated
        return picked[0]
    return len(frozenset().union(*hit)) if all(count == len(nodes) for count, nodes in zip(picked, hit, strict=True)) else None


def clash(one: FaultSpec, other: FaultSpec) -> bool:
    """Whether both take the same thing of a node for themselves, so that no node can have both at once."""
    return bool(_claims(one) & _claims(other))


def _claims(fault: FaultSpec) -> frozenset[str]:
    if fault.fault not in plugins.names("envctl.faults"):
        return frozenset()
    claims: frozenset[str] = getattr(plugins.load("envctl.faults", fault.fault), "claims", frozenset())
    return claims
