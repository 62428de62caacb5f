"""Keeps the wall clocks of a node's processes skewed, those that begin later as well: a process beside the nodes, one for each life of a node.

`python -m envctl.faults.programs.skewer MAIN skew BASE_NS OFFSET_NS DRIFT LEASE_S` says `ok` once all are skewed; each line that it reads is a new
lease.  When the lease has run out, or nobody is there any more to renew it, the clocks are put right.  `… MAIN right` puts them
right at once; `… MAIN look` says which processes are skewed and which are not, which wait by their wall clocks and can't be spared,
and, by name, which can't be skewed.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypedDict

from envctl.errors import CapabilityError, ResourceError
from envctl.faults.programs.vdso import Clock, Skew

RIGHT_S = 10.0  # for those that can't be stopped at once
LOOK_S = 0.05  # a process that begins has the machine's time for so long


class Look(TypedDict):
    """The processes of a node, by their clocks."""

    skewed: list[int]
    right: list[int]  # those that can't be skewed, too
    waiting: list[int]
    strange: list[str]


def main(arguments: list[str]) -> int:
    """See above; 3 and why on standard error where clocks can't be skewed."""
    pid, verb, *rest = arguments
    try:
        space = os.stat(f"/proc/{pid}/ns/pid").st_ino  # noqa: PTH116
        if verb == "look":
            print(json.dumps(_look(space)))  # noqa: T201
        elif verb == "right":
            _right(space)
        else:
            _keep(space, int(rest[0]), int(rest[1]), float(rest[2]), float(rest[3]))
    except FileNotFoundError:
        return 0  # it has ended, and its clocks with it
    except (CapabilityError, ResourceError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 3
    return 0


def _keep(space: int, base_ns: int, offset_ns: int, drift: float, lease_s: float) -> None:
    try:
        end = _lease(space, Skew(base_ns, offset_ns, drift, 0), lease_s)
        while (left := end - time.monotonic()) > 0 and _processes(space):
            if select.select([0], [], [], min(left, LOOK_S))[0]:
                words = os.read(0, 4096).split()
                if not words:
                    return
                lease_s = float(words[-1])
                end = _lease(space, Skew(base_ns, offset_ns, drift, 0), lease_s)
            until_ns = time.time_ns() + round((end - time.monotonic()) * 1e9)
            _each(space, partial(_skew_new, skew=Skew(base_ns, offset_ns, drift, until_ns)))
    finally:
        _right(space)


def _lease(space: int, skew: Skew, lease_s: float) -> float:
    """Skews every clock for so long; returns when that ends, on our monotonic clock."""
    end = time.monotonic() + lease_s
    if _each(space, partial(Clock.skew, skew=replace(skew, until_ns=time.time_ns() + round(lease_s * 1e9)))) and not _look(space)["skewed"]:
        raise ResourceError("no clock could be skewed: this kernel may not let us write what programs only read")
    print("ok", flush=True)  # noqa: T201
    return end


def _skew_new(clock: Clock, skew: Skew) -> None:
    if clock.is_skewed():
        clock.spare()
    else:
        clock.skew(skew)


def _right(space: int) -> None:
    """Puts every clock right.  Raises ResourceError when some can't be, as on a machine that is much too busy."""
    deadline = time.monotonic() + RIGHT_S
    while _each(space, Clock.right) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    if left := _look(space)["skewed"]:
        raise ResourceError(f"the clocks of the processes {', '.join(map(str, left))} could not be put right")


def _look(space: int) -> Look:
    found = Look(skewed=[], right=[], waiting=[], strange=[])
    for pid in _processes(space):
        with suppress(OSError):
            clock = Clock(pid)
            found["skewed" if clock.is_skewed() else "right"].append(pid)
            found["waiting"] += [pid] if clock.waits_by_it() else []
            found["strange"] += [clock.name] if clock.is_strange() else []
    return found


def _each(space: int, do: Callable[[Clock], None]) -> int:
    """Returns how many could not be done: they have ended, are just starting another program, have no time to stop for us, or are no 64-bit programs."""
    failed = 0
    for pid in _processes(space):
        try:
            do(Clock(pid))
        except (OSError, CapabilityError, ResourceError):
            failed += 1
    return failed


def _processes(space: int) -> list[int]:
    """Of a PID namespace."""
    from envctl.substrates.usage import by_pid_namespace

    return by_pid_namespace().get(space, [])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
