"""What is kept with an environment: in an object of its namespace, whoever keeps it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from envctl.errors import EnvctlError, NoEnvironmentError
from envctl.substrates.kubernetes.api import Api, MissingError, path_of
from envctl.substrates.kubernetes.identity import Identity


@dataclass(frozen=True, slots=True)
class Notes:
    """One entry of a ConfigMap a note."""

    api: Callable[[], Api]
    identity: Identity

    def read(self, name: str) -> str | None:
        """What was written under that name; None when there is nothing, or no environment."""
        with suppress(EnvctlError):
            text: str | None = (self.api().get("ConfigMap", "notes", self.identity.namespace).get("data") or {}).get(name)
            return text
        return None

    def write(self, name: str, text: str | None) -> None:
        """Keeps a note.  Raises NoEnvironmentError."""
        try:
            self.api().merge(path_of("ConfigMap", "notes", self.identity.namespace), {"data": {name: text}})
        except MissingError as error:
            raise NoEnvironmentError(f"the environment {self.identity.env_id} has ended") from error
