"""What a topology must fulfil beyond its structure: names that exist, files that exist, numbers that fit together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from envctl import plugins
from envctl.errors import Problem, SpecError
from envctl.model.topology import AnyComponent, Image, Job, Kafka, Postgres, Service, Topology
from envctl.spec.document import Document, Location, did_you_mean
from envctl.spec.examples import load_examples
from envctl.spec.manifests import check_one_namespace
from envctl.spec.names import nodes_of


class Engine(Protocol):
    """What is asked of the plug-in for a component's kind."""

    def endpoints(self, component: AnyComponent) -> Mapping[str, str]:
        """Endpoint name → address."""


HELPERS = ("telemetry",)  # what runs beside the nodes of every environment, and is a unit of it like them
_FORMS = {"source": "files of the host", "image": "an image", "manifests": "manifests"}
_ADD_SOURCE = "add `source: DIRECTORY` and `command: [PROGRAM, …]`, or choose another substrate"
_ADD_IMAGE = "add `image: REFERENCE` or `image: {context: DIRECTORY}`, or choose another substrate"
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}")  # `$${` is a literal `${`


@dataclass(frozen=True, slots=True)
class _Checked:
    """What is being checked.

    `names` are those of all components in the file: an entry with a broken structure is missing in the topology, but naming
    it is no mistake of those who do.
    """

    document: Document
    topology: Topology
    names: frozenset[str]


def check_topology(document: Document, topology: Topology, *, files: bool) -> None:
    """Notes every broken rule in the document."""
    names = frozenset(str(at[1]) for at in document.lines if len(at) == 2 and at[0] == "components")
    checked = _Checked(document, topology, names)
    for name, component in topology.components.items():
        _check_names(checked, component)
        if isinstance(component, Service):
            _check_service(checked, component)
        if isinstance(component, Kafka):
            _check_topics(document, component)
        if isinstance(component, Postgres) and files:
            _check_migrations(document, topology, component)
        if isinstance(component, Service | Job):
            _check_forms(document, ("components", name), component)
        if isinstance(component, Service | Job) and files:
            _check_files(document, topology, ("components", name), component)
    _check_cycles(document, topology)
    _check_topic_owners(document, topology)
    _check_own_names(checked)
    check_one_namespace(document, topology)


def _check_own_names(checked: _Checked) -> None:
    """A name must mean one thing: it is looked up, and picked by a fault, as a component's and as a node's alike."""
    taken = {node: f"a node of {owner}" for node, owner in nodes_of(checked.topology).items()}
    taken |= dict.fromkeys(HELPERS, "a part of every environment")
    for name in sorted(checked.names & taken.keys()):
        checked.document.problem(("components", name), f"{name} is the name of {taken[name]}", "give the component another name")


def _check_names(checked: _Checked, component: AnyComponent) -> None:
    document, topology, names = checked.document, checked.topology, checked.names
    at: Location = ("components", component.name)
    for index, need in enumerate(component.needs):
        if need not in names:
            document.problem((*at, "needs", index), f"no component is called {need!r}", did_you_mean(need, names))
    for index, zone in enumerate(component.zones):
        if zone not in topology.zones:
            document.problem((*at, "zones", index), f"no zone is called {zone!r}", did_you_mean(zone, topology.zones))
    for variable, value in component.env.items():
        for reference in _references(value):
            _check_reference(checked, component, (*at, "env", variable), reference)


def _references(text: str) -> list[str]:
    return [match[1] for match in _REFERENCE.finditer(text) if match[1] is not None]


def _check_reference(checked: _Checked, component: AnyComponent, at: Location, reference: str) -> None:
    document, topology, names = checked.document, checked.topology, checked.names
    target, _, rest = reference.partition(".")
    reachable = (*component.needs, *(component.calls if isinstance(component, Service) else ()), component.name)
    if target not in names:
        document.problem(at, f"${{{reference}}} refers to an unknown component {target!r}", did_you_mean(target, names))
    elif not rest:
        document.problem(at, f"${{{reference}}} names no endpoint", f"write ${{{target}.NAME}}, such as ${{{target}.url}}")
    elif target not in reachable and names.issuperset(reachable):  # a need that is misspelt is reported as such
        document.problem(at, f"${{{reference}}} refers to {target}, which is in neither `needs` nor `calls`", f"add {target} to `needs`")
    elif (owner := topology.components.get(target)) is not None:
        engine: Engine = plugins.load("envctl.engines", owner.kind)()
        known = engine.endpoints(owner)
        if rest not in known:
            document.problem(at, f"{target} has no endpoint {rest!r}", did_you_mean(rest, known))


def _check_service(checked: _Checked, service: Service) -> None:
    document, topology, names = checked.document, checked.topology, checked.names
    at: Location = ("components", service.name)
    for target, protocol in service.calls.items():
        _check_call(checked, (*at, "calls", target), target, protocol)
    for port, number in service.ports.items():
        first = next(name for name, other in service.ports.items() if other == number)
        if first != port:
            document.problem((*at, "ports", port), f"port {number} is {first!r} already", "give each port its own number")
    _check_ready(document, service)
    topics = {topic for kafka in topology.components.values() if isinstance(kafka, Kafka) for topic in kafka.topics}
    ghosts = names - set(topology.components)
    used: list[tuple[Location, str]] = [(("publishes", i), topic) for i, topic in enumerate(service.publishes)]
    used += [(("consumes", each.topic), each.topic) for each in service.consumes]
    for where, topic in used:
        if topic not in topics and not ghosts:
            document.problem((*at, *where), f"no kafka declares the topic {topic!r}", did_you_mean(topic, topics))


def _check_call(checked: _Checked, at: Location, target: str, protocol: str) -> None:
    document, topology, names = checked.document, checked.topology, checked.names
    if target not in names:
        document.problem(at, f"no component is called {target!r}", did_you_mean(target, names))
        return
    callee = topology.components.get(target)
    if callee is None:
        return
    if not isinstance(callee, Service):
        document.problem(at, f"{target} is a {callee.kind}, not a service", "name it in `needs` instead")
    elif protocol != "tcp" and protocol not in callee.ports:
        document.problem(at, f"{target} is called over {protocol}, but has no port of that name", f"add `{protocol}:` to its `ports`")


def _check_ready(document: Document, service: Service) -> None:
    at: Location = ("components", service.name, "ready")
    raw = document.data["components"][service.name].get("ready")
    if raw is None:
        return
    kinds = [word for word in ("http", "grpc", "tcp", "exec", "log") if word in raw]
    if len(kinds) != 1:
        document.problem(at, f"found {len(kinds)} probes, allowed: one of http, grpc, tcp, exec or log")
    elif service.ready and service.ready.kind in ("http", "grpc", "tcp") and service.ready.port not in service.ports.values():
        port = raw.get("port", raw["tcp"] if kinds == ["tcp"] else kinds[0])
        document.problem(at, f"the probe's port {port!r} is not among the service's ports", did_you_mean(str(port), service.ports))
    elif kinds == ["log"]:
        _check_pattern(document, (*at, "log"), raw["log"])


def _check_pattern(document: Document, at: Location, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        document.problem(at, f"found {pattern!r}, which is not a regular expression: {error}")


def _check_topics(document: Document, kafka: Kafka) -> None:
    for topic in kafka.topics.values():
        at: Location = ("components", kafka.name, "topics", topic.name)
        replication = topic.replication or min(3, kafka.brokers)
        if replication > kafka.brokers:
            message = f"{replication} replicas need as many brokers, {kafka.name} has {kafka.brokers}"
            document.problem((*at, "replication"), message, f"allowed: 1 to {kafka.brokers}")
        elif topic.min_isr > replication:
            message = f"{topic.min_isr} in-sync replicas can't be had of {replication}"
            document.problem((*at, "min_isr"), message, f"allowed: 1 to {replication}")


def _check_topic_owners(document: Document, topology: Topology) -> None:
    owners: dict[str, str] = {}
    for kafka in topology.components.values():
        for topic in kafka.topics if isinstance(kafka, Kafka) else ():
            if owners.setdefault(topic, kafka.name) != kafka.name:
                at = ("components", kafka.name, "topics", topic)
                document.problem(at, f"{owners[topic]} declares this topic already", "topics are known by their name alone")


def _check_migrations(document: Document, topology: Topology, postgres: Postgres) -> None:
    at = ("components", postgres.name, "migrations")
    if not postgres.migrations:
        return
    directories = {postgres.migrations.replace("{database}", database) for database in postgres.databases}
    for directory in sorted(directories):
        if not (topology.directory / directory).is_dir():
            document.problem(at, f"no directory {directory!r}", f"looked in {topology.directory}")


def _check_files(document: Document, topology: Topology, at: Location, component: Service | Job) -> None:
    source = component.source
    if source and source.kind == "tree":
        _check_path(document, topology, (*at, "source"), source.path, kind="directory")
    elif source and source.kind == "artifact":
        _check_path(document, topology, (*at, "source"), source.path)
    if component.image:
        _check_image_files(document, topology, (*at, "image"), component.image)
    for index, path in enumerate(component.manifests.files if component.manifests else ()):
        _check_path(document, topology, (*at, "manifests", "files", index), path, kind="file")
    for index, path in enumerate(component.paths):
        _check_path(document, topology, (*at, "paths", index), path)
    for index, path in enumerate(component.build.inputs if component.build else ()):
        _check_path(document, topology, (*at, "build", "inputs", index), path)
    if isinstance(component, Service) and component.stub:
        _check_path(document, topology, (*at, "stub"), component.stub)
        if (file := topology.directory / component.stub).is_file():
            _check_examples(document, file)


def _check_forms(document: Document, at: Location, component: Service | Job) -> None:
    if component.image:
        _check_image(document, (*at, "image"), component.image)
        if component.manifests and component.manifests.container in component.manifests.images:
            where = (*at, "manifests", "images", component.manifests.container)
            document.problem(where, "`image` says it already", "leave it in one of them")


def _check_image(document: Document, at: Location, image: Image) -> None:
    if bool(image.reference) == bool(image.context):
        found = "both `reference` and `context`" if image.reference else "neither `reference` nor `context`"
        document.problem(at, f"found {found}, allowed: one of them", "an image is named, or built from a directory")
    elif image.reference:
        for word in ("dockerfile", "target", "args", "inputs"):
            if getattr(image, word):
                document.problem((*at, word), "only an image that is built from a `context` has it", "the image is named by `reference`")
    for directory in image.volumes:
        if directory in image.files:
            document.problem((*at, "files", directory), f"{directory} is a volume too", "leave it in one of them")


def _check_image_files(document: Document, topology: Topology, at: Location, image: Image) -> None:
    if image.context:
        _check_path(document, topology, (*at, "context"), image.context, kind="directory")
        dockerfile = image.dockerfile or "Dockerfile"
        if (topology.directory / image.context).is_dir() and not (topology.directory / image.context / dockerfile).is_file():
            hint = "name it by `dockerfile`" if not image.dockerfile else "it is relative to the context"
            document.problem((*at, "dockerfile"), f"no file {dockerfile!r} in {topology.directory / image.context}", hint)
        for index, path in enumerate(image.inputs):
            _check_path(document, topology, (*at, "inputs", index), f"{image.context}/{path}")
    for inside, path in image.files.items():
        _check_path(document, topology, (*at, "files", inside), path)


def _check_examples(document: Document, file: Path) -> None:
    try:
        load_examples(file)
    except SpecError as error:
        document.problems += error.problems


def _check_path(document: Document, topology: Topology, at: Location, path: str, *, kind: str = "file or directory") -> None:
    target = topology.directory / path
    if not {"directory": target.is_dir, "file": target.is_file}.get(kind, target.exists)():
        near = [entry.name for entry in target.parent.iterdir()] if target.parent.is_dir() else []
        document.problem(at, f"no {kind} {path!r} in {topology.directory}", did_you_mean(target.name, near) if near else "")


def _check_cycles(document: Document, topology: Topology) -> None:
    graph = {name: [need for need in component.needs if need in topology.components] for name, component in topology.components.items()}
    cycle = find_cycle(graph)
    if cycle:
        where = ("components", cycle[0], "needs", topology.components[cycle[0]].needs.index(cycle[1]))
        document.problem(where, f"needs go round in a circle: {' → '.join(cycle)}", "what is used at run time only belongs in `calls`")


def unpackaged(
    topology: Topology, names: Iterable[str], packaging: Literal["files", "images"], *, manifests: bool = False
) -> tuple[Problem, ...]:
    """The components of these names that lack the form from which a substrate of that packaging makes nodes; what to add.

    Engines have both: without `image` a substrate takes its own.  `manifests`: whether it runs what is made of those too.
    """
    missing, hint = ("source", _ADD_SOURCE) if packaging == "files" else ("image", _ADD_IMAGE)
    programs = [each for each in map(topology.components.__getitem__, names) if isinstance(each, Service | Job)]
    return tuple(
        Problem(topology.file, each.line, f"components.{each.name}.{missing}", f"{each.name} is made of {_forms(each)} only", hint)
        for each in programs
        if not (getattr(each, missing) or (manifests and each.manifests))
    )


def _forms(component: Service | Job) -> str:
    return " and ".join(word for form, word in _FORMS.items() if getattr(component, form))


def find_cycle(graph: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """The first cycle in a graph, its start repeated at its end; empty when there is none."""
    done: Counter[str] = Counter()  # 1: on the path, 2: finished
    path: list[str] = []

    def visit(name: str) -> tuple[str, ...]:
        if done[name] == 1:
            return (*path[path.index(name):], name)
        if done[name] == 2:
            return ()
        done[name] = 1
        path.append(name)
        found = next((cycle for after in graph[name] if (cycle := visit(after))), ())
        path.pop()
        done[name] = 2
        return found

    return next((cycle for name in graph if (cycle := visit(name))), ())
