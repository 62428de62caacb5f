"""What CPU a node gives to processes in it that take all they can get: how a bound on it shows, and that there is none.

That they get little is no proof: the machine may be busy.  That the bound has kept them from running is.
"""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass

from envctl.errors import CapabilityError, ResourceError
from envctl.substrates.base import Reach

_MARGIN_S = 5.0  # how long those processes outlive whoever should have ended them
# It ends by itself.  The kernel's file tells the machine's own time, whatever clock a node has.
_EAT = 'read now _ < /proc/uptime; end=$((${now%.*} + $1)); while [ "${now%.*}" -lt "$end" ]; do read now _ < /proc/uptime; done'


def check(reach: Reach, node: str) -> None:
    """Raises CapabilityError where no such process can run."""
    try:
        reach.run(node, ["sh", "-c", "read now _ < /proc/uptime"])
    except ResourceError as error:
        raise CapabilityError(f"the CPU that {node} gets can't be measured: {error.message}", hint="its image needs a shell") from error


@dataclass(frozen=True, slots=True)
class Fed:
    """What a node got while processes in it took all that they could get."""

    cpus: float  # seconds of CPU a second
    stood_s: float  # for how long a bound kept it from running


def feed(reach: Reach, node: str, eaters: int, window_s: float) -> Fed:
    """Has so many processes in a node take all the CPU that they get, for a while.  Raises ResourceError."""
    argv = ["sh", "-c", _EAT, "sh", str(round(window_s + _MARGIN_S))]
    processes = [reach.popen(node, argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(eaters)]
    try:
        stood_s, before, begun = reach.throttled(node), _used(reach, node), time.monotonic()
        time.sleep(window_s)
        after, took = _used(reach, node), time.monotonic() - begun
        stood_s = reach.throttled(node) - stood_s
    finally:
        for process in processes:
            process.signal(signal.SIGKILL)
    return Fed(sum(after[pid] - before.get(pid, 0.0) for pid in after) / took, stood_s)


def _used(reach: Reach, node: str) -> dict[str, float]:
    found = reach.usage().get(node)
    if found is None:
        raise ResourceError(f"what {node} uses can't be told: it is {reach.node(node).state}")
    return {pid: cpu for pid, (cpu, _) in found.items()}
