"""What is left of an environment, asked of the machine and not of whoever was to remove it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from envctl.stack.state import State


def leftovers(directory: Path, states: tuple[State, ...]) -> list[str]:
    """One line for each process, file and state entry that still belongs to the environment of `directory`; empty is clean."""
    found = [f"process {pid}: {name}" for pid, name in processes(directory)]
    if directory.exists():
        found.append(f"directory {directory}")
    found += [f"state {path}" for state in states for path in state.leftovers()]
    return found


def processes(directory: Path) -> Iterator[tuple[int, str]]:
    """Processes of ours that name the environment's directory in their arguments, work in it, or have it mounted."""
    marker = str(directory).encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _belongs(entry, marker):
            yield int(entry.name), _name(entry)


def _belongs(process: Path, marker: bytes) -> bool:
    for source in ("cmdline", "mountinfo"):
        if any(_is_or_is_below(word, marker) for word in _read(process / source).replace(b"\0", b" ").split()):
            return True
    try:
        return _is_or_is_below(bytes((process / "cwd").readlink()), marker)
    except OSError:
        return False


def _is_or_is_below(word: bytes, marker: bytes) -> bool:
    return word == marker or word.startswith(marker + b"/")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # ended meanwhile, or another user's


def _name(process: Path) -> str:
    return _read(process / "comm").decode(errors="replace").strip()
