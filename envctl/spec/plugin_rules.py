"""Faults and checks of a scenario against their plug-ins: known names, valid parameters, references that lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from envctl import plugins
from envctl.model.scenario import FaultSpec, Scenario
from envctl.model.topology import Service, Topology
from envctl.spec.document import Document, Location, did_you_mean
from envctl.spec.names import groups_of, known, node_count, nodes_of, topics_of
from envctl.spec.structure import check
from envctl.spec.timeline import written
from envctl.spec.timeline_rules import ids_in_file

LABELS = {"topic": "observed topic", "group": "consumer group", "operation": "operation of the traffic", "fault": "fault of the timeline",
          "observation": "observed stream that is none of operations"}
_PERCENTAGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


def _plugin(document: Document, at: Location, group: str, name: str) -> Any:
    """The plug-in's class, or None (noted) when there is none of that name."""
    if name in plugins.names(group):
        return plugins.load(group, name)
    document.problem(at, f"no {group.removeprefix('envctl.').rstrip('s')} is called {name!r}", did_you_mean(name, plugins.names(group)))
    return None


def check_faults(document: Document, scenario: Scenario, topology: Topology | None) -> None:
    """Each fault's name and parameters."""
    for fault in written(document):
        at = fault.place
        kind = _plugin(document, (*at, "fault"), "envctl.faults", fault.fault)
        if kind is None or check(document, dict(fault.params), kind.schema, at):
            continue
        if not _check_percentages(document, at, fault.params):
            for parameter, problem in kind.impossible(fault.params) if hasattr(kind, "impossible") else ():
                document.problem((*at, parameter), f"`{parameter}` {problem}")
        if topology is not None:
            for parameter, name in kind.references(fault.params):
                if parameter != "stub":
                    _check_target(document, (*at, parameter), parameter, name, topology)
                elif name not in scenario.stubs:
                    document.problem((*at, parameter), f"{name!r} is not among `stubs`", did_you_mean(name, scenario.stubs) or "add it there")
            for parameter, message, hint in kind.unfit(fault.params, topology) if hasattr(kind, "unfit") else ():
                document.problem((*at, parameter), message, hint)
            if "pick" in kind.schema.get("properties", {}):
                _check_blast(document, at, fault, scenario.limits.max_nodes, topology)


def check_checks(document: Document, scenario: Scenario, topology: Topology | None, operations: tuple[str, ...] = ()) -> None:
    """Each check's name and parameters; `operations` are those of the traffic, where they are known."""
    streams = document.data.get("observe", {}) | dict.fromkeys(at[1] for at in document.lines if at[:1] == ("observe",) and len(at) == 2)
    ids = [fault.id for fault in scenario.faults]
    names: dict[str, Any] = {"stream": streams, "fault": ids_in_file(document, ids) if None in document.data.get("faults", ()) else ids}
    operations_of = {stream.name for stream in scenario.streams.values() if stream.operation}
    names["observation"] = [name for name in streams if name not in operations_of]
    names["topic"] = {stream.topic for stream in scenario.streams.values() if stream.topic}
    if operations:
        names |= {"operation": operations}
    if topology is not None:
        subscriptions = [f"{each.group} of {each.topic}" for one in topology.components.values() if isinstance(one, Service) for each in one.consumes]
        names |= {"group": groups_of(topology), "component": topology.components, "subscription": subscriptions}
    for index, spec in located(document, "checks", scenario.checks):
        at: Location = ("checks", index, spec.check)
        kind = _plugin(document, at, "envctl.checks", spec.check)
        if kind is None or check(document, dict(spec.params), kind.schema, at):
            continue
        _check_percentages(document, at, spec.params)
        for what, name in kind.references(spec.params):
            if what in names:
                known(document, _where(at, spec.params, name), LABELS.get(what, what), name, names[what])
        for place, why in getattr(kind, "wrong", lambda _: ())(spec.params):
            document.problem((*at, *place), why)


def located(document: Document, field: str, specs: tuple[Any, ...]) -> list[tuple[int, Any]]:
    """The entries of a list with their indices in the file, which may hold broken entries too."""
    indices = [index for index, raw in enumerate(document.data.get(field, ())) if raw is not None]
    return list(zip(indices, specs, strict=True))


def _where(at: Location, params: Mapping[str, Any], name: str) -> Location:
    """The parameter that holds a name, for the line of a problem."""
    return next(((*at, key) for key, value in params.items() if value == name or name in _inside(value)), at)


def _inside(value: Any) -> Iterable[Any]:
    return (*value, *value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else ()


def _check_target(document: Document, at: Location, parameter: str, name: str, topology: Topology) -> None:
    if parameter == "group":
        known(document, at, "consumer group", name, groups_of(topology))
    elif parameter == "topic":
        known(document, at, "topic", name, topics_of(topology))
    elif parameter == "zone":
        known(document, at, "zone", name, topology.zones)
    elif name not in topology.components and name not in nodes_of(topology):
        document.problem(at, f"no component or node is called {name!r}", did_you_mean(name, topology.components))


def _check_percentages(document: Document, at: Location, params: Mapping[str, Any]) -> bool:
    """Whether one of them is impossible."""
    wrong = [name for name, value in params.items()
             if isinstance(value, str) and (found := _PERCENTAGE.fullmatch(value)) and float(found[1]) > 100]
    for name in wrong:
        document.problem((*at, name), f"found {params[name]!r}, allowed: 0 % to 100 %")
    return bool(wrong)


def _check_blast(document: Document, at: Location, fault: FaultSpec, limit: int | None, topology: Topology) -> None:
    """What a fault that picks nodes of a target will hit, as far as the file tells."""
    component = topology.components.get(str(fault.params.get("target")))
    if component is None:
        return
    count, picked = node_count(component), int(fault.params.get("pick", node_count(component)))
    if picked > count:
        document.problem((*at, "pick"), f"{picked} nodes can't be picked, {component.name} has {count}", f"allowed: 1 to {count}")
    elif limit is not None and picked > limit:
        document.problem((*at, "target"), f"hits {picked} nodes, limits.max_nodes allows {limit}", f"add `pick: {limit}`")
