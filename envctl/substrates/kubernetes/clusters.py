"""Which cluster an environment is in: noted on this machine when it is made, because a user's current context changes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from envctl.substrates.kubernetes.api import CONTEXT, context, contexts

_NEW_S = 900.0


def note_of(directory: Path) -> Path:
    """A file beside the environments' directories: one that ends in the cluster leaves its own directory as it was."""
    return directory.parent.parent / "kubernetes" / "contexts" / directory.name


def _notes(cache: Path) -> list[Path]:
    """Those of all environments of a cache."""
    notes = cache / "kubernetes" / "contexts"
    return [*notes.iterdir()] if notes.is_dir() else []


def _noted(cache: Path, env_id: str = "") -> dict[str, str]:
    """Environment → context, as it is noted in a cache, of all or of one: whoever means one need not read a thousand."""
    notes = [note_of(cache / "envs" / env_id)] if env_id else _notes(cache)
    return {note.name: context for note in notes if not note.name.startswith(".") and (context := _read(note)[0])}


def _read(note: Path) -> tuple[str, tuple[str, ...] | None]:
    """The context, and the volumes that are to end with the environment, where that is known."""
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "", None
    return known["context"], None if known["volumes"] is None else tuple(known["volumes"])


def _write(note: Path, name: str, volumes: Sequence[str] | None = None) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    whole = note.with_name(f".{note.name}.{os.getpid()}")
    whole.write_text(json.dumps({"context": name, "volumes": volumes}), encoding="utf-8")
    whole.replace(note)


def remember(directory: Path) -> str:
    """The context of an environment that is to be made: the one that is noted, or the one that is meant now."""
    note = note_of(directory)
    if known := _read(note)[0]:
        return known
    if name := context():
        _write(note, name)
    return name


def remember_volumes(directory: Path, names: Iterable[str]) -> None:
    """The cluster's volumes that the environment has, before it ends: when its namespace has gone, nothing else tells them from all others."""
    name, known = _read(note_of(directory))
    if name:
        _write(note_of(directory), name, sorted({*names, *(known or ())}))


def volumes_of(directory: Path) -> tuple[str, ...] | None:
    """Those; None where nobody has looked."""
    return _read(note_of(directory))[1]


def context_of(directory: Path) -> str:
    """The context of an environment; what is meant now where nothing is noted."""
    return _read(note_of(directory))[0] or context()


def is_noted(directory: Path) -> bool:
    """Whether the environment was made in a cluster from here, and has not been seen to end."""
    return note_of(directory).exists()


def forget(directory: Path) -> None:
    """It has ended."""
    note_of(directory).unlink(missing_ok=True)


def forget_all_but(cache: Path, living: Iterable[Path]) -> None:
    """They have ended by themselves: their clusters need not be asked any more.  One that is just being made is not there yet."""
    names = {directory.name for directory in living}
    for note in _notes(cache):
        with suppress(FileNotFoundError):
            if note.name not in names and time.time() - note.stat().st_mtime > _NEW_S:
                note.unlink()


def used(cache: Path, env_id: str = "") -> set[str]:
    """The contexts in which environments of a cache (or those of an id) may be: nobody else's cluster is asked."""
    return {*_noted(cache, env_id).values(), os.environ.get(CONTEXT, "")} - {""}


def is_lost(directory: Path) -> bool:
    """Whether the context of an environment is no longer in the kubeconfig, as after its cluster was deleted."""
    return directory in lost(directory.parent.parent, directory.name)


def lost(cache: Path, env_id: str = "") -> dict[Path, str]:
    """Those environments of a cache (or the one of that id): directory → context."""
    noted = _noted(cache, env_id)
    there = contexts() if noted else None
    return {cache / "envs" / name: context for name, context in noted.items() if there is not None and context not in there}
