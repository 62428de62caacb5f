"""The names that other files may refer to."""

from __future__ import annotations

from collections.abc import Iterable

from envctl.model.topology import AnyComponent, Kafka, Postgres, Service, Topology
from envctl.spec.document import Document, Location, did_you_mean


def groups_of(topology: Topology) -> dict[str, tuple[str, ...]]:
    """Consumer group → the services that are in it."""
    found: dict[str, tuple[str, ...]] = {}
    for component in topology.components.values():
        for each in component.consumes if isinstance(component, Service) else ():
            members = found.get(each.group, ())
            found[each.group] = members if component.name in members else (*members, component.name)
    return found


def topics_of(topology: Topology) -> dict[str, str]:
    """Topic → the kafka component that declares it."""
    kafkas = [component for component in topology.components.values() if isinstance(component, Kafka)]
    return {topic: kafka.name for kafka in kafkas for topic in kafka.topics}


def known(document: Document, at: Location, kind: str, name: str, names: Iterable[str]) -> bool:
    """Whether a name exists; notes a problem when it doesn't."""
    names = tuple(names)
    if name not in names:
        document.problem(at, f"no {kind} is called {name!r}", did_you_mean(name, names))
    return name in names


def node_count(component: AnyComponent) -> int:
    """How many nodes a component has."""
    if isinstance(component, Service):
        return component.replicas
    if isinstance(component, Postgres):
        return 1 + component.standbys
    return component.brokers if isinstance(component, Kafka) else 1


def nodes_of(topology: Topology) -> dict[str, str]:
    """Node → its component."""
    return {
        f"{component.name}-{index}": component.name
        for component in topology.components.values()
        for index in range(node_count(component))
    }


def owner_of(topology: Topology, name: str) -> AnyComponent | None:
    """The component of that name, or the one that has a node of that name; None where there is neither."""
    return topology.components.get(nodes_of(topology).get(name, name))
