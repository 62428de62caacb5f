"""Leaves no room in a directory of a node that is a file system of its own, of a fixed size, in memory: a process beside the nodes.

`python -m envctl.faults.programs.disk_filler MAIN PATH fill LEASE_S` makes it as small as what is in it and says `ok`; each line that it reads is
a new lease.  When the lease has run out, or nobody is there any more to renew it, it has its size again.  `… free` gives it its size at
once, `… look` says what it is.  Where this process is killed, another one that it has started does so.  The size that it had is in the name of an empty file in it: whoever comes next finds it there.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import sys
import time
from pathlib import Path

from envctl.errors import CapabilityError

_MARK = ".envctl-size-"
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CLONE_NEWNS = 0x00020000
_FLAGS = 0x20 | 0x2 | 0x4  # mounted again: without setuid programs, without devices


def main(arguments: list[str]) -> int:
    """See above; 3 and why on standard error where it can't be."""
    pid, path, verb, *rest = arguments
    try:
        space, mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), Path(f"/proc/{pid}/mountinfo").read_text()
    except OSError:
        return 0  # it has ended, and its file systems with it
    try:
        place = Path(path)
        _check_kind(place, mounts)
        _called("setns", space, _CLONE_NEWNS)
        if verb == "look":
            print(json.dumps({"size": _size(place), "full": bool(_marks(place))}))  # noqa: T201
        elif verb == "free":
            _free(place)
        else:
            _keep(place, float(rest[0]))
    except (CapabilityError, OSError) as error:
        print(error, getattr(error, "hint", ""), sep="; ", file=sys.stderr)  # noqa: T201
        return 3
    return 0


def _keep(place: Path, lease_s: float) -> None:
    _leave_reaper(place)
    try:
        while True:
            _fill(place)
            print("ok", flush=True)  # noqa: T201
            end = time.monotonic() + lease_s
            if not select.select([0], [], [], max(0.0, end - time.monotonic()))[0] or not (words := os.read(0, 4096).split()):
                return
            lease_s = float(words[-1])
    finally:
        _free(place)


def _leave_reaper(place: Path) -> None:
    """Starts a process that gives the place its size once we have ended, however that comes about."""
    ended, ours = os.pipe()  # ours is open for as long as we live
    if os.fork():
        os.close(ended)
        return
    os.setsid()
    os.close(ours)
    os.closerange(0, 3)  # who listens to us is told of our end by theirs
    os.read(ended, 1)
    _free(place)
    os._exit(0)


def _check_kind(place: Path, mounts: str) -> None:
    """Raises CapabilityError where it is no file system of its own, in memory and of a fixed size."""
    for line in mounts.splitlines():
        about, _, more = line.partition(" - ")
        kind, _, options = more.split(" ", 2)
        if about.split()[4] == str(place) and kind == "tmpfs" and re.search(r"\bsize=\d", options):
            return
    raise CapabilityError(f"{place} is no file system of its own with a fixed size: to fill it would fill the machine's disk",
                          hint="a node that `envctl ci` brings up for the scenario has one as /data")


def _size(place: Path) -> int:
    told = os.statvfs(place)
    return told.f_blocks * told.f_frsize


def _marks(place: Path) -> list[Path]:
    return list(place.glob(f"{_MARK}*"))


def _fill(place: Path) -> None:
    """What was deleted since leaves no room either."""
    if not _marks(place):
        (place / f"{_MARK}{_size(place)}").touch()
    told = os.statvfs(place)
    _resize(place, max(_PAGE, (told.f_blocks - told.f_bfree) * told.f_frsize))


def _free(place: Path) -> None:
    for mark in _marks(place):
        _resize(place, int(mark.name.removeprefix(_MARK)))
        mark.unlink(missing_ok=True)


def _resize(place: Path, size: int) -> None:
    _called("mount", b"tmpfs", str(place).encode(), b"tmpfs", ctypes.c_ulong(_FLAGS), f"size={size}".encode())


def _called(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
