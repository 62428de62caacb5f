"""What a cell is known by, and who its nodes are."""

from __future__ import annotations

import os
from pathlib import Path

MARKER = "envctl-cell"  # among the arguments of a cell's processes: it can be found in /proc without any file
NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts")  # that a cell has for itself
RESOLVER = "198.18.0.1"  # the address of the cell's bridge, where it answers names
NODE_UID = 1000  # what a node sees itself as
# Above what useradd, systemd-nspawn and container engines hand out: an identity that owns nothing on the machine.
_STRANGER_UID = 1_900_000_000


def stranger_uid() -> int | None:
    """The host uid that nodes run as when envctl is root; None for an ordinary user, whose nodes run as that user."""
    if os.geteuid():
        return None
    extents = [[int(n) for n in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    highest = max(min(_STRANGER_UID, first + count - 1) for first, _, count in extents)
    return highest or None


def cell_uid() -> int:
    """What nodes run as, seen from the cell: a second mapped user if there is one, else the cell's only one."""
    return NODE_UID if len(Path("/proc/self/uid_map").read_text().splitlines()) > 1 else 0
