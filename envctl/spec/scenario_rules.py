"""What a scenario must fulfil beyond its structure: names that exist, and a timeline that fits the traffic and the limits."""

from __future__ import annotations

from pathlib import Path

from envctl.model.scenario import Scenario, Stream
from envctl.model.topology import Service, Topology
from envctl.spec.condition_rules import check_conditions, check_measures, check_place
from envctl.spec.document import Document, Location, did_you_mean
from envctl.spec.names import known, topics_of
from envctl.spec.plugin_rules import check_checks, check_faults
from envctl.spec.timeline_rules import check_timeline
from envctl.spec.traffic import Line, read_traffic
from envctl.spec.traffic_rules import check_lines


def check_scenario(document: Document, scenario: Scenario, topology: Topology | None, seeds: Path | None) -> tuple[Line, ...]:
    """Notes every broken rule in the document; returns the lines of the traffic file that are right.

    Without `seeds`, neither the file's name nor the seed's is looked at.
    """
    if seeds and scenario.file.stem != scenario.name:
        document.problem(("name",), f"found {scenario.name!r}, allowed: the file's name {scenario.file.stem!r}")
    if seeds and scenario.seed:
        known(document, ("seed",), f"seed (in {seeds})", scenario.seed, (file.parent.name for file in seeds.glob("*/seed.yaml")))
    if topology is not None:
        _check_components(document, scenario, topology)
    lines = _check_traffic(document, scenario, topology)
    operations = tuple(dict.fromkeys(line.op for line in lines))
    for stream in scenario.streams.values():
        _check_stream(document, stream, operations, topology)
    check_conditions(document, scenario, operations, topology)
    check_measures(document, scenario, topology)
    check_faults(document, scenario, topology)
    check_checks(document, scenario, topology, operations)
    check_timeline(document, scenario, lines, topology)
    return lines


def _check_components(document: Document, scenario: Scenario, topology: Topology) -> None:
    for index, name in enumerate(scenario.takes):
        known(document, ("takes", index), "component", name, topology.components)
    for index, name in enumerate(scenario.stubs):
        at = ("stubs", index)
        if not known(document, at, "component", name, topology.components):
            continue
        component = topology.components[name]
        if not isinstance(component, Service):
            document.problem(at, f"{name} is a {component.kind}; only a service can be answered by a stub")
        elif name in scenario.takes:
            document.problem(at, f"{name} is in `takes` and in `stubs`", "leave it in one of them")
        elif not component.stub:
            document.problem(at, f"{name} declares no examples to answer from", f"add `stub: FILE` to {name} in {topology.file.name}")


def _check_traffic(document: Document, scenario: Scenario, topology: Topology | None) -> tuple[Line, ...]:
    traffic = scenario.traffic
    if topology is not None:
        at = ("traffic", "to")
        if not traffic.to:
            document.problem(at, "no component receives the traffic", "add `to: COMPONENT`, a service that has a port")
        elif known(document, at, "component", traffic.to, topology.components):
            target = topology.components[traffic.to]
            if not isinstance(target, Service) or not target.ports:
                document.problem(at, f"{traffic.to} can't receive traffic", "allowed: a service that has a port")
    try:
        lines, problems = read_traffic(traffic.file)
    except OSError as error:
        near = [file.name for file in traffic.file.parent.glob("*.jsonl")]
        hint = did_you_mean(traffic.file.name, near) if near else ""
        document.problem(("traffic", "file"), f"{traffic.file} can't be read: {error.strerror}", hint)
        return ()
    document.problems += problems
    document.problems += check_lines(traffic, lines, topology) if topology is not None else ()
    return lines


def _check_stream(document: Document, stream: Stream, operations: tuple[str, ...], topology: Topology | None) -> None:
    at: Location = ("observe", stream.name)
    sources = [name for name in ("operation", "topic", "sql", "http") if getattr(stream, name)]
    if len(sources) != 1:
        document.problem(at, f"found {' and '.join(sources) or 'no source'}, allowed: one of operation, topic, sql or http")
        return
    if "id" not in stream.fields:
        document.problem(at, "'id' is missing", "say what identifies an observation, such as `id: value.order_id`")
    if stream.operation and operations:
        known(document, (*at, "operation"), "operation of the traffic", stream.operation, operations)
    if stream.sql or stream.http:
        if not stream.component:
            document.problem(at, "'on' is missing", "component/database for sql, component for http")
        elif topology is not None:
            check_place(document, (*at, "on"), stream, topology)
    elif stream.component:
        document.problem((*at, "on"), f"`on` has no meaning for a stream of {sources[0]}")
    if stream.topic and topology is not None:
        known(document, (*at, "topic"), "topic", stream.topic, topics_of(topology))
