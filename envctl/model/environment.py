"""A plan that has been brought up: nodes, endpoints, expiry; and what a node needs in order to start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from envctl.model.topology import Probe, Resources

Packaging = Literal["files", "images"]
"""What nodes are made of: programs and files of the host, or container images."""

NodeState = Literal["starting", "ready", "paused", "held", "backoff", "exited", "stopped"]


@dataclass(frozen=True, slots=True)
class Mount:
    """A host path shown inside a node, read-only unless `writable`."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class ImageBuild:
    """How an image is made: from a context on the host (all of it, or its `inputs`), up to a stage.

    `digest` is the content id of all that goes in.
    """

    context: Path
    inputs: tuple[str, ...]
    dockerfile: str
    target: str
    args: Mapping[str, str]
    digest: str


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """Everything a substrate needs to start one node; made by the engine of its component's kind.

    An empty `command` is the image's own.  `digest` decides whether a running node is kept or replaced.  `data` is a directory whose content, prepared before the
    start, becomes the node's writable `/data` (copied once, kept over restarts).
    """

    name: str  # component-index, a DNS label
    component: str
    kind: str
    zone: str
    command: tuple[str, ...]
    digest: str
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    mounts: tuple[Mount, ...] = ()
    data: Path | None = None
    disk_bytes: int = 0  # size of `/data`, where it is to be a file system of its own (in memory)
    ports: Mapping[str, int] = field(default_factory=dict)
    ready: Probe | None = None
    one_shot: bool = False  # a job: ready when it has exited 0
    stop_signal: str = "SIGTERM"
    stop_grace_s: float = 5.0
    resources: Resources = Resources()
    # Where nodes are containers:
    image: str = ""  # reference; of one that is built, the component's name
    build: ImageBuild | None = None
    entrypoint: tuple[str, ...] | None = None  # None: the image's own
    user: str = ""
    init: bool = False  # whether a tiny init is its first process
    volumes: tuple[str, ...] = ()  # paths whose content outlives the container's restarts
    files: Mapping[str, Path] = field(default_factory=dict)  # path in the container → what is copied there before it starts
    # Where nodes are made of Kubernetes manifests, as plain JSON data without namespaces:
    template: Mapping[str, Any] | None = None  # of its pod; its container `main` is what the fields above tell of
    objects: tuple[Mapping[str, Any], ...] = ()  # what else it needs; nodes of a component share most of them


def spec_from(values: Mapping[str, Any]) -> NodeSpec:
    """The NodeSpec that `dataclasses.asdict` made `values` of, after a journey as JSON; what only another version knows is left out."""
    made = {
        **values,
        "command": tuple(values["command"]),
        "mounts": tuple(Mount(Path(mount["source"]), mount["target"], mount["writable"]) for mount in values["mounts"]),
        "data": Path(values["data"]) if values["data"] else None,
        "ready": probe_from(values["ready"]),
        "resources": Resources(**values["resources"]),
        "entrypoint": None if values.get("entrypoint") is None else tuple(values["entrypoint"]),
        "build": _build_from(values.get("build")),
        "volumes": tuple(values.get("volumes", ())),
        "files": {target: Path(source) for target, source in values.get("files", {}).items()},
        "objects": tuple(values.get("objects", ())),
    }
    known = {each.name for each in fields(NodeSpec)}
    return NodeSpec(**{name: value for name, value in made.items() if name in known})


def _build_from(values: Mapping[str, Any] | None) -> ImageBuild | None:
    return ImageBuild(**{**values, "context": Path(values["context"]), "inputs": tuple(values["inputs"])}) if values else None


def probe_from(values: Mapping[str, Any] | None) -> Probe | None:
    """The Probe that `dataclasses.asdict` made `values` of, if there is one."""
    return Probe(**{**values, "command": tuple(values["command"])}) if values else None


@dataclass(frozen=True, slots=True)
class Node:
    """A running (or ended) node as the substrate sees it now."""

    name: str
    component: str
    kind: str
    zone: str
    address: str
    state: NodeState
    pid: int | None  # process id as seen from inside the environment's own process namespace
    started_at: float | None  # Unix time of the newest start
    starts: int  # how often it was started
    exit_status: int | None  # of the newest exit; 128 + signal for signals
    ports: Mapping[str, int] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment that is up."""

    id: str
    stack: str
    substrate: str
    directory: Path  # its private directory: control socket, node data, logs, telemetry
    plan_digest: str
    nodes: tuple[Node, ...]
    endpoints: Mapping[str, str]  # published: "component.port" → "127.0.0.1:NNNNN"
    expires_at: float  # Unix time
    labels: Mapping[str, str] = field(default_factory=dict)

    def nodes_of(self, component: str) -> tuple[Node, ...]:
        """The nodes of one component, by index."""
        return tuple(node for node in self.nodes if node.component == component)
