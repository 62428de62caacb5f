"""Containers: nodes are images on a Docker engine, for laptops that are not Linux, hosted CI, and work that is images anyway."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from envctl.model.environment import Packaging
    from envctl.substrates.base import Found, Power
    from envctl.substrates.docker.declare import Parts
    from envctl.substrates.docker.notes import Notes
    from envctl.substrates.docker.reach import ContainerReach
    from envctl.substrates.docker.realiser import ContainerRealiser


class Docker:
    """The plug-in `docker` of the entry-point group `envctl.substrates`."""

    name: ClassVar[str] = "docker"
    packaging: ClassVar[Packaging] = "images"
    beside: ClassVar[str] = "telemetry"  # a name of the keeper in its network
    powers: ClassVar[frozenset[Power]] = frozenset({"limits", "addresses", "throttling"})

    @staticmethod
    def lacks(tools: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:  # noqa: ARG004 - the keeper's image has them
        """An engine that answers."""
        from envctl.substrates.docker.engine import problem

        return problem()

    @staticmethod
    def directory(env_id: str) -> Path:
        """The environment's key; nothing need be there."""
        from envctl.toolchain import cache_dir

        return cache_dir() / "envs" / env_id

    @staticmethod
    def attach(directory: Path) -> ContainerReach:
        """Reach into a living environment.  Raises NoEnvironmentError."""
        from envctl.substrates.docker.reach import ContainerReach

        reach = ContainerReach(directory)
        reach.ask("status")
        return reach

    @staticmethod
    def realiser(directory: Path) -> ContainerRealiser:
        """What makes, adopts and ends the environment of that directory."""
        from envctl.substrates.docker.realiser import ContainerRealiser

        return ContainerRealiser(directory)

    @staticmethod
    def declarer(directory: Path) -> Parts:
        """The network and the volumes."""
        from envctl.substrates.docker.declare import Parts

        return Parts(directory)

    @staticmethod
    def notebook(directory: Path) -> Notes:
        """Kept by the keeper."""
        from envctl.substrates.docker.notes import Notes

        return Notes(directory)

    @staticmethod
    def environments(env_id: str = "") -> tuple[Found, ...]:
        """What lives on this machine's engine; nothing where there is no engine."""
        from envctl.substrates.docker.engine import is_here

        if not is_here():
            return ()
        from envctl.substrates.docker import census

        return census.environments(env_id)

    @staticmethod
    def census(directory: Path) -> tuple[str, ...]:
        """Containers, networks and volumes of the environment of that directory."""
        from envctl.substrates.docker.engine import is_here

        if not is_here():
            return ()
        from envctl.substrates.docker import census

        return census.left(directory)
