"""Finds faults, checks, engines, seed loaders and substrates through entry points.

Look-up reads metadata only; a plug-in is imported on first use.  The built-in ones use the same door.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from envctl.errors import UsageError

GROUPS = ("envctl.faults", "envctl.checks", "envctl.engines", "envctl.substrates")


_every = cache(entry_points)  # reads the metadata of all installed packages: once, not for each group


@cache
def _found(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in _every().select(group=group)}


def names(group: str) -> tuple[str, ...]:
    """The names of all plug-ins of a group, sorted; nothing is imported."""
    return tuple(sorted(_found(group)))


def nearest(name: str, known: tuple[str, ...]) -> str:
    """A hint that names the nearest match and all known names."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"known: {', '.join(sorted(known)) or 'none'}"


@cache
def load(group: str, name: str) -> Any:
    """The plug-in object.  Raises UsageError for an unknown name, with the known ones and the nearest match."""
    point = _found(group).get(name)
    if point is None:
        raise UsageError(f"no {group.removeprefix('envctl.').rstrip('s')} is called {name!r}", hint=nearest(name, names(group)))
    return point.load()
