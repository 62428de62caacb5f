"""What is kept with an environment."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from envctl.errors import NoEnvironmentError


@dataclass(frozen=True, slots=True)
class Notes:
    """One file a note; they can be read as long as the environment's directory is there."""

    directory: Path

    def read(self, name: str) -> str | None:
        """What was written under that name."""
        with suppress(OSError):
            return (self.directory / name).read_text(encoding="utf-8")
        return None

    def write(self, name: str, text: str | None) -> None:
        """Publishes a note whole; None removes it.  Raises NoEnvironmentError."""
        try:
            self.directory.mkdir(exist_ok=True)  # not what is above: the environment may have ended
            if text is None:
                (self.directory / name).unlink(missing_ok=True)
                return
            temporary = self.directory / f".{name}.{os.getpid()}"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.directory / name)
        except FileNotFoundError:
            raise NoEnvironmentError(f"the environment {self.directory.parent.name} has ended") from None
