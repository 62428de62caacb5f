"""Conditions of a scenario and the measures that it declares: names that exist, units and times that make sense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from envctl.model.scenario import Condition, Measure, Scenario, Stream
from envctl.model.topology import Postgres, Service, Topology
from envctl.spec.conditions import conditions, quantity_of, subject_of
from envctl.spec.document import Document, Location, did_you_mean
from envctl.spec.names import groups_of, known, nodes_of, owner_of, topics_of
from envctl.spec.timeline import entries
from envctl.spec.units import duration_s

LEAST_EVERY_S = 0.2  # a measure that is asked more often than this would be a load of its own


def check_conditions(document: Document, scenario: Scenario, operations: Sequence[str], topology: Topology | None) -> None:
    """Every condition, wherever it stands."""
    for at, may_last in _places(document):
        for condition in conditions(document, at, _at(document, at), note=True):
            here = (*at, _index(_at(document, at), condition.text))
            _check_subject(document, here, condition, scenario, operations, topology)
            if condition.hold_s and not may_last:
                document.problem(here, f"`for` has no meaning in a {at[-1]} condition", "leave it out; only `stop` conditions hold for a time, and what `detect` names")
    _check_times(document)


def _places(document: Document) -> Iterator[tuple[Location, bool]]:
    """Where lists of conditions stand, and whether theirs may have to hold for a time."""
    yield from ((("steady",), False), (("stop",), True), (("during",), False), (("detect", "by"), True))
    for at, _ in entries(document):
        yield from (((*at, "during"), False), ((*at, "detect", "by"), True))


def _at(document: Document, at: Location) -> list[str | None]:
    value = document.data
    for step in at:
        value = value.get(step, {}) if isinstance(value, dict) else value[step]
    return value or []


def _index(texts: list[str | None], text: str) -> int:
    return next(index for index, each in enumerate(texts) if each is not None and each.strip() == text)


def _check_subject(
    document: Document, at: Location, condition: Condition, scenario: Scenario, operations: Sequence[str], topology: Topology | None
) -> None:
    what, name = subject_of(condition), condition.subject
    if what == "traffic":
        if name != "traffic" and operations:
            known(document, at, "operation of the traffic", name, ("traffic", *operations))
    elif what == "measure":
        _check_value(document, at, condition, scenario)
    elif topology is None:
        return
    elif what in ("group", "topic"):
        known(document, at, "consumer group" if what == "group" else "topic", name, groups_of(topology) if what == "group" else topics_of(topology))
    elif known(document, at, "component or node", name, (*topology.components, *nodes_of(topology))) and what == "postgres":
        component = owner_of(topology, name)
        if component is not None and not isinstance(component, Postgres):
            document.problem(at, f"{component.name} is a {component.kind}, a postgres is needed here")


def _check_value(document: Document, at: Location, condition: Condition, scenario: Scenario) -> None:
    if not known(document, at, "measure among `measures`", condition.subject, scenario.measures):
        return
    measure, quantity = scenario.measures[condition.subject], quantity_of(condition)
    if measure.take == "latency" and quantity != "time":
        document.problem(at, f"{measure.name} is a time, compared without its unit", "add ms, s or m")
    elif measure.take in ("response.status", "status") and quantity != "count":
        document.problem(at, f"{measure.name} is a status, compared with a unit", "leave the unit out")


def check_measures(document: Document, scenario: Scenario, topology: Topology | None) -> None:
    """Every declared measure: one source, a place that fits it, a cost that is bounded."""
    for measure in scenario.measures.values():
        at: Location = ("measures", measure.name)
        sources = [name for name in ("sql", "http", "command") if getattr(measure, name)]
        if len(sources) != 1:
            document.problem(at, f"found {' and '.join(sources) or 'no source'}, allowed: one of sql, http or command")
            continue
        _check_take(document, at, measure)
        if measure.every_s < LEAST_EVERY_S:
            document.problem((*at, "every"), f"is asked every {measure.every_s:g} s, allowed: {LEAST_EVERY_S:g} s or more")
        if not 0 < measure.timeout_s <= measure.every_s:
            document.problem((*at, "timeout"), f"waits {measure.timeout_s:g} s, is asked every {measure.every_s:g} s", "wait for more than 0, and no longer than `every`")
        if topology is not None:
            check_place(document, (*at, "on"), measure, topology)


def _check_take(document: Document, at: Location, measure: Measure) -> None:
    allowed = {"sql": "nothing: the only value of the only row is taken", "http": "response.status, response.FIELD or latency", "command": "stdout or status"}
    fits = measure.take in (("stdout", "status") if measure.command else ("",) if measure.sql else ("latency",))
    if not fits and not (measure.http and measure.take.startswith("response.")):
        document.problem((*at, "take"), f"found {measure.take!r}, allowed: {allowed['sql' if measure.sql else 'http' if measure.http else 'command']}")


def check_place(document: Document, at: Location, source: Stream | Measure, topology: Topology) -> None:
    """Where a stream or a measure is read: a database, a service, or (for a command) any component or node."""
    command = isinstance(source, Measure) and bool(source.command)
    names = (*topology.components, *nodes_of(topology)) if command else tuple(topology.components)
    if not known(document, at, "component or node" if command else "component", source.component, names) or command:
        return
    component = topology.components[source.component]
    if source.http:
        if not isinstance(component, Service):
            document.problem(at, f"{source.component} is a {component.kind}, a service is needed here")
    elif not isinstance(component, Postgres):
        document.problem(at, f"{source.component} is a {component.kind}, a postgres is needed here")
    elif source.database not in component.databases:
        near = [f"{component.name}/{database}" for database in component.databases]
        document.problem(at, f"{source.component} has no database {source.database!r}", did_you_mean(f"{source.component}/{source.database}", near))


def _check_times(document: Document) -> None:
    """Times of nothing: what lasts, waits or is allowed for no time at all is a mistake."""
    places: list[Location] = [("traffic", "for"), ("traffic", "timeout"), ("limits", "deadline"), ("recover", "within"), ("detect", "within"),
                              ("slo", "time_to_detect"), ("slo", "time_to_recover")]
    for at, _ in entries(document):
        places += [(*at, "for"), (*at, "recover", "within"), (*at, "detect", "within")]
    for at in places:
        text = document.texts.get(at)
        if text is not None and isinstance(found := _at(document, at), str) and duration_s(found) == 0:
            document.problem(at, f"found {text!r}, allowed: more than 0")
