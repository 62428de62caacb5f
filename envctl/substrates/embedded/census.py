"""What is alive on this machine, found by markers in /proc: right even where directories, sockets or state are lost."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from envctl.substrates.base import Found
from envctl.substrates.embedded.identity import MARKER

_GONE = re.compile(r"\.gone-(.+)-[0-9a-f]{8}$")
_SPACES = ("user", "pid", "mnt", "net", "ipc", "uts")


def _processes() -> Iterator[Path]:
    return (path for path in Path("/proc").iterdir() if path.name.isdigit())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _marked(process: Path) -> tuple[str, Path] | None:
    """(env id, directory) when this is a process of a cell that has not executed anything else."""
    argv = _read(process / "cmdline").split(b"\0")
    try:
        at = argv.index(MARKER.encode())
        return argv[at + 1].decode(), Path(argv[at + 2].decode())
    except (ValueError, IndexError, UnicodeDecodeError):
        return None


def _depth(process: Path) -> list[str]:
    """Its process ids, from our own namespace inwards."""
    for line in _read(process / "status").decode(errors="replace").splitlines():
        if line.startswith("NSpid:"):
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
    """Every environment of this machine: living cells, and directories below `envs` whose cell is dead (pid None)."""
    found = {
        marked[0]: Found(marked[0], marked[1], int(process.name))
        for process in _processes() if (marked := _marked(process)) and _is_cell(process)
    }
    if envs.is_dir():
        for directory in (path for path in envs.iterdir() if path.is_dir()):
            gone = _GONE.match(directory.name)  # killed while it removed them
            env_id = gone[1] if gone else directory.name
            found.setdefault(env_id, Found(env_id, envs / env_id, None))
    return tuple(sorted(found.values(), key=lambda item: item.id))


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
        if ((m := _marked(process)) and m[1] == directory)
        or mark in _read(process / "environ").split(b"\0")
        or spaces & _own_spaces(process)
    ]


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
    for kind in _SPACES:
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
    for line in _read(Path("/proc/net/tcp")).decode().splitlines()[1:]:
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
