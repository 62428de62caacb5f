"""`topology.yaml` → Topology."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envctl.model.topology import (
    AnyComponent,
    Build,
    Job,
    Kafka,
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
from envctl.spec.structure import open_document, recorded
from envctl.spec.topology_rules import check_topology
from envctl.spec.units import duration_s, size_bytes


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
    components = {name: _component(document, name, raw) for name, raw in data["components"].items()}
    return Topology(data["name"], document.file, tuple(data.get("zones", ("a",))), components)


def _component(document: Document, name: str, raw: Mapping[str, Any]) -> AnyComponent:
    common: dict[str, Any] = {
        "name": name,
        "line": document.line("components", name),
        "needs": tuple(raw.get("needs", ())),
        "resources": _resources(raw.get("resources", {})),
        "zones": tuple(raw.get("zones", ())),
        "env": _texts(document, name, "env"),
    }
    if raw["kind"] == "service":
        return _service(raw, common)
    if raw["kind"] == "job":
        return Job(**common, **_program(raw))
    common["version"] = document.texts["components", name, "version"]
    if raw["kind"] == "kafka":
        topics = {topic: _topic(document, name, topic, options or {}) for topic, options in raw.get("topics", {}).items()}
        return Kafka(**common, brokers=raw.get("brokers", 1), topics=topics)
    common["settings"] = _texts(document, name, "settings")
    if raw["kind"] == "redis":
        return Redis(**common)
    return Postgres(
        **common, standbys=raw.get("standbys", 0), databases=tuple(raw.get("databases", ())), migrations=raw.get("migrations", "")
    )


def _texts(document: Document, *at: str) -> dict[str, str]:
    """A mapping's scalars as they are written (`1.10` stays `1.10`)."""
    here = ("components", *at)
    return {str(where[-1]): text for where, text in document.texts.items() if where[:-1] == here}


def _resources(raw: Mapping[str, Any]) -> Resources:
    return Resources(raw.get("cpus"), size_bytes(raw["memory"]) if "memory" in raw else None)


def _program(raw: Mapping[str, Any]) -> dict[str, Any]:
    build = raw.get("build")
    return {
        "source": _source(raw["source"]),
        "command": tuple(raw["command"]),
        "build": Build(tuple(build["command"]), tuple(build.get("inputs", ()))) if build else None,
        "paths": tuple(raw.get("paths", ())),
    }


def _source(raw: str | Mapping[str, str]) -> Source:
    if isinstance(raw, str):
        return Source("tree", raw)
    if "git" in raw:
        return Source("git", raw["path"], ref=raw["git"])
    return Source("artifact", raw["artifact"], sha256=raw["sha256"])


def _service(raw: Mapping[str, Any], common: dict[str, Any]) -> Service:
    return Service(
        **common,
        **_program(raw),
        replicas=raw.get("replicas", 1),
        calls=dict(raw.get("calls", {})),
        publishes=tuple(raw.get("publishes", ())),
        consumes=tuple(Subscription(topic, options["group"]) for topic, options in raw.get("consumes", {}).items()),
        ports=dict(raw.get("ports", {})),
        ready=_probe(raw["ready"], raw.get("ports", {})) if "ready" in raw else None,
        stub=raw.get("stub", ""),
        stop_grace_s=duration_s(raw["stop_grace"]) if "stop_grace" in raw else 5.0,
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
