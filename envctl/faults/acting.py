"""Which faults of a run act now, and on whom: each has a note of it in its directory, beside those of the others.

So no two of them take the same thing of one node for themselves, none lets go of what another one holds, and nobody is taken for a
bystander of one who is the target of another.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from envctl.errors import UsageError
from envctl.faults.base import Blast, World
from envctl.model.environment import Node
from envctl.record.writer import publish

_NOTE = "acting.json"
_lock = threading.Lock()  # the faults of a run are threads of one process


@dataclass(frozen=True, slots=True)
class Acting:
    """One that acts, or has acted; times are those of the monotonic clock."""

    nodes: tuple[str, ...]  # its targets
    peers: tuple[str, ...]  # whose traffic with them is hurt, too
    claims: tuple[str, ...]
    begun: float
    ended: float | None = None


def begin(scratch: Path, blast: Blast, claims: Iterable[str]) -> None:
    """Notes that a fault acts from now on.  Raises UsageError where another one has taken of a node what it takes for itself."""
    names, mine = {node.name for node in blast.nodes}, frozenset(claims)
    with _lock:
        for id, other in _others(scratch):
            both = names.intersection(other.nodes)
            if other.ended is None and both and mine.intersection(other.claims):
                raise UsageError(f"{id} acts on {', '.join(sorted(both))} still, and neither could be shown to have acted", hint="let them follow each other")
        peers = tuple(sorted(node.name for node in blast.peers))
        _write(scratch, Acting(tuple(sorted(names)), peers, tuple(sorted(mine)), time.monotonic()))


def end(scratch: Path) -> None:
    """Notes that it acts no more.  Idempotent, and right where nothing was noted."""
    with _lock:
        if (mine := _read(scratch)) and mine.ended is None:
            _write(scratch, Acting(mine.nodes, mine.peers, mine.claims, mine.begun, time.monotonic()))


def held_by_others(world: World) -> frozenset[str]:
    """The nodes whose processes another fault has to itself."""
    return frozenset(node for _, other in _others(world.scratch) if other.ended is None and "processes" in other.claims for node in other.nodes)


def bystanders(world: World, targets: Collection[Node], *, most: int | None = None, ready: bool = True) -> list[Node]:
    """Nodes that are no target of this fault nor, as long as it acts, of another one: those that are ready, or those that live."""
    names = {node.name for node in targets} | set(_hurt_by_others(world))
    nodes = world.reach.environment().nodes
    return [node for node in nodes if node.name not in names and (node.state == "ready" if ready else node.pid is not None)][:most]


def unexplained(world: World, hit: Iterable[str]) -> list[str]:
    """Of bystanders that were hit, those that are no other fault's targets: it may have begun meanwhile."""
    hurt = _hurt_by_others(world)
    return [name for name in hit if name not in hurt]


def canary(world: World, sent: Sequence[object], hit: Sequence[object]) -> dict[str, Any]:
    """What bystanders tell, for the detail of an effect: with the reason where there is none."""
    found: dict[str, Any] = {"canary_sent": len(sent), "canary_lost": len(hit)}
    if not sent:
        others = sorted(set(_hurt_by_others(world).values()))
        found["canary_none"] = f"all other nodes are targets of {', '.join(others)}, or not ready" if others else "no other node is ready"
    return found


def _hurt_by_others(world: World) -> dict[str, str]:
    """Node → another fault that acts on it, or has since this one began."""
    mine = _read(world.scratch)
    since = mine.begun if mine else time.monotonic()
    return {node: id for id, other in _others(world.scratch) if other.ended is None or other.ended >= since for node in (*other.nodes, *other.peers)}


def _others(scratch: Path) -> Iterator[tuple[str, Acting]]:
    for directory in sorted(scratch.parent.iterdir()) if scratch.parent.is_dir() else ():
        if directory.name != scratch.name and (found := _read(directory)):
            yield directory.name, found


def _read(scratch: Path) -> Acting | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        found = json.loads((scratch / _NOTE).read_text(encoding="utf-8"))
        return Acting(tuple(found["nodes"]), tuple(found["peers"]), tuple(found["claims"]), found["begun"], found["ended"])
    return None


def _write(scratch: Path, acting: Acting) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    publish(scratch / _NOTE, asdict(acting))
