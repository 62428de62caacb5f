"""What a process of the bench `scale` takes: time, memory, and never longer than it may."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.project import HERE

WORK_S = 300.0  # no piece of work takes nearly as long
_TICKS = os.sysconf("SC_CLK_TCK")


Spent = dict[str, float]  # CPU seconds by program


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process and all that it started took, and the control plane meanwhile."""

    wall_s: float
    cpu_s: float
    memory: dict[str, float]  # peak MB by program
    plane_s: Spent = field(default_factory=dict)
    routine_s: Spent = field(default_factory=dict)  # what it would have used in that time anyway, by what it used just before
    steady_s: float = 0.0

    def more_s(self, *programs: str) -> float:
        """CPU seconds of parts of the control plane beyond their routine."""
        return sum(self.plane_s[name] - self.routine_s[name] for name in programs)


def cpu(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS


def resident(pid: int) -> float:
    """MB that a process has now, its share of what is shared."""
    found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def watched(work: str, env_id: str) -> Cost:
    """Runs `work` in a process of its own; its cost with all that it started.  Raises RuntimeError when it fails, or takes too long."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "bench.scale_work", work, env_id], cwd=HERE, stdin=subprocess.DEVNULL)
    memory: dict[str, float] = {}
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, memory, over))
    watcher.start()
    try:
        _, status, used = os.wait4(process.pid, 0)
    finally:
        over.set()
        watcher.join()
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if wall > WORK_S:
        raise RuntimeError(f"{work} {env_id} was still at work after {WORK_S:g} s, and was killed")
    if process.returncode:
        raise RuntimeError(f"{work} {env_id} ended with {process.returncode}")
    return Cost(wall, used.ru_utime + used.ru_stime, memory)


def _watch(pid: int, memory: dict[str, float], over: threading.Event) -> None:
    """Notes the peaks of a process and of all that it started, until it is over; kills it when its time is."""
    deadline = time.monotonic() + WORK_S
    while not over.wait(0.03):
        for one in (tree := list(_tree(pid))):
            with suppress(OSError):
                said = Path(f"/proc/{one}/cmdline").read_bytes()
                name = "plug-in" if b"cluster.provider" in said else "engine" if b"/pulumi\0" in said else "envctl"
                peak = re.search(r"^VmHWM:\s+(\d+)", Path(f"/proc/{one}/status").read_text(), re.MULTILINE)
                memory[name] = max(memory.get(name, 0.0), int(peak[1]) / 1024 if peak else 0.0)
        if time.monotonic() > deadline:
            for one in reversed(tree):
                with suppress(OSError):
                    os.kill(one, signal.SIGKILL)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))
