"""Linux namespaces: one cell an environment, no container engine, no root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from envctl.substrates.embedded.identity import RESOLVER
from envctl.substrates.keeper.notes import Notes

if TYPE_CHECKING:
    from envctl.model.environment import Packaging
    from envctl.substrates.base import Declarer, Found, Power
    from envctl.substrates.embedded.reach import CellReach
    from envctl.substrates.embedded.realiser import CellRealiser


def _envs() -> Path:
    from envctl.toolchain import cache_dir

    return cache_dir() / "envs"


class Embedded:
    """The plug-in `embedded` of the entry-point group `envctl.substrates`."""

    name: ClassVar[str] = "embedded"
    packaging: ClassVar[Packaging] = "files"
    beside: ClassVar[str] = RESOLVER
    powers: ClassVar[frozenset[Power]] = frozenset({"snapshots", "addresses", "rootless", "throttling", "disk-sizes", "time-skew"})

    @staticmethod
    def lacks(tools: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
        """What this machine lacks for namespaces, and of the tools."""
        from envctl.errors import CapabilityError
        from envctl.toolchain import find
        from envctl.toolchain.machine import machine_problems

        lacks = [(lack.what, lack.step) for lack in machine_problems()]
        for tool in tools:
            try:
                find(tool)
            except CapabilityError as error:
                lacks.append((error.message, error.hint or f"run `envctl setup {tool}`"))
        return tuple(lacks)

    @staticmethod
    def directory(env_id: str) -> Path:
        """Where the environment of that id lives."""
        return _envs() / env_id

    @staticmethod
    def attach(directory: Path) -> CellReach:
        """Reach into a living environment.  Raises NoEnvironmentError."""
        from envctl.substrates.embedded.reach import CellReach

        reach = CellReach(directory)
        reach.ask("status")
        return reach

    @staticmethod
    def realiser(directory: Path) -> CellRealiser:
        """What makes, adopts and ends the environment of that directory."""
        from envctl.substrates.embedded.realiser import CellRealiser

        return CellRealiser(directory)

    @staticmethod
    def declarer(directory: Path) -> Declarer:  # noqa: ARG004
        """Nothing more."""
        from envctl.substrates.base import NothingMore

        return NothingMore()

    @staticmethod
    def notebook(directory: Path) -> Notes:
        """Files in the environment's directory."""
        return Notes(directory / "notes")

    @staticmethod
    def environments(env_id: str = "") -> tuple[Found, ...]:
        """What lives on this machine."""
        from envctl.substrates.embedded import census

        return tuple(found for found in census.environments(_envs()) if env_id in ("", found.id))

    @staticmethod
    def census(directory: Path) -> tuple[str, ...]:
        """What there is of the environment of that directory; empty when it is gone."""
        from envctl.substrates.embedded import census

        return census.left(directory)
