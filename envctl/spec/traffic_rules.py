"""What the lines of a traffic file must fulfil in a topology: receivers that have the port, topics, methods that are declared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envctl.errors import Problem
from envctl.model.scenario import Traffic
from envctl.model.topology import Service, Topology
from envctl.spec.contracts import DIRECTORY, contract_files, unary_methods
from envctl.spec.document import did_you_mean
from envctl.spec.names import topics_of
from envctl.spec.traffic import Line


def check_lines(traffic: Traffic, lines: Iterable[Line], topology: Topology) -> Iterator[Problem]:
    """Every name in the lines that leads nowhere, where it stands first."""
    first: dict[tuple[str, str, str], Line] = {}
    for line in lines:
        first.setdefault((line.protocol, line.to, line.method if line.protocol != "http" else ""), line)
    topics = topics_of(topology)
    methods = unary_methods(contract_files(topology.directory)) if any(line.protocol == "grpc" for line in first.values()) else ()
    for line in first.values():
        if line.protocol == "kafka":
            if line.method not in topics:
                yield Problem(traffic.file, line.number, "kafka", f"no topic is called {line.method!r}", did_you_mean(line.method, topics))
            continue
        yield from _receiver(traffic, line, topology)
        if line.protocol == "grpc" and line.method not in methods:
            hint = did_you_mean(line.method, methods) if methods else f"put the .proto file into {topology.directory / DIRECTORY}"
            yield Problem(traffic.file, line.number, "grpc", f"no .proto file declares the unary method {line.method!r}", hint)


def _receiver(traffic: Traffic, line: Line, topology: Topology) -> Iterator[Problem]:
    name = line.to or traffic.to
    component = topology.components.get(name)
    if component is None:
        if line.to:
            yield Problem(traffic.file, line.number, "to", f"no component is called {name!r}", did_you_mean(name, topology.components))
    elif not isinstance(component, Service) or line.protocol not in component.ports:
        message = f"{name} has no port called {line.protocol!r}"
        yield Problem(traffic.file, line.number, line.protocol, message, f"add `{line.protocol}:` to its `ports`, or name another in `to`")
