"""Has a process stand still for a moment, whoever else stops it or lets it go on meanwhile: as a debugger does, with ptrace(2).

The kernel lets go of what a thread holds so when that thread ends, in good order or killed; what somebody else has stopped stays stopped then,
and a signal that came meanwhile is not lost.
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

_SEIZE, _INTERRUPT = 0x4206, 0x4207
_ENDS = "ZX"
_STOPPED = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT | 0x40000000  # of threads, too (__WALL)


def while_standing(pid: int, do: Callable[[], bool], within_s: float) -> bool:
    """Does something while no thread of a process runs.  Raises OSError, and ResourceError where it does not come to stand within that time."""

    def held() -> bool:
        _hold(pid, within_s)
        return do()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(held).result()


def _hold(pid: int, within_s: float) -> None:
    held: set[int] = set()
    deadline = time.monotonic() + within_s
    while new := {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()} - held:
        for thread in new:
            _seize(pid, thread)
        while not all(map(_stands, new)):
            if time.monotonic() > deadline:
                raise ResourceError(f"the process {pid} could not be stopped within {within_s:g} s")
            time.sleep(0)
        held |= new


def _seize(pid: int, thread: int) -> None:
    try:
        _ptrace(_SEIZE, thread)
        _ptrace(_INTERRUPT, thread)
    except OSError as error:
        if _state(pid, thread) not in _ENDS:
            raise ResourceError(f"the process {pid} can't be stopped, as one that is traced by somebody else") from error


def _stands(thread: int) -> bool:
    """Or has ended."""
    with contextlib.suppress(ChildProcessError):
        return os.waitid(os.P_PID, thread, _STOPPED) is not None
    return True


def _state(pid: int, thread: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0]
    return "X"


def _ptrace(request: int, thread: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, thread, None, None) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
