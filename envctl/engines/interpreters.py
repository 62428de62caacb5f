"""Interpreters and other tools of the host that a user's command needs and that a node does not see in /usr."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A tool of the host: the directory of its programs, what has to be seen for it to work, and its content id."""

    bin: Path
    prefix: Path
    id: str


def own_python() -> Interpreter:
    """The interpreter that runs envctl (the one under its virtual environment)."""
    prefix = Path(sys.base_prefix)
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Interpreter(bin=prefix / "bin", prefix=prefix, id=f"{sys.implementation.name}-{version}")


def needed(command: Sequence[str]) -> Interpreter | None:
    """What `command[0]` needs from outside /usr; None where a node finds everything by itself.

    `python`, `python3`, … are the interpreter that runs envctl, because what the host's PATH says may be a shim.
    """
    name = command[0]
    if _PYTHON.fullmatch(name):
        found = own_python()
        return None if in_usr(found.prefix) else found
    program = shutil.which(name) if "/" not in name else None
    if program is None:
        return None
    real = Path(os.path.realpath(program))
    if in_usr(real):
        return None
    return Interpreter(bin=real.parent, prefix=_prefix(real), id=f"{name}-{real.stat().st_size}")


def _prefix(program: Path) -> Path:
    """What a node has to see of the host for a program to work: its installation; never somebody's home or what is in it at large."""
    prefix = program.parent.parent if program.parent.name == "bin" else program.parent
    home = Path.home()
    private = prefix == home / ".local" or program.parent == home / "bin" or home.is_relative_to(prefix)
    return program if private else prefix


def linked(directory: Path) -> tuple[Path, ...]:
    """Prefixes outside of /usr that the interpreters in a virtual environment's `bin` are links into."""
    prefixes = set()
    for program in (directory / "bin").glob("python*"):
        real = Path(os.path.realpath(program))
        if program.is_symlink() and not in_usr(real) and not real.is_relative_to(directory):
            prefixes.add(real.parent.parent)
    return tuple(sorted(prefixes))


def in_usr(path: Path) -> bool:
    """Whether every node sees the path anyway."""
    return any(path.is_relative_to(root) for root in ("/usr", "/bin", "/sbin", "/lib", "/lib64"))
