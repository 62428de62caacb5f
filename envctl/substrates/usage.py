"""What processes use, as /proc tells it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from envctl.substrates.base import Usage

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def process_of(pid: int, root: Path = Path("/proc")) -> tuple[float, int] | None:
    """(CPU seconds so far, resident bytes) of a process; None when it has gone."""
    try:
        fields = (root / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE


def by_pid_namespace(root: Path = Path("/proc")) -> dict[int, list[int]]:
    """All visible processes by the number of their PID namespace; those that can't be read are left out."""
    found: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir(root):  # noqa: PTH208  (names are all that is wanted, twice a second)
        if name.isdigit():
            try:
                found[(root / name / "ns/pid").stat().st_ino].append(int(name))
            except OSError:
                continue
    return found


def of_namespaces(spaces: Mapping[str, int]) -> dict[str, Usage]:
    """What the processes of each PID namespace use, by the names that are given for the namespaces' numbers."""
    there = by_pid_namespace()
    found = {name: {str(pid): process_of(pid) for pid in there.get(space, ())} for name, space in spaces.items()}
    return {name: {pid: one for pid, one in seen.items() if one is not None} for name, seen in found.items()}
