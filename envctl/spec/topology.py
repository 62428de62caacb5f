"""`topology.yaml` → Topology."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envctl.model.topology import (
    AnyComponent,
    Build,
    Declared,
    Image,
    Job,
    Kafka,
    Manifests,
    Postgres,
    Probe,
    Redis,
    Resources,
    Service,
    Source,
    Subscription,
    Topic,
    Topology,
)
from envctl.spec.document import Document
from envctl.spec.manifests import read_manifests
from envctl.spec.structure import open_document, recorded
from envctl.spec.topology_rules import check_topology
from envctl.spec.units import duration_s, size_bytes

_UNLIMITED = Resources()
_PLAIN = Declared(stop_grace_s=5.0)  # of a service without manifests


def load_topology(file: Path, *, files: bool = True, text: str | None = None) -> Topology:
    """Reads and checks a topology.  Raises SpecError with every problem at once.

    `files` False leaves out whether the named source directories and files exist, for a topology of another commit; so it is
    with the copy that a run keeps.  `text` is read in place of the file's content.
    """
    document = open_document(file, "topology", units=("components",), text=text)
    topology = _topology(document)
    check_topology(document, topology, files=files and not recorded(file))
    document.raise_problems()
    return topology


def _topology(document: Document) -> Topology:
    data = document.data
    manifests = read_manifests(document)
    components = {name: _component(document, name, raw, manifests.get(name)) for name, raw in data["components"].items()}
    return Topology(data["name"], document.file, tuple(data.get("zones", ("a",))), components)


def _component(document: Document, name: str, raw: Mapping[str, Any], manifests: Manifests | None) -> AnyComponent:
    common: dict[str, Any] = {
        "name": name,
        "line": document.line("components", name),
        "needs": tuple(raw.get("needs", ())),
        "resources": _resources(raw.get("resources", {})),
        "zones": tuple(raw.get("zones", ())),
        "env": _texts(document, name, "env"),
    }
    if raw["kind"] in ("service", "job"):
        common |= {**_program(document, name, raw), "manifests": manifests}
        common["resources"] = _resources(raw.get("resources", {}), manifests.declared.resources if manifests else Resources())
        return _service(raw, common) if raw["kind"] == "service" else Job(**common)
    common["version"] = document.texts["components", name, "version"]
    common["image"] = raw.get("image", "")
    common["settings"] = _texts(document, name, "settings")
    if raw["kind"] == "kafka":
        topics = {topic: _topic(document, name, topic, options or {}) for topic, options in raw.get("topics", {}).items()}
        return Kafka(**common, brokers=raw.get("brokers", 1), topics=topics)
    if raw["kind"] == "redis":
        return Redis(**common)
    return Postgres(
        **common, standbys=raw.get("standbys", 0), databases=tuple(raw.get("databases", ())), migrations=raw.get("migrations", "")
    )


def _texts(document: Document, *at: str) -> dict[str, str]:
    """A mapping's scalars as they are written (`1.10` stays `1.10`)."""
    here = ("components", *at)
    return {str(where[-1]): text for where, text in document.texts.items() if where[:-1] == here}


def _resources(raw: Mapping[str, Any], declared: Resources = _UNLIMITED) -> Resources:
    return Resources(raw.get("cpus", declared.cpus), size_bytes(raw["memory"]) if "memory" in raw else declared.memory_bytes)


def _program(document: Document, name: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    build = raw.get("build")
    return {
        "source": _source(raw["source"]) if "source" in raw else None,
        "command": tuple(raw.get("command", ())),
        "build": Build(tuple(build["command"]), tuple(build.get("inputs", ()))) if build else None,
        "image": _image(document, name, raw["image"]) if "image" in raw else None,
        "paths": tuple(raw.get("paths", ())),
    }


def _source(raw: str | Mapping[str, str]) -> Source:
    if isinstance(raw, str):
        return Source("tree", raw)
    if "git" in raw:
        return Source("git", raw["path"], ref=raw["git"])
    return Source("artifact", raw["artifact"], sha256=raw["sha256"])


def _image(document: Document, name: str, raw: str | Mapping[str, Any]) -> Image:
    if isinstance(raw, str):
        return Image(raw)
    given: dict[str, Any] = {word: raw.get(word, "") for word in ("reference", "context", "dockerfile", "target", "working_dir")}
    given |= {word: tuple(raw.get(word, ())) for word in ("command", "entrypoint", "volumes", "inputs")}
    user = document.texts.get(("components", name, "image", "user"), "")
    return Image(**given, user=user, args=_texts(document, name, "image", "args"), files=dict(raw.get("files", {})))


def _service(raw: Mapping[str, Any], common: dict[str, Any]) -> Service:
    """The service; what it doesn't say itself is as its manifests declare it."""
    declared = common["manifests"].declared if common["manifests"] else _PLAIN
    own = raw.get("ports", {})
    ports = {**{name: port for name, port in declared.ports.items() if name not in own and port not in own.values()}, **own}
    return Service(
        **common,
        replicas=raw.get("replicas", declared.replicas),
        calls=dict(raw.get("calls", {})),
        publishes=tuple(raw.get("publishes", ())),
        consumes=tuple(Subscription(topic, options["group"]) for topic, options in raw.get("consumes", {}).items()),
        ports=ports,
        ready=_probe(raw["ready"], ports) if "ready" in raw else declared.ready,
        stub=raw.get("stub", ""),
        stop_grace_s=duration_s(raw["stop_grace"]) if "stop_grace" in raw else declared.stop_grace_s,
    )


def _probe(raw: Mapping[str, Any], ports: Mapping[str, int]) -> Probe | None:
    """The probe; its port is 0 where the named one does not exist (the rules report that)."""
    kind = next((word for word in ("http", "grpc", "tcp", "exec", "log") if word in raw), None)
    healthy_for_s = duration_s(raw["healthy_for"]) if "healthy_for" in raw else 0.0
    if kind == "exec":
        return Probe("exec", command=tuple(raw["exec"]), healthy_for_s=healthy_for_s)
    if kind == "log":
        return Probe("log", target=raw["log"], healthy_for_s=healthy_for_s)
    if kind == "tcp":
        return Probe("tcp", _port(raw["tcp"], ports), healthy_for_s=healthy_for_s)
    if kind is None:
        return None
    only = next(iter(ports)) if len(ports) == 1 else kind
    return Probe("http" if kind == "http" else "grpc", _port(raw.get("port", only), ports), raw[kind], healthy_for_s=healthy_for_s)


def _port(port: str | int, ports: Mapping[str, int]) -> int:
    return ports.get(port, 0) if isinstance(port, str) else port


def _topic(document: Document, kafka: str, name: str, raw: Mapping[str, Any]) -> Topic:
    config = _texts(document, kafka, "topics", name, "config")
    return Topic(name, raw.get("partitions", 1), raw.get("replication", 0), raw.get("min_isr", 0), config)
