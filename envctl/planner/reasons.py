"""Why a component is in: because it changed, because a scenario names it, because others can't do without it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from envctl import plugins
from envctl.model.scenario import Scenario
from envctl.model.topology import AnyComponent, Job, Kafka, Postgres, Redis, Service, Topology
from envctl.planner.changes import Changes
from envctl.planner.identity import configuration
from envctl.spec.conditions import subject_of
from envctl.spec.contexts import context_of
from envctl.spec.names import groups_of, nodes_of, topics_of

Reason = tuple[str, str]
"""(component, because)"""


Claim = tuple[str, Callable[[PurePosixPath], bool]]
"""A path (relative to the stack directory), and which of the files there count."""


def claims(topology: Topology, component: AnyComponent) -> Iterator[Claim]:
    """Paths whose change is a change of the component."""
    if isinstance(component, Postgres):
        yield from ((component.migrations.replace("{database}", each), _all) for each in component.databases if component.migrations)
    if not isinstance(component, Service | Job):
        return
    if component.source and component.source.kind != "git":
        yield component.source.path, _all
    inputs = component.build.inputs if component.build else ()
    stub = (component.stub,) if isinstance(component, Service) and component.stub else ()
    manifests = component.manifests.files if component.manifests else ()
    yield from ((path, _all) for path in (*component.paths, *inputs, *stub, *manifests))
    if image := component.image:
        yield from ((path, _all) for path in image.files.values())
        if image.context:
            context = context_of(topology.directory, image)
            yield image.context, context.sees
            yield f"{image.context}/{context.dockerfile}", _all


def _all(_: PurePosixPath) -> bool:
    return True


def changed_sources(topology: Topology, root: Path, files: Iterable[PurePosixPath]) -> tuple[list[Reason], list[PurePosixPath]]:
    """(component, file) for every changed file that a component claims, and the files of the stack that nobody does."""
    stack = PurePosixPath(os.path.relpath(topology.directory, root))
    claimed = [
        (name, PurePosixPath(os.path.normpath(stack / path)), counts)
        for name, component in topology.components.items()
        for path, counts in claims(topology, component)
    ]
    reasons, unclaimed = [], []
    for file in files:
        near = [(name, counts(file.relative_to(path))) for name, path, counts in claimed if file.is_relative_to(path)]
        owners = [name for name, counts in near if counts]
        reasons += [(name, str(file)) for name in dict.fromkeys(owners)]
        if not near and file.is_relative_to(stack) and file != stack / topology.file.name:
            unclaimed.append(file)
    return reasons, unclaimed


def changed_configuration(topology: Topology, changes: Changes) -> list[Reason]:
    """(component, field) for every difference to the base's topology."""
    if changes.topology is None:
        return []
    base, name = changes.topology, topology.file.name
    reasons = []
    for component in topology.components.values():
        before = base.components.get(component.name)
        if before is None:
            reasons.append((component.name, f"{name}: new"))
            continue
        old, new = configuration(before, base.zones), configuration(component, topology.zones)
        reasons += [(component.name, f"{name}: {field}") for field in _differing(old, new)]
    return reasons


def _differing(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    for field in sorted(name for name in {*old, *new} if old.get(name) != new.get(name)):
        before, after = old.get(field), new.get(field)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from (f"{field}.{key}" for key in sorted({*before, *after}) if before.get(key) != after.get(key))
        else:
            yield field


def fed_by_changes(topology: Topology, changed: Iterable[Reason]) -> list[Reason]:
    """(component, because) for those that directly receive what a changed component does (see ADR 1).

    Consumers of a changed service's topics; users of a migrated database; whoever needs an engine whose configuration
    changed (of a Kafka whose topics alone changed: the users of these topics).
    """
    reasons: list[Reason] = []
    for name, because in changed:
        component = topology.components[name]
        if isinstance(component, Service):
            reasons += _consumers(topology, component)
        elif isinstance(component, Postgres) and not because.startswith(f"{topology.file.name}: "):
            reasons += _users_of_database(topology, component, because)
        elif isinstance(component, Kafka) and (topic := _changed_topic(topology, because)) is not None:
            reasons += [(user, f"{name} (topic {topic} changed)") for user in _users_of_topic(topology, topic)]
        elif isinstance(component, Postgres | Kafka | Redis):
            reasons += [(other.name, f"{name} (changed)") for other in topology.components.values() if name in other.needs]
    return reasons


def _changed_topic(topology: Topology, because: str) -> str | None:
    field = because.removeprefix(f"{topology.file.name}: ")
    return field.removeprefix("topics.") if field.startswith("topics.") else None


def _users_of_topic(topology: Topology, topic: str) -> list[str]:
    services = [component for component in topology.components.values() if isinstance(component, Service)]
    return [each.name for each in services if topic in each.publishes or topic in (one.topic for one in each.consumes)]


def _consumers(topology: Topology, publisher: Service) -> list[Reason]:
    return [
        (other.name, f"{publisher.name} (publishes {each.topic})")
        for other in topology.components.values()
        if isinstance(other, Service) and other.name != publisher.name
        for each in other.consumes
        if each.topic in publisher.publishes
    ]


def _users_of_database(topology: Topology, postgres: Postgres, file: str) -> list[Reason]:
    migrated = [
        database
        for database in postgres.databases
        if f"/{postgres.migrations.replace('{database}', database)}/" in f"/{file}"
    ]
    return [
        (other.name, f"{postgres.name} (migrates {database})")
        for database in migrated
        for other in topology.components.values()
        if any(f"${{{postgres.name}.{database}." in value for value in other.env.values())
    ]


def scenario_names(topology: Topology, scenario: Scenario) -> list[Reason]:
    """(component, because) for every component that a scenario names, directly or by a topic or consumer group."""
    groups, topics, owners = groups_of(topology), topics_of(topology), nodes_of(topology)
    named: list[Reason] = [(name, "takes") for name in scenario.takes]
    receivers = (scenario.traffic.to, *scenario.traffic.receivers)
    named += [(name, "traffic") for name in receivers if name and name not in scenario.stubs]
    for stream in scenario.streams.values():
        named += [(stream.component or topics.get(stream.topic, ""), f"observe {stream.name}")]
    for condition in scenario.conditions:
        name = condition.subject
        subjects = {"group": groups.get(name, ()), "topic": (topics.get(name, ""),), "component": (owners.get(name, name),), "postgres": (owners.get(name, name),)}
        named += [(each, f"{condition.measure}({name})") for each in subjects.get(subject_of(condition), ())]
    named += [(owners.get(measure.component, measure.component), f"measure {measure.name}") for measure in scenario.measures.values()]
    for what, name, because in _plugin_names(topology, scenario):
        named += [(each, because) for each in (groups.get(name, ()) if what == "group" else (name,))]
    return [(name, f"{scenario.name} ({because})") for name, because in named if name in topology.components]


def _plugin_names(topology: Topology, scenario: Scenario) -> Iterator[tuple[str, str, str]]:
    """(kind, name, because) of what faults and checks refer to; nodes count as their components, topics as the Kafka that has them."""
    owners = nodes_of(topology) | topics_of(topology)
    for fault in scenario.faults:
        for parameter, name in plugins.load("envctl.faults", fault.fault).references(fault.params):
            if parameter in ("zone", "stub"):
                continue  # whatever of the subset is there; what a stub answers for must not run
            yield ("group" if parameter == "group" else "component"), owners.get(name, name), f"fault {fault.id}"
    for spec in scenario.checks:
        for what, name in plugins.load("envctl.checks", spec.check).references(spec.params):
            if what in ("group", "component"):
                yield what, name, f"check {spec.id}"


def requirements(topology: Topology, component: AnyComponent) -> Iterator[Reason]:
    """(component, because) for what a component can't do without: its needs, its callees, the Kafka of its topics."""
    yield from ((need, f"{component.name} (needs)") for need in component.needs)
    if not isinstance(component, Service):
        return
    yield from ((callee, f"{component.name} (calls, {protocol})") for callee, protocol in component.calls.items())
    topics = topics_of(topology)
    used = (*component.publishes, *(each.topic for each in component.consumes))
    yield from ((topics[topic], f"{component.name} (uses {topic})") for topic in used if topics.get(topic) not in component.needs)
