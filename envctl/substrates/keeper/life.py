"""What a keeper needs of a substrate: how nodes and helpers are started, and what can be done to one life of them."""

from __future__ import annotations

import asyncio
from typing import Protocol, TypeVar

from envctl.model.environment import NodeSpec
from envctl.model.topology import Resources


class Life(Protocol):
    """One life of a node or helper, from a start to the end that follows."""

    @property
    def ended(self) -> asyncio.Future[int]:
        """Its exit status to come, 128 + signal for signals."""

    @property
    def address(self) -> str:
        """The address that it has; empty where the node keeps one over all its lives."""

    @property
    def zone(self) -> str:
        """The zone in which it is; empty where it is in whichever was asked for."""

    def main(self) -> int | None:
        """The process id of its main process; None when it can't be told."""

    async def signal(self, number: int) -> None:
        """Signals the main process; SIGKILL ends everything in the node.  Raises ResourceError when there is none."""

    async def pause(self, lease_s: float) -> None:
        """Stops all its processes where they are; who asks sees to the end of the lease, unless they are killed."""

    async def resume(self) -> None:
        """Lets them go on."""

    async def is_paused(self) -> bool:
        """Whether all its processes stand still, as the machine sees it."""

    async def limit(self, bounds: Resources, lease_s: float) -> None:
        """Bounds what it may use, as a pause does for its lease.  Raises CapabilityError where nothing is enforced."""

    async def unlimit(self) -> None:
        """Ends that."""

    async def throttled(self) -> float:
        """Seconds for which a bound on its CPU has kept it from running."""


SomeLife = TypeVar("SomeLife", bound=Life)


class Launcher(Protocol[SomeLife]):
    """How a substrate starts nodes and looks into them."""

    @property
    def gives_up(self) -> bool:
        """Whether a start that nobody waits for any more leaves nothing behind."""

    async def start(self, spec: NodeSpec) -> SomeLife:
        """Starts a node or helper.  Raises ResourceError or OSError."""

    async def keep_down(self, spec: NodeSpec) -> None:
        """Sees to it that nobody else starts a node again that has ended, until `start`."""

    async def inside(self, argv: tuple[str, ...], spec: NodeSpec, life: SomeLife) -> int:
        """The exit status of a command in a node.  Who stops waiting kills it.  Raises ResourceError."""

    async def beside(self, *argv: str) -> int:
        """The exit status of a command beside the nodes.  Who stops waiting kills it."""

    async def written(self, name: str) -> int:
        """How far the log of a node has come, as `said` takes it."""

    async def said(self, name: str, since: int) -> str:
        """What a node has written to its log since then."""

    async def tail(self, name: str) -> str:
        """The end of a node's log."""
