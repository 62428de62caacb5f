"""The contract of an engine: from a component to the nodes that realise it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from envctl.model.environment import NodeSpec, Packaging
from envctl.model.topology import AnyComponent, Topology


@dataclass(frozen=True, slots=True)
class Provision:
    """Work that follows once a component's nodes are ready and before anything that needs it starts.

    envctl's own interpreter runs beside the nodes, in the environment's own network, with these `arguments` and environment
    variables `env`, and sees the host's `files`; it is idempotent.  `digest` decides whether it is run again.
    """

    component: str
    arguments: tuple[str, ...]
    digest: str
    env: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Realisation:
    """What one component becomes.  All nodes may start at once, when the components in `needs` are complete."""

    component: str
    needs: tuple[str, ...]
    nodes: tuple[NodeSpec, ...]
    provision: Provision | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """Where and for what an engine prepares nodes."""

    topology: Topology
    env_id: str
    selected: tuple[str, ...]
    stubbed: tuple[str, ...]
    cache: Path  # the user's cache
    seed_key: str = ""  # key of a snapshot to start from; empty: none
    otlp_http: str = ""  # base URL of the OTLP intake inside the environment
    otlp_grpc: str = ""
    packaging: Packaging = "files"
    manifests: bool = False  # whether nodes are made of a component's manifests where it has some
    progress: Callable[[str], None] = lambda _: None  # hears what takes its time (builds, first preparations), in one line

    def zone(self, component: AnyComponent, index: int) -> str:
        """The zone of a component's node: round robin over its zones, else the topology's; empty where there are none."""
        zones = component.zones or self.topology.zones or ("",)
        return zones[index % len(zones)]

    def needs(self, component: AnyComponent) -> tuple[str, ...]:
        """The components that have to be complete before this one, of those that are in this environment."""
        return tuple(name for name in component.needs if name in self.selected or name in self.stubbed)

    def data(self, node: str, prepared: Path) -> Path:
        """What a node's `/data` starts from: its snapshot of the seed, or where there is none the engine's `prepared`."""
        snapshot = self.cache / "snapshots" / self.seed_key / node
        return snapshot if self.seed_key and snapshot.is_dir() else prepared


class Engine(Protocol):
    """A plug-in of the entry-point group `envctl.engines`, by kind of component."""

    kind: ClassVar[str]

    def endpoints(self, component: AnyComponent) -> Mapping[str, str]:
        """What `${component.NAME}` may refer to, such as {"orders.url": "postgresql://…"}.  Names are resolved by DNS."""

    def realise(self, component: AnyComponent, site: Site) -> Realisation:
        """The nodes; prepares (in the cache, by content) whatever they start from."""


class RunsTools(Protocol):
    """An optional power of an engine: its nodes run programs of the toolchain."""

    def tools(self, component: AnyComponent) -> Mapping[str, str]:
        """Tool → version, as `envctl.toolchain.find` takes them; the first is the one that the component's version is about."""
