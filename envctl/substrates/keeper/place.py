"""Where an environment of containers belongs: several machines and caches may share what it runs on."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# Variables of the keeper and of all that runs beside it.
TOKEN, DIRECTORY, PLACE_OF = "ENVCTL_KEEPER_TOKEN", "ENVCTL_KEEPER_DIRECTORY", "ENVCTL_KEEPER_PLACE"
KEEPER_AT = "ENVCTL_KEEPER_AT"  # the keeper's host, for what runs beside it in another container
KEEPER_PORT = 7411  # where the keeper answers, in its container


@dataclass(frozen=True, slots=True)
class Placed:
    """One environment.  `place` is machine and directory."""

    env_id: str
    place: str

    @property
    def key(self) -> str:
        """Short, and different for each place."""
        return hashlib.sha256(self.place.encode()).hexdigest()[:8]

    @classmethod
    def of_directory(cls, directory: Path) -> Self:
        """The environment of a directory: of this machine, or, beside a keeper, of that keeper's."""
        directory = directory.resolve()
        return cls(directory.name, os.environ[PLACE_OF] if is_beside(directory) else f"{socket.gethostname()}:{directory}")


def is_beside(directory: Path) -> bool:
    """Whether this process runs beside the keeper of that directory."""
    return DIRECTORY in os.environ and Path(os.environ[DIRECTORY]).resolve() == directory.resolve()


def directory_at(place: str) -> Path | None:
    """The directory of a place; None when it belongs to another machine."""
    machine, _, directory = place.partition(":")
    return Path(directory) if machine == socket.gethostname() and directory.startswith("/") else None
