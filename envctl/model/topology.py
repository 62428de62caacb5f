"""What production looks like: the components of a system and how they depend on each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Protocol = Literal["http", "grpc", "tcp"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a component's files come from.  All paths are relative to the stack directory.

    `tree`: the working tree at `path`.  `git`: `path` as of commit-ish `ref`.  `artifact`: the archive (tar, zip) or
    file at `path`, verified against `sha256`.
    """

    kind: Literal["tree", "git", "artifact"]
    path: str
    ref: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Build:
    """An optional step that turns sources into what runs.

    `command` runs in a copy of the source with `$OUT` naming an empty directory; what it leaves there is kept in the
    cache, keyed by the hash of `inputs` (paths relative to the stack directory) and the command, and is mounted read-only at
    `/build` when the node runs.
    """

    command: tuple[str, ...]
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """A container image, and how a component's containers are made of it.  Paths outside are relative to the stack directory.

    It is named by `reference`, or built: from the directory `context` by its `dockerfile` (relative to the context; empty:
    `Dockerfile`) up to the stage `target`, with build arguments `args`; of the context only `inputs` go in, where there are any.
    What is empty is as the image says.
    """

    reference: str = ""
    context: str = ""
    dockerfile: str = ""
    target: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    volumes: tuple[str, ...] = ()  # directories inside whose content survives restarts of the node
    files: Mapping[str, str] = field(default_factory=dict)  # path inside → file or directory, shown read-only


@dataclass(frozen=True, slots=True)
class Probe:
    """When a node counts as ready.

    `http`: GET `target` (a path) on `port` answers 2xx.  `grpc`: the standard health service on `port` says SERVING for
    `target` (may be empty).  `tcp`: `port` accepts.  `exec`: `command` exits 0 inside the node.  `log`: a line of the
    node's output matches the regular expression `target`.
    """

    kind: Literal["http", "grpc", "tcp", "exec", "log"]
    port: int = 0
    target: str = ""
    command: tuple[str, ...] = ()
    healthy_for_s: float = 0.0  # must hold without a break for this long


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits of one node; None means unlimited.  Enforced where the substrate can, noted in `status` where not."""

    cpus: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Declared:
    """What manifests say of a component's nodes; it holds wherever the topology itself says nothing."""

    replicas: int = 1
    ports: Mapping[str, int] = field(default_factory=dict)
    ready: Probe | None = None
    resources: Resources = Resources()
    stop_grace_s: float = 30.0  # as Kubernetes has it


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something in a component's manifests that no environment has, and why.  `fields` are what of it; empty: all of it."""

    file: str
    line: int
    what: str  # such as "Ingress shop"
    fields: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        """In a line."""
        what = f"{self.what}: {', '.join(self.fields)}" if self.fields else self.what
        return f"{self.file}:{self.line}: {what} is left out: {self.reason}"


@dataclass(frozen=True, slots=True)
class Remark:
    """Something in a component's manifests that means something else in an environment."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        """In a line."""
        return f"{self.file}:{self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class Manifests:
    """Existing Kubernetes manifests that a component is made of.  Paths are relative to the stack directory.

    `files`, `workload` and `images` (container → reference, or `:tag` or `@digest` alone) are what the topology says; the rest is what
    the files hold, as plain JSON data: empty where they can't be seen, as in the topology of another commit.
    """

    files: tuple[str, ...]
    workload: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    template: Mapping[str, Any] = field(default_factory=dict)  # of the workload's pods
    container: str = ""  # the one of the component itself; the others are its sidecars
    objects: tuple[Mapping[str, Any], ...] = ()  # what else belongs to the workload
    claims: tuple[Mapping[str, Any], ...] = ()  # each node's own volumes
    ordinals: tuple[str, str] | None = None  # name and governing Service of what numbers its pods
    declared: Declared = Declared()
    left_out: tuple[LeftOut, ...] = ()
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class Subscription:
    """How a service consumes one topic."""

    topic: str
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """What every kind of component has.  `line` is where it stands in the topology file (1-based)."""

    name: str
    line: int = 0
    needs: tuple[str, ...] = ()  # components that must be ready before this one starts
    resources: Resources = Resources()
    zones: tuple[str, ...] = ()  # zones of its nodes, round robin; empty: the topology's zones
    env: Mapping[str, str] = field(default_factory=dict)  # may hold ${component.…} references

    @property
    def kind(self) -> str:
        """The word that stands after `kind:` in the topology."""
        return type(self).__name__.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Component):
    """A one-shot program; it is done when it exits 0.  Its forms are those of a service."""

    source: Source | None = None
    command: tuple[str, ...] = ()
    build: Build | None = None
    image: Image | None = None
    manifests: Manifests | None = None
    paths: tuple[str, ...] = ()  # further paths (relative to the stack directory) whose change selects the component


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Component):
    """A long-running program of the user's, in any language, in one form or several.

    `source`, `command` and `build` are what nodes are made of where they are programs of the host, `image` where they are
    containers, `manifests` where Kubernetes runs them.
    """

    source: Source | None = None
    command: tuple[str, ...] = ()
    build: Build | None = None
    image: Image | None = None
    manifests: Manifests | None = None
    paths: tuple[str, ...] = ()
    replicas: int = 1
    calls: Mapping[str, Protocol] = field(default_factory=dict)  # component → protocol, used at run time
    publishes: tuple[str, ...] = ()
    consumes: tuple[Subscription, ...] = ()
    ports: Mapping[str, int] = field(default_factory=dict)  # port name → number, such as {"http": 8080}
    ready: Probe | None = None
    stub: str = ""  # file of declared examples (relative to the stack directory) that a stub answers from
    stop_grace_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres(Component):
    """A PostgreSQL primary with `standbys` synchronous streaming standbys."""

    version: str
    image: str = ""  # the reference of an image to run instead of the substrate's own
    standbys: int = 0
    databases: tuple[str, ...] = ()
    migrations: str = ""  # directory of *.sql, `{database}` is replaced; relative to the stack directory
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Topic:
    """One Kafka topic."""

    name: str
    partitions: int = 1
    replication: int = 0  # 0: as many as there are brokers, at most 3
    min_isr: int = 0  # 0: replication - 1, at least 1
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kafka(Component):
    """An Apache Kafka cluster in KRaft mode; every broker is a controller too."""

    version: str
    image: str = ""
    brokers: int = 1
    topics: Mapping[str, Topic] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis(Component):
    """One Redis server."""

    version: str
    image: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


AnyComponent = Service | Job | Postgres | Kafka | Redis


@dataclass(frozen=True, slots=True)
class Topology:
    """All components of a system."""

    name: str
    file: Path  # the topology.yaml it was read from
    zones: tuple[str, ...]
    components: Mapping[str, AnyComponent]

    @property
    def directory(self) -> Path:
        """The stack directory; paths in the topology are relative to it."""
        return self.file.parent
