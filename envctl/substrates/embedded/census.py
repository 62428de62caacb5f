"""What is alive on this machine, found by markers in /proc: right even where directories, sockets or state are lost."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from envctl.substrates.base import Found
from envctl.substrates.embedded.identity import MARKER, NAMESPACES

_GONE = re.compile(r"\.gone-(.+)-[0-9a-f]{8}$")


def _processes() -> Iterator[Path]:
    return (path for path in Path("/proc").iterdir() if path.name.isdigit())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _marked(process: Path) -> tuple[str, Path] | None:
    """(env id, directory) when this is a process of a cell of ours that has not executed anything else.

    Anybody may give a process such arguments: they count only for a process of ours, and for a directory named as the environment.
    """
    try:
        marker, env_id, directory, _ = _read(process / "cmdline").decode().split("\0")[-4:]
    except ValueError:  # fewer arguments, or no text
        return None
    place = Path(directory)
    if marker != MARKER or place.name != env_id or not place.is_absolute() or not _is_ours(process):
        return None
    return env_id, place


def _is_ours(process: Path) -> bool:
    """All its user ids are ours: neither somebody else's nor a set-uid program that somebody else started."""
    return _of_status(process, "Uid") == [str(os.geteuid())] * 4


def removable(directory: Path) -> bool:
    """Whether it may be removed as an environment's: a directory of ours, no link to elsewhere."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _is_place(directory: Path, envs: Path) -> bool:
    """Whether an environment may be there: in a directory of environments, and nothing else is in its place."""
    known = directory.parent.name == envs.name or directory.parent == envs.resolve()
    return known and (removable(directory) or not os.path.lexists(directory))


def _depth(process: Path) -> list[str]:
    """Its process ids, from our own namespace inwards."""
    return _of_status(process, "NSpid")


def _of_status(process: Path, field: str) -> list[str]:
    for line in _read(process / "status").decode(errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return line.split()[1:]
    return []


def _is_cell(process: Path) -> bool:
    """PID 1 of a namespace directly below ours, or a process of ours that is about to make one.  A node can't look like that."""
    depth = _depth(process)
    return len(depth) == 1 or (len(depth) == 2 and depth[1] == "1")


def cells(directory: Path) -> tuple[int, ...]:
    """Process ids of the cell of that directory (while it starts there may be several)."""
    return tuple(int(p.name) for p in _processes() if (m := _marked(p)) and m[1] == directory and _is_cell(p))


def environments(envs: Path) -> tuple[Found, ...]:
    """Every environment of this machine: living cells (of other caches too), and directories below `envs` whose cell is dead."""
    found = {
        marked[1]: Found(marked[0], marked[1], alive=True)
        for process in _processes() if (marked := _marked(process)) and _is_cell(process) and _is_place(marked[1], envs)
    }
    if envs.is_dir():
        for directory in filter(removable, envs.iterdir()):
            gone = _GONE.match(directory.name)  # killed while it removed them
            env_id = gone[1] if gone else directory.name
            found.setdefault(envs / env_id, Found(env_id, envs / env_id, alive=False))
    return tuple(sorted(found.values(), key=lambda item: (item.id, item.directory)))


def left(directory: Path) -> tuple[str, ...]:
    """What there is of an environment: processes, namespaces, mounts, listening sockets, directories.  Empty: it is gone."""
    directory = directory.resolve()
    members = _members(directory)
    lines = [f"process {process.name}: {_title(process)}" for process in members]
    lines += _namespaces(members)
    lines += _mounts(directory)
    lines += _sockets(members)
    lines += [f"directory {path}" for path in (directory, *directory.parent.glob(f".gone-{directory.name}-*")) if path.exists()]
    return tuple(lines)


def _members(directory: Path) -> list[Path]:
    """Processes that bear the environment's marker, or are in one of its cell's namespaces."""
    mark = f"ENVCTL_CELL={directory}".encode()
    spaces = _spaces_of(directory)
    return [
        process for process in _processes()
        if (((m := _marked(process)) and m[1] == directory)
            or mark in _read(process / "environ").split(b"\0")
            or (spaces and spaces & _own_spaces(process) and not _is_anothers(process, directory)))
        and _of_status(process, "State")[:1] not in (["Z"], ["X"])  # ended; whoever is its parent has not looked yet
    ]


def _is_anothers(process: Path, directory: Path) -> bool:
    """Whether it bears another environment's marker: numbers of namespaces are used again, and it may have got ours."""
    mark = next((word for word in _read(process / "environ").split(b"\0") if word.startswith(b"ENVCTL_CELL=")), b"")
    marked = _marked(process)
    return mark not in (b"", f"ENVCTL_CELL={directory}".encode()) or (marked is not None and marked[1] != directory)


def _spaces_of(directory: Path) -> set[tuple[str, int]]:
    spaces = {space for pid in cells(directory) if len(_depth(Path(f"/proc/{pid}"))) == 2 for space in _own_spaces(Path(f"/proc/{pid}"))}
    try:
        kept = json.loads((directory / "cell.json").read_text())["namespaces"]
    except (OSError, ValueError, KeyError):
        return spaces
    # Numbers of namespaces are used again: what is ours too (or anybody's outside) is not the cell's.
    return (spaces | set(kept.items())) - _own_spaces(Path("/proc/self"))


def _own_spaces(process: Path) -> set[tuple[str, int]]:
    spaces = set()
    for kind in NAMESPACES:
        try:
            spaces.add((kind, (process / "ns" / kind).stat().st_ino))
        except OSError:
            continue
    return spaces


def _title(process: Path) -> str:
    if marked := _marked(process):
        return f"{MARKER} {marked[0]}"
    return _read(process / "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()[:120]


def _namespaces(members: list[Path]) -> list[str]:
    outside = _own_spaces(Path("/proc/self"))
    spaces = {space for process in members for space in _own_spaces(process)} - outside
    return [f"namespace {kind}:[{number}]" for kind, number in sorted(spaces)]


def _mounts(directory: Path) -> list[str]:
    table = _read(Path("/proc/self/mountinfo")).decode(errors="replace")
    places = (line.split()[4] for line in table.splitlines())
    return [f"mount {place}" for place in places if place == str(directory) or place.startswith(f"{directory}/")]


def _sockets(members: list[Path]) -> list[str]:
    held = {number for process in members for number in _socket_numbers(process)}
    lines = []
    table = _read(Path("/proc/net/tcp")).decode() if held else ""  # which takes the kernel longer than all the rest of a census
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in held:  # TCP_LISTEN
            lines.append(f"listening socket 127.0.0.1:{int(fields[1].split(':')[1], 16)}")
    return lines


def _socket_numbers(process: Path) -> Iterator[str]:
    try:
        for fd in (process / "fd").iterdir():
            target = os.readlink(fd)  # noqa: PTH115 - "socket:[N]" is no path
            if target.startswith("socket:["):
                yield target[8:-1]
    except OSError:
        return
