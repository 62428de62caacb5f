"""A second census, which knows nothing of envctl: what is on the machine, before and after.

Nothing here imports envctl or relies on how it marks what it makes.  Whatever was started by this process counts as ours, also
when it was orphaned (`adopt` makes us the parent of all orphans), and so does whatever speaks of one of the directories we gave it.
On a machine that does nothing else, ENVCTL_CHAOS_ALONE=1 makes everything count that is new.

`chaos_census.py [--may-write DIRECTORY]... COMMAND...` runs a command and tells what it leaves on the machine, in HOME, here and
in the places for temporary files.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ALONE = bool(os.environ.get("ENVCTL_CHAOS_ALONE"))
SPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time")
KERNEL = 2  # the process id of the parent of kernel threads, which come and go as the kernel likes
_SET_CHILD_SUBREAPER = 36  # prctl(2)

SPARE = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
Key = tuple[int, int]  # process id and start time in ticks: together they are never used again


@dataclass(frozen=True, slots=True)
class Process:
    """One process as /proc shows it.  `text` is everything in it that may name a directory."""

    pid: int
    start: int
    state: str
    parent: int
    title: str
    text: bytes = field(repr=False)
    spaces: frozenset[str] = field(repr=False)

    @property
    def key(self) -> Key:
        return self.pid, self.start


@dataclass(frozen=True, slots=True)
class Census:
    """Everything that is there at one instant.  Directories have size -1."""

    processes: dict[Key, Process]
    ours: frozenset[Key]  # descendants of this process, and whoever speaks of our directories
    mounts: frozenset[str]
    interfaces: frozenset[str]
    sockets: dict[str, str]  # where somebody listens → the number of the socket
    held: frozenset[str]  # numbers of the sockets that our processes hold
    cgroups: frozenset[str]
    files: dict[str, int]
    memory: frozenset[str]  # shared memory, semaphores and queues of System V
    mark: str


def adopt(*, yes: bool = True) -> None:
    """From now on orphans of our descendants become our children, so that none can hide."""
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def reap(but: Iterable[int] = ()) -> None:
    """Takes the exit status of adopted children that have ended; `but` are somebody's own to wait for."""
    for process in processes().values():
        if process.parent == os.getpid() and process.state == "Z" and process.pid not in but:
            with suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def read(path: Path) -> bytes:
    """The content, or nothing where the process has gone or is not ours to look into."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def link(path: Path) -> str:
    """Where a link of /proc leads."""
    try:
        return str(path.readlink())
    except OSError:
        return ""


def processes() -> dict[Key, Process]:
    """Every process of the machine, the dead that nobody has reaped among them (state Z)."""
    found = (_process(path) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {each.key: each for each in found if each is not None}


def _process(path: Path) -> Process | None:
    before, _, rest = read(path / "stat").partition(b") ")
    fields = rest.split()
    if not fields:
        return None
    argv = read(path / "cmdline")
    text = b"\0".join((argv, read(path / "environ"), link(path / "cwd").encode(), link(path / "root").encode()))
    title = argv.replace(b"\0", b" ").decode(errors="replace").strip()[:150] or before.partition(b"(")[2].decode(errors="replace")
    spaces = frozenset(link(path / "ns" / kind) for kind in SPACES) - {""}
    return Process(int(path.name), int(fields[19]), fields[0].decode(), int(fields[1]), title, text, spaces)


def family(all_: dict[Key, Process], root: int) -> set[Key]:
    """The descendants of a process."""
    children: dict[int, list[Process]] = {}
    for process in all_.values():
        children.setdefault(process.parent, []).append(process)
    found: set[Key] = set()
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child.key not in found:
                found.add(child.key)
                waiting.append(child.pid)
    return found


def take(mark: Path, roots: Iterable[Path], *, ignored: Iterable[Path] = ()) -> Census:
    """What there is now.  `mark` is the directory that only we speak of; the files below `roots` are listed."""
    everybody = processes()
    speaks = {key for key, each in everybody.items() if os.fsencode(mark) in each.text and each.pid != os.getpid()}
    ours = frozenset(family(everybody, os.getpid()) | speaks)
    return Census(
        everybody, ours, frozenset(read(Path("/proc/self/mountinfo")).decode(errors="replace").splitlines()),
        frozenset(path.name for path in Path("/sys/class/net").iterdir()), dict(_listening()),
        frozenset(number for key in ours for number in _sockets_of(key[0])), frozenset(_cgroups()),
        dict(_files(roots, tuple(ignored))) | dict(_spare_files()), frozenset(_shared()), str(mark),
    )


def _listening() -> Iterator[tuple[str, str]]:
    for kind in ("tcp", "tcp6"):
        for line in read(Path(f"/proc/net/{kind}")).decode().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # TCP_LISTEN
                yield f"{kind} port {int(fields[1].rpartition(':')[2], 16)}", fields[9]
    for line in read(Path("/proc/net/unix")).decode(errors="replace").splitlines()[1:]:
        fields = line.split(None, 7)
        if len(fields) == 8 and int(fields[3], 16) & 0x10000:  # __SO_ACCEPTCON
            yield f"unix {fields[7]}", fields[6]


def _sockets_of(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            target = link(path)
            if target.startswith("socket:["):
                yield target[8:-1]


def _cgroups() -> Iterator[str]:
    return (directory for directory, _, _ in os.walk("/sys/fs/cgroup"))


def _files(roots: Iterable[Path], ignored: tuple[Path, ...]) -> Iterator[tuple[str, int]]:
    for root in roots:
        for directory, below, names in os.walk(root):
            here = Path(directory)
            below[:] = [name for name in below if here / name not in ignored]
            for name in (*below, *(name for name in names if here / name not in ignored)):
                if any((here / name) in path.parents for path in ignored):
                    continue  # a directory around what may be written
                with suppress(FileNotFoundError):
                    status = (here / name).lstat()
                    yield str(here / name), -1 if stat.S_ISDIR(status.st_mode) else status.st_size


def _spare_files() -> Iterator[tuple[str, int]]:
    """What a program would leave that doesn't ask where temporary files belong."""
    for place in SPARE if ALONE else ():
        for path in place.iterdir() if place.is_dir() else ():
            yield str(path), -1


def _shared() -> Iterator[str]:
    for kind in ("shm", "sem", "msg"):
        for line in read(Path(f"/proc/sysvipc/{kind}")).decode().splitlines()[1:]:
            key, number = line.split()[:2]
            yield f"{kind} {number} (key {key})"


def leftovers(before: Census, after: Census) -> list[str]:
    """What came and stayed, one line each; empty when nothing did."""
    new = {key: each for key, each in after.processes.items() if key not in before.processes and (ALONE or key in after.ours)}
    alive = [each for each in new.values() if each.state not in "ZX" and each.parent != KERNEL]
    known = {space for each in before.processes.values() for space in each.spaces}
    spaces = {space for each in alive for space in each.spaces} - known
    lines = [f"process {each.pid}: {each.title}" for each in alive]
    lines += [f"namespace {space}" for space in sorted(spaces)]
    lines += [f"mount {line}" for line in sorted(after.mounts - before.mounts) if ALONE or after.mark in line]
    lines += [f"interface {name}" for name in sorted(after.interfaces - before.interfaces)]
    lines += [f"socket {place}" for place, number in after.sockets.items()
              if place not in before.sockets and (ALONE or number in after.held or after.mark in place)]
    lines += [f"cgroup {path}" for path in sorted(after.cgroups - before.cgroups) if ALONE or "envctl" in path]
    lines += [f"shared memory: {line}" for line in sorted(after.memory - before.memory) if ALONE]
    lines += [f"file {path} ({size} bytes)" for path, size in sorted(after.files.items()) if path not in before.files]
    lines += [f"file {path} is gone" for path in sorted(before.files) if path not in after.files and not _spare(path)]
    lines += [f"file {path} has changed" for path, size in sorted(after.files.items()) if before.files.get(path, size) != size]
    return lines


def _spare(path: str) -> bool:
    return Path(path).parent in SPARE


def unreaped(before: Census, after: Census) -> list[str]:
    """Dead processes of ours whose parent has not noticed: no leak, but worth a look when they stay."""
    return [each.title for key, each in after.processes.items() if key in after.ours and key not in before.processes and each.state == "Z"]


def settled(before: Census, roots: Iterable[Path], *, ignored: Iterable[Path] = (), within_s: float = 15.0) -> list[str]:
    """What is left once nothing goes any more, or the time is over: processes that were killed need a moment to end."""
    deadline = time.monotonic() + within_s
    roots, ignored = tuple(roots), tuple(ignored)
    while (left := leftovers(before, take(Path(before.mark), roots, ignored=ignored))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def main() -> int:
    """Runs a command; its exit status, or 1 when it ends well but leaves something."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--may-write", type=Path, action="append", default=[], metavar="DIRECTORY")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    roots, ignored = (Path.home(), Path.cwd()), [path.absolute() for path in asked.may_write]
    adopt()
    before = take(Path.cwd(), roots, ignored=ignored)
    status = subprocess.run(asked.command, check=False).returncode
    reap()
    left = settled(before, roots, ignored=ignored)
    lines = [f"census: {len(left) or 'nothing'} left of {' '.join(asked.command)} (exit status {status})", *left]
    sys.stdout.write("\n  ".join(lines) + "\n")
    return status or bool(left)


if __name__ == "__main__":
    sys.exit(main())
