"""Linux namespaces: one cell an environment, no container engine, no root."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from envctl.substrates.base import Found
    from envctl.substrates.embedded.reach import CellReach
    from envctl.substrates.embedded.realiser import CellRealiser


def _envs() -> Path:
    from envctl.toolchain import cache_dir

    return cache_dir() / "envs"


class Embedded:
    """The plug-in `embedded` of the entry-point group `envctl.substrates`."""

    name: ClassVar[str] = "embedded"

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
    def environments() -> tuple[Found, ...]:
        """What lives on this machine."""
        from envctl.substrates.embedded import census

        return census.environments(_envs())

    @staticmethod
    def census(directory: Path) -> tuple[str, ...]:
        """What there is of the environment of that directory; empty when it is gone."""
        from envctl.substrates.embedded import census

        return census.left(directory)
