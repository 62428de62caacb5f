"""Pods: nodes are workloads of a namespace of their own in a Kubernetes cluster, where one machine is not enough.  Experimental."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from envctl.model.environment import Packaging
    from envctl.substrates.base import Found, Power
    from envctl.substrates.kubernetes.declare import Objects
    from envctl.substrates.kubernetes.notes import Notes
    from envctl.substrates.kubernetes.reach import PodReach
    from envctl.substrates.kubernetes.realiser import PodRealiser


class Kubernetes:
    """The plug-in `kubernetes` of the entry-point group `envctl.substrates`."""

    name: ClassVar[str] = "kubernetes"
    packaging: ClassVar[Packaging] = "images"
    beside: ClassVar[str] = "telemetry"  # a service that leads to the keeper
    powers: ClassVar[frozenset[Power]] = frozenset({"limits", "manifests", "throttling"})

    @staticmethod
    def lacks(tools: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:  # noqa: ARG004 - the agents' image has them
        """A cluster that answers, and the engine's plug-in for it."""
        from envctl.substrates.kubernetes.doctor import problems

        return problems()

    @staticmethod
    def directory(env_id: str) -> Path:
        """The environment's key; nothing need be there."""
        from envctl.toolchain import cache_dir

        return cache_dir() / "envs" / env_id

    @staticmethod
    def attach(directory: Path) -> PodReach:
        """Reach into a living environment.  Raises NoEnvironmentError."""
        from envctl.substrates.kubernetes.reach import PodReach

        reach = PodReach(directory)
        reach.ask("status")
        return reach

    @staticmethod
    def realiser(directory: Path) -> PodRealiser:
        """What makes, adopts and ends the environment of that directory."""
        from envctl.substrates.kubernetes.realiser import PodRealiser

        return PodRealiser(directory)

    @staticmethod
    def declarer(directory: Path) -> Objects:
        """All objects, through Pulumi's own provider for Kubernetes."""
        from envctl.substrates.kubernetes.declare import Objects

        return Objects(directory)

    @staticmethod
    def notebook(directory: Path) -> Notes:
        """Kept in the namespace."""
        from envctl.substrates.kubernetes.notes import Notes
        from envctl.substrates.kubernetes.reach import PodReach

        reach = PodReach(directory)
        return Notes(lambda: reach.api, reach.identity)

    @staticmethod
    def environments(env_id: str = "") -> tuple[Found, ...]:
        """What lives in the clusters that this machine has used; none is asked where it has used none."""
        from envctl.substrates.kubernetes.clusters import used
        from envctl.toolchain import cache_dir

        if not used(cache_dir(), env_id):
            return ()
        from envctl.substrates.kubernetes import census

        return census.environments(env_id)

    @staticmethod
    def census(directory: Path) -> tuple[str, ...]:
        """What is left of the environment of that directory, in its cluster and here."""
        from envctl.substrates.kubernetes.clusters import is_noted

        if not is_noted(directory):
            return ()
        from envctl.substrates.kubernetes import census

        return census.left(directory)
