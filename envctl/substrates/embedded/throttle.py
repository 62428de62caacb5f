"""A bound on the CPU that a node uses where control groups are not an ordinary user's: whenever its processes have had their share
they are stopped, and go on when it has been repaid.

It runs in PID 1's own loop, so that it ends with the cell and knows of pauses; a look costs well under a millisecond.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

Pids = Callable[[], Sequence[int]]
_TICK_S = 0.02  # the kernel tells what a process has used in hundredths of a second
_PERIOD_S = 0.1  # what is not used within it is lost, as with the kernel's quota
_TICKS = os.sysconf("SC_CLK_TCK")


class Throttle:
    """Of one life of a node."""

    def __init__(self) -> None:
        self.acts = False
        self.stood_s = 0.0  # because of it
        self.paused = False  # somebody else has stopped the processes, and they stay so
        self._task: asyncio.Task[None] | None = None
        self._cpus = 0.0
        self._stopped: set[int] = set()  # by us; one that is becoming somebody else's just then is not seen by looking for it

    def begin(self, pids: Pids, cpus: float) -> None:
        """From now on they use `cpus` seconds of CPU a second at most; takes the place of an earlier bound."""
        if self._task and self._cpus == cpus:
            return
        if self._task:
            self._task.cancel()
        self.acts, self._cpus = True, cpus
        self._task = asyncio.create_task(self._keep(pids, cpus))

    def end(self, pids: Pids) -> None:
        """They use what they like again; a node that is not bounded is fine."""
        self.acts = False
        if self._task:
            self._task.cancel()
            self._task = None
            self._tell(pids(), signal.SIGCONT)

    async def _keep(self, pids: Pids, cpus: float) -> None:
        credit, then, used, stand = 0.0, time.monotonic(), _used(pids()), False
        self._tell(pids(), signal.SIGCONT)  # an earlier bound may have left them standing
        while there := pids():
            now, total = time.monotonic(), _used(there)
            credit = min(cpus * _PERIOD_S, credit + cpus * (now - then)) - max(0.0, total - used)
            self.stood_s += now - then if stand else 0.0
            then, used = now, total
            if stand or credit < 0:  # whatever was forked since the last look, too
                self._tell(there, signal.SIGSTOP if credit < 0 else signal.SIGCONT)
            stand = credit < 0
            await asyncio.sleep(min(_PERIOD_S, max(_TICK_S, -credit / cpus)))

    def _tell(self, pids: Sequence[int], number: int) -> None:
        if self.paused:
            return
        told = {*pids, *(self._stopped if number == signal.SIGCONT else ())}
        self._stopped = told if number == signal.SIGSTOP else set()
        for pid in told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _used(pids: Sequence[int]) -> float:
    """Seconds of CPU that the processes have had, and their children that have ended."""
    return sum(map(_seconds, pids))


def _seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS
