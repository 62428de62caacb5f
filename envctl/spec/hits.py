"""Which nodes a fault will hit, as far as files tell: the names it refers to, the zones that nodes get, how many it picks."""

from __future__ import annotations

from collections.abc import Sequence

from envctl import plugins
from envctl.model.scenario import FaultSpec
from envctl.model.topology import AnyComponent, Topology
from envctl.spec.names import nodes_of


def within_reach(fault: FaultSpec, topology: Topology) -> frozenset[str]:
    """The nodes of the components, nodes and zones that a fault names: those it hits are among them."""
    if fault.fault not in plugins.names("envctl.faults"):
        return frozenset()
    names = dict(plugins.load("envctl.faults", fault.fault).references(fault.params)) if fault.params else {}
    owners = nodes_of(topology)
    return frozenset(
        node for node, owner in owners.items() for what, name in names.items()
        if (_zone(topology.components[owner], node, topology) == name if what == "zone" else name in (node, owner))
    )


def _zone(component: AnyComponent, node: str, topology: Topology) -> str:
    """As `engines.base.Site.zone` gives them."""
    zones = component.zones or topology.zones or ("",)
    return zones[int(node.rpartition("-")[2]) % len(zones)]


def count_hit(faults: Sequence[FaultSpec], topology: Topology) -> int | None:
    """How many nodes faults hit together; None where only the living environment tells."""
    if any(not {"target", "zone"} & set(fault.params) for fault in faults):
        return None
    hit = [within_reach(fault, topology) for fault in faults]
    picked = [min(int(fault.params.get("pick", len(nodes))), len(nodes)) for fault, nodes in zip(faults, hit, strict=True)]
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
