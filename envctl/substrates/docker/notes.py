"""What is kept with an environment: by its keeper, for as long as it lives."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from envctl.errors import EnvctlError
from envctl.substrates.docker.reach import ContainerReach


@dataclass(frozen=True, slots=True)
class Notes:
    """Requests to the keeper."""

    directory: Path

    def read(self, name: str) -> str | None:
        """What was written under that name; None when there is nothing, or no environment."""
        with suppress(EnvctlError):
            text: str | None = ContainerReach(self.directory).ask("recall", name=name)["text"]
            return text
        return None

    def write(self, name: str, text: str | None) -> None:
        """Keeps a note.  Raises NoEnvironmentError."""
        ContainerReach(self.directory).ask("remember", name=name, text=text)
