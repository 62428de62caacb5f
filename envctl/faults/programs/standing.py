"""Has a process stand still for a moment, whoever else stops it or lets it go on meanwhile: as a debugger does, with ptrace(2).

The kernel lets go of what a thread holds so when that thread ends, killed or not; what somebody else has stopped stays stopped then, and a
signal that came meanwhile is not lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from envctl.errors import ResourceError

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_ENDS = "ZX"
_STOPPED = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT | 0x40000000  # of threads, too (__WALL)


def while_standing(pid: int, do: Callable[[], bool], within_s: float) -> bool:
    """Does something while no thread of a process runs.  Raises OSError, and ResourceError where it does not come to stand within that time."""

    def held() -> bool:
        there = _hold(pid, within_s)
        try:
            return do()
        finally:
            for thread, number in there.items():
                with contextlib.suppress(OSError):  # it is dying, which the end of our thread lets it do
                    _ptrace(_DETACH, thread, number)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(held).result()


def _hold(pid: int, within_s: float) -> dict[int, int]:
    """Returns its threads, and the signal that each was about to get."""
    held: dict[int, int] = {}
    deadline = time.monotonic() + within_s
    while new := {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()} - set(held):
        for thread in new:
            _seize(pid, thread)
        while None in (stand := {thread: _stands(thread) for thread in new}).values():
            if time.monotonic() > deadline:
                raise ResourceError(f"the process {pid} could not be stopped within {within_s:g} s")
            time.sleep(0)
        held |= {thread: number or 0 for thread, number in stand.items()}
    return held


def _seize(pid: int, thread: int) -> None:
    try:
        _ptrace(_SEIZE, thread)
        _ptrace(_INTERRUPT, thread)
    except OSError as error:
        if _state(pid, thread) not in _ENDS:
            raise ResourceError(f"the process {pid} can't be stopped, as one that is traced by somebody else") from error


def _stands(thread: int) -> int | None:
    """The signal that it was about to get when it was stopped, 0 for none, or for one that has ended; None as long as it runs."""
    try:
        found = os.waitid(os.P_PID, thread, _STOPPED)
    except ChildProcessError:
        return 0
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_TRAPPED and not found.si_status >> 8 else 0


def _state(pid: int, thread: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0]
    return "X"


def _ptrace(request: int, thread: int, number: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, thread, None, number) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
