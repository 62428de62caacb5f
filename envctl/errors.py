"""The one exception tree.  Each class carries the exit code of the process and each error a hint for its reader."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path


class Exit(IntEnum):
    """Exit codes of every `envctl` command."""

    PASS = 0
    INTERNAL = 1
    USAGE = 2
    CREDENTIALS = 3
    NOT_MADE = 4
    FAIL = 5
    NO_ENVIRONMENT = 6
    INCONCLUSIVE = 7
    CANCELLED = 8
    TIMED_OUT = 9
    LEAKED = 10


class EnvctlError(Exception):
    """Something envctl can explain.

    The message says what happened and to what; `hint` says what to do next (empty when there is nothing to say).
    """

    exit_code: Exit = Exit.INTERNAL

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(EnvctlError):
    """The command was called with arguments that make no sense together."""

    exit_code = Exit.USAGE


@dataclass(frozen=True, slots=True)
class Problem:
    """One error in a file a user wrote: where it is, what was found, and what is allowed there."""

    file: Path
    line: int  # 1-based; 0 when the file as a whole is meant
    field: str  # dotted path, such as "components.orders.ports.http"; empty for the whole file
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else str(self.file)
        field = f"{self.field}: " if self.field else ""
        hint = f"\n    hint: {self.hint}" if self.hint else ""
        return f"{where}: {field}{self.message}{hint}"


class SpecError(EnvctlError):
    """One or more files a user wrote are wrong.  Carries every problem at once; nothing was started."""

    exit_code = Exit.USAGE

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "\n".join(str(problem) for problem in self.problems)
        super().__init__(f"{count} problem{'s' if count != 1 else ''} found, nothing was started\n{lines}")


class CapabilityError(EnvctlError):
    """The machine or environment lacks something the request needs; refused before anything starts."""

    exit_code = Exit.NOT_MADE


class CredentialsError(EnvctlError):
    """Credentials are missing or were refused."""

    exit_code = Exit.CREDENTIALS


class ResourceError(EnvctlError):
    """A resource (node, database, topic, seed, fault, …) could not be made or could not be reached."""

    exit_code = Exit.NOT_MADE


class NoEnvironmentError(EnvctlError):
    """The named environment does not exist."""

    exit_code = Exit.NO_ENVIRONMENT


class CancelledError(EnvctlError):
    """The user cancelled the command."""

    exit_code = Exit.CANCELLED


class DeadlineError(EnvctlError):
    """A phase ran out of its budget; the message names the component and its unmet condition."""

    exit_code = Exit.TIMED_OUT


class LeakError(EnvctlError):
    """Teardown left something behind; the message lists what."""

    exit_code = Exit.LEAKED


def of_system(error: OSError) -> ResourceError:
    """What the system refused, in words: `FILE: reason`."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return ResourceError(reason, hint="`envctl --debug …` shows where")
    return ResourceError(f"{os.fsdecode(error.filename)}: {reason}")
