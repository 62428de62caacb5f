"""The processes of a container, as the node sees them: found, signalled, paused, counted, and joined by others.

A container is known by its id alone: runtimes put it into the name of its control group, which /proc tells of each process.
Works with control groups of version 1 and 2.  Standard library only, and nothing of Kubernetes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal as signals
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from envctl.errors import CapabilityError, ResourceError
from envctl.substrates.base import Usage, Where
from envctl.substrates.kubernetes import enter
from envctl.substrates.usage import process_of
from envctl.waiting import until

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_COMMAND = "envctl-"  # begins the name of the control group of a command that has entered
_FREEZER = "freezer"
_CPU, _MEMORY = ("cpu.max", "cpu.cfs_quota_us"), ("memory.max", "memory.limit_in_bytes")  # of version 2, of version 1
_QUOTA_MIN_US = 1_000
_BEFORE = "trusted.envctl"
_LATER_S = 5.0  # within which processes are stopped, and killed ones have gone
_ID = re.compile("[0-9a-f]{64}")
_NODE = _PROC / "1"  # a process of the node's own
_known: dict[str, Path] = {}


def _groups_of(pid: int) -> dict[str, Path]:
    """The control groups of a process by hierarchy: the controllers of one of version 1, nothing for version 2."""
    found = {}
    for line in (_PROC / str(pid) / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "/.." not in path:  # beyond what can be seen here
            found[controllers] = _mounted(controllers) / path.lstrip("/")
    return found


def _mounted(controllers: str) -> Path:
    if controllers:
        return _GROUPS / controllers.removeprefix("name=")
    return _GROUPS if (_GROUPS / "cgroup.procs").exists() else _GROUPS / "unified"


def _preferred(groups: Mapping[str, Path]) -> list[Path]:
    """Those that are here, the one that can freeze first: of version 1, then version 2, then others."""
    return [groups[name] for name in sorted(groups, key=lambda name: (name != _FREEZER, name)) if groups[name].is_dir()]


def group(container: str) -> Path:
    """The control group of a container, in the hierarchy that can freeze where there is one.  Raises ResourceError."""
    if (known := _known.get(container)) and known.is_dir():
        return known
    for pid in _all() if _ID.fullmatch(container) else ():
        with contextlib.suppress(OSError):
            for place in _preferred(_groups_of(pid)):
                if own := _own_part(place, container):
                    _known[container] = own
                    return own
    _known.pop(container, None)
    raise ResourceError(f"nothing runs in the container {container[:12]}")


def _own_part(place: Path, container: str) -> Path | None:
    """A control group or the one above it that is the container's as a whole."""
    own_name = re.compile(rf"(?!.*conmon)([a-z-]+-)?{container}(\.scope)?")
    return next((each for each in (place, *place.parents) if own_name.fullmatch(each.name) and each.is_dir()), None)


def _all() -> Iterator[int]:
    return (int(name) for name in os.listdir(_PROC) if name.isdigit())  # noqa: PTH208 - names are all that is wanted


def _members(place: Path) -> list[int]:
    """The processes of a control group and of those below it that live."""
    pids: set[int] = set()
    for below, _, _ in os.walk(place):
        with contextlib.suppress(OSError):  # it has gone
            pids |= {int(pid) for pid in (Path(below) / "cgroup.procs").read_text().split()}
    return sorted(pid for pid in pids if _stat(pid)[0] not in "ZX")


def _stat(pid: int) -> tuple[str, int]:
    """State of a process, and when it started; one that has gone is dead."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return fields[0], int(fields[19])


def processes(container: str) -> list[int]:
    """What runs in a container.  Raises ResourceError when nothing does."""
    if pids := _members(group(container)):
        return pids
    raise ResourceError(f"nothing runs in the container {container[:12]}")


def main_of(container: str) -> int:
    """The container's main process: the one that was there first.  Raises ResourceError."""
    return min(processes(container), key=lambda pid: (_stat(pid)[1], pid))


def signal(container: str, number: int) -> None:
    """Signals the main process; SIGKILL ends every process, the main one first, so that its end is what is told of the container."""
    main = main_of(container)
    if number != signals.SIGKILL:
        _kill(main, number)
        return
    place = group(container)
    _kill(main, number)
    _freeze(place, frozen=False)  # of what is frozen, version 1 lets nothing die
    until(lambda: _stat(main)[0] in "ZX", _LATER_S, poll_s=0.002)
    kill_all(place)


def kill_all(place: Path) -> bool:
    """Kills every process of a control group, and what they start meanwhile; whether all are dead.

    What is frozen by version 1 dies when it thaws.
    """
    return until(lambda: not tell(place, signals.SIGKILL), _LATER_S, poll_s=0.01)


def tell(place: Path, number: int) -> int:
    """Signals every process of a control group; returns how many there were."""
    pids = _members(place)
    for pid in pids:
        _kill(pid, number)
    return len(pids)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def pause(container: str) -> None:
    """Stops every process of a container where it is.  Idempotent.  Raises ResourceError."""
    place = group(container)
    if _freeze(place, frozen=True):
        stopped = until(lambda: _is_frozen(place), _LATER_S, poll_s=0.005)
    else:
        stopped = until(lambda: not _stop(place), _LATER_S, poll_s=0.0)
    if not stopped:
        resume(container)
        raise ResourceError("its processes could not all be stopped")


def is_paused(container: str) -> bool:
    """Whether every process of a container stands still.  Raises ResourceError when nothing runs there."""
    place = group(container)
    with contextlib.suppress(FileNotFoundError):
        if _is_frozen(place):
            return True
    return all(_stat(pid)[0] in "TtZX" for pid in processes(container))


def _stop(place: Path) -> list[int]:
    """Stops its processes; returns those that could still have made another one.

    (One that waits in the kernel stops as soon as it leaves it; for the end of a stopped `vfork`, that may be never.)
    """
    running = [pid for pid in _members(place) if _stat(pid)[0] not in "TtD"]
    for pid in running:
        _kill(pid, signals.SIGSTOP)
    return running


def resume(container: str) -> None:
    """Lets them go on.  Idempotent; a container that has ended is fine."""
    with contextlib.suppress(ResourceError):
        place = group(container)
        if not _freeze(place, frozen=False):
            tell(place, signals.SIGCONT)


def _freeze(place: Path, *, frozen: bool) -> bool:
    """Freezes or thaws a control group, if it can be; whether it can."""
    for name, words in (("freezer.state", ("THAWED", "FROZEN")), ("cgroup.freeze", ("0", "1"))):
        with contextlib.suppress(FileNotFoundError):
            with (place / name).open("r+") as file:
                file.write(words[frozen])
            return True
    return False


def _is_frozen(place: Path) -> bool:
    if (state := place / "freezer.state").exists():
        return state.read_text().strip() == "FROZEN"
    return "frozen 1" in (place / "cgroup.events").read_text()


def limit(container: str, cpus: float | None, memory_bytes: int | None) -> None:
    """Bounds what a container may use, but never above what it might anyway; None ends such a bound.  Idempotent.

    Raises ResourceError, also for memory that it can't do without, and CapabilityError where the machine can't.
    """
    quota, most = _limits_of(container, "cpu", _CPU), _limits_of(container, "memory", _MEMORY)
    if (cpus is not None and quota is None) or (memory_bytes is not None and most is None):
        raise CapabilityError("this machine has no control groups that limit what is asked for")
    if quota:
        _bind(quota, None if cpus is None else max(_QUOTA_MIN_US, round(cpus * _period(quota))))
    if most:
        _bind(most, memory_bytes)


def unlimit(container: str) -> None:
    """Ends what bounds it.  Idempotent; a container that has ended is fine.  Raises ResourceError."""
    try:
        main_of(container)
    except ResourceError:
        return
    limit(container, None, None)


def throttled(container: str) -> float:
    """Seconds for which its quota has kept a container from running; 0 where nothing counts that."""
    quota = _limits_of(container, "cpu", _CPU)
    said = dict(line.split() for line in quota.with_name("cpu.stat").read_text().splitlines()) if quota else {}
    return int(said["throttled_usec"]) / 1e6 if "throttled_usec" in said else int(said.get("throttled_time", 0)) / 1e9


def _limits_of(container: str, controller: str, names: Iterable[str]) -> Path | None:
    """The file with a limit of a container, by whichever of its names is there."""
    groups = _groups_of(main_of(container))
    place = next((path for name, path in groups.items() if controller in name.split(",") and path.is_dir()), groups.get("", _GROUPS))
    own = _own_part(place, container)
    return next((own / name for name in names if (own / name).exists()), None) if own else None


def _period(quota: Path) -> int:
    """Microseconds in which a quota of CPU time may be used."""
    both = quota.read_text().split()
    return int(both[1] if len(both) > 1 else quota.with_name("cpu.cfs_period_us").read_text())


def _bind(file: Path, most: int | None) -> None:
    """Lowers a limit, or gives back the one that was there first, which is noted on the file itself: whoever comes next finds it."""
    try:
        before = os.getxattr(file, _BEFORE).decode()
    except OSError:
        before = ""
    try:
        if most is None:
            if before:
                file.write_text(before)
                os.removexattr(file, _BEFORE)
            return
        if not before:
            before = file.read_text().split()[0]
            os.setxattr(file, _BEFORE, before.encode())
        file.write_text(before if before not in ("max", "-1") and int(before) < most else str(most))
    except OSError as error:
        raise ResourceError(f"{file.name} can't be set: {error.strerror}") from error


def usage(container: str) -> Usage:
    """What its processes use, by their numbers on the node.  Raises ResourceError when nothing runs."""
    found = {str(pid): process_of(pid) for pid in processes(container)}
    return {pid: one for pid, one in found.items() if one is not None}


def _refuse_what_is_not_its_own(pid: int, where: Where) -> None:
    """Raises ResourceError for a container that has the node's own network, or users of its own."""
    there = _PROC / str(pid) / "ns"
    if where == "netns" and (_NODE / "ns/net").samefile(there / "net"):
        raise ResourceError("the pod is in the node's own network, which is not to be disturbed")
    if where == "node" and not (_PROC / "self/ns/user").samefile(there / "user"):
        raise ResourceError("pods with users of their own (`hostUsers: false`) can't be entered")


def entry(container: str, argv: Sequence[str], env: Mapping[str, str], where: Where) -> tuple[list[str], Path]:
    """The command line that runs a command in a container, or in its network; and the control group in which it will be.

    That group is the command's own, below the container's (or the caller's), so that all it starts can be found; whoever runs the
    command removes it.  Raises ResourceError.
    """
    main = main_of(container)
    _refuse_what_is_not_its_own(main, where)
    outer = group(container) if where == "node" else _preferred(_groups_of(os.getpid()))[0]
    own = outer / f"{_COMMAND}{uuid.uuid4().hex}"
    joined = [place for place in _preferred(_groups_of(main)) if not place.is_relative_to(outer)] if where == "node" else []
    variables = [f"{name}={value}" for name, value in env.items()]
    order = json.dumps([main, _stat(main)[1], where, [f"{place}/cgroup.procs" for place in (own, *joined)], len(variables)])
    own.mkdir()
    return [sys.executable, "-I", "-S", enter.__file__, order, *variables, *argv], own


def remove(place: Path) -> None:
    """Removes the control group of a command that has ended, unless something lives in it on and on."""

    def removed() -> bool:
        with contextlib.suppress(OSError):  # it has gone, or not yet: the kernel counts the dead for a moment
            place.rmdir()
        return not place.exists()

    until(removed, _LATER_S, poll_s=0.01)


def recover(container: str) -> None:
    """What an agent that has been killed left in a container: it is thawed, no longer limited, and commands end."""
    resume(container)
    with contextlib.suppress(ResourceError):
        unlimit(container)
        for own in group(container).glob(f"{_COMMAND}*/"):
            kill_all(own)
            remove(own)
