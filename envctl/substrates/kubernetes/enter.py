"""A command in a container, or in its network only: `python3 -I -S enter.py ORDER NAME=VALUE… ARGUMENT…`, as root of the node.

The node's agent runs this file as a program of its own, for two reasons: a process that enters namespaces must have no threads,
and one that has entered a container's files must load nothing any more, so that all it needs is the standard library.

The caller of the agent is trusted with the container, not with the node.  So a command in a container gets that container's
control groups, user, capabilities and `no_new_privs`; and one in its network gets the agent's files, but neither the agent's user, nor
its secrets, its processes, its control groups, or any right but that over the network it has entered.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import struct
import sys
import termios
import warnings  # noqa: F401 - `os.execvpe` would load it from the container's files
from collections.abc import Callable
from typing import NamedTuple, NoReturn

CANNOT = "envctl can't execute"  # begins the message of a command that was not even started; it ends with 127 (not found) or 126
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOBODY = 65534
_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWPID, _NEWNET = 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
_NOSUID_NODEV_NOEXEC, _RDONLY, _REC, _PRIVATE = 0xE, 0x1, 0x4000, 1 << 18
_PDEATHSIG, _DUMPABLE, _KEEPCAPS, _BOUNDING_HAS, _BOUNDING_DROP, _NO_NEW_PRIVS, _AMBIENT = 1, 4, 8, 23, 24, 38, 47
_AMBIENT_RAISE, _CAPABILITIES_V3 = 2, 0x20080522
_NET_ADMIN, _NET_RAW = 1 << 12, 1 << 13
_libc = ctypes.CDLL(None, use_errno=True)


class Target(NamedTuple):
    """What the main process of a container is and may."""

    uid: int
    gid: int
    groups: list[int]
    capabilities: tuple[int, int, int, int]  # bounding, permitted, inheritable, ambient
    no_new_privileges: bool
    env: dict[bytes, bytes]
    root: int  # descriptors
    directory: int
    limits: list[tuple[int, int]]  # by their numbers
    oom_score: str


def _call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> None:
    """A system call, by its name in libc.  Raises OSError."""
    words = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    if getattr(_libc, name)(*words) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def see_groups_of(pid: int) -> None:
    """The caller is told of control groups as that process sees them.  Raises OSError."""
    space = os.open(f"/proc/{pid}/ns/cgroup", os.O_RDONLY)
    _call("setns", space, _NEWCGROUP)
    os.close(space)


def _limit(told: str) -> int:
    return resource.RLIM_INFINITY if told == "unlimited" else int(told)


def look(pid: int) -> Target:
    """Reads what is to be known about a process while its files can still be seen."""
    place = f"/proc/{pid}"
    with open(f"{place}/status") as file:  # noqa: PTH123 - pathlib would double what has to be loaded
        told = dict(line.split(":", 1) for line in file.read().splitlines())
    with open(f"{place}/environ", "rb") as file:  # noqa: PTH123
        pairs = [each.partition(b"=") for each in file.read().split(b"\0")]
    with open(f"{place}/oom_score_adj") as file:  # noqa: PTH123
        score = file.read()
    bounding, permitted, inheritable, ambient = (int(told[name], 16) for name in ("CapBnd", "CapPrm", "CapInh", "CapAmb"))
    with open(f"{place}/limits") as file:  # noqa: PTH123 - prlimit(2) would need one more capability
        limits = [line[26:].split()[:2] for line in file.read().splitlines()[1:]]
    return Target(
        int(told["Uid"].split()[1]), int(told["Gid"].split()[1]), [int(each) for each in told["Groups"].split()],
        (bounding, permitted, inheritable, ambient), told["NoNewPrivs"].strip() == "1", {b"PATH": _PATH.encode()} | {name: value for name, sign, value in pairs if sign},
        os.open(f"{place}/root", os.O_PATH), os.open(f"{place}/cwd", os.O_PATH),
        [(_limit(soft), _limit(hard)) for soft, hard in limits], score,
    )


def _become(uid: int, gid: int, groups: list[int], bounding: int, permitted: int, inheritable: int, ambient: int) -> None:
    """Another user, with these capabilities and no others, now and after every exec; capabilities(7)."""
    for number in range(64):
        if _libc.prctl(_BOUNDING_HAS, number, 0, 0, 0) == 1 and not bounding >> number & 1:
            _call("prctl", _BOUNDING_DROP, number, 0, 0, 0)
    _call("prctl", _KEEPCAPS, 1, 0, 0, 0)
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    low, high = ([each >> shift & 0xFFFFFFFF for each in (permitted, permitted, inheritable)] for shift in (0, 32))
    _call("capset", struct.pack("=Ii", _CAPABILITIES_V3, 0), struct.pack("=6I", *low, *high))
    for number in range(64):
        if ambient >> number & 1:
            _call("prctl", _AMBIENT, _AMBIENT_RAISE, number, 0, 0)


def _with_parent(lifeline: int) -> None:
    """Ends with its parent from now on; to be said again after each change of user.

    A parent in another PID namespace can't be asked for: whether it lives is told by a pipe of which it has the other end.
    """
    _call("prctl", _PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.set_blocking(lifeline, False)
    try:
        if not os.read(lifeline, 1):
            os._exit(128 + signal.SIGKILL)
    except BlockingIOError:
        return


def _as_far_as_allowed() -> contextlib.suppress:
    """For what needs a capability that some machines withhold even from privileged containers (CAP_SYS_RESOURCE)."""
    return contextlib.suppress(OSError, ValueError)


def _in_container(target: Target, pidfd: int) -> None:
    with _as_far_as_allowed(), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write(target.oom_score)
    _call("setns", pidfd, _NEWNS | _NEWCGROUP | _NEWUTS | _NEWIPC | _NEWNET)
    os.fchdir(target.root)
    os.chroot(".")
    os.fchdir(target.directory)
    for kind, limits in enumerate(target.limits):
        with _as_far_as_allowed():
            resource.setrlimit(kind, limits)
    _become(target.uid, target.gid, target.groups, *target.capabilities)
    if target.no_new_privileges:
        _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)


def _in_network(pidfd: int) -> None:
    """The caller is in a new PID namespace already."""
    _call("setns", pidfd, _NEWNET)
    _call("unshare", _NEWNS | _NEWIPC | _NEWUTS)
    _call("mount", None, b"/", None, _REC | _PRIVATE, None)
    _call("mount", b"proc", b"/proc", b"proc", _NOSUID_NODEV_NOEXEC, None)
    _call("mount", b"sysfs", b"/sys", b"sysfs", _NOSUID_NODEV_NOEXEC | _RDONLY, None)  # its own network, and no control groups
    _call("mount", b"tmpfs", b"/tmp", b"tmpfs", _NOSUID_NODEV_NOEXEC, b"mode=1777,size=16m")
    if os.path.isdir("/var/run/secrets"):  # noqa: PTH112
        _call("mount", b"tmpfs", b"/var/run/secrets", b"tmpfs", _NOSUID_NODEV_NOEXEC | _RDONLY, b"mode=755")
    rights = _NET_ADMIN | _NET_RAW
    _become(_NOBODY, _NOBODY, [], rights, rights, rights, rights)
    _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)


def _execute(argv: list[str], env: dict[bytes, bytes]) -> NoReturn:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which this interpreter ignores
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, env)  # noqa: S606 - without a shell is the point
    except OSError as error:
        os.write(2, f"{CANNOT} {argv[0]}: {error.strerror}\n".encode(errors="replace"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _status_of(child: int) -> int:
    """Waits for it, and for whatever else ends meanwhile."""
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def _child(where: str, target: Target, pidfd: int, lifeline: int, groups: list[int], argv: list[str], env: dict[bytes, bytes]) -> NoReturn:
    """The new process: enters, lets go of every right, and executes."""
    sys.path.clear()
    sys.meta_path.clear()  # from here on nothing can be loaded
    os.setsid()
    if os.isatty(0):  # without a terminal of its session a command has no job control, and no Ctrl-C
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.fchown(0, target.uid if where == "node" else _NOBODY, -1)
    os.umask(0o022)
    if where == "node":
        _join(groups)
        _in_container(target, pidfd)
        _with_parent(lifeline)
        _execute(argv, target.env | env)
    if child := os.fork():  # as the first of its namespace a command would get no signal
        _with_parent(lifeline)
        os._exit(_status_of(child))
    _join(groups)
    _in_network(pidfd)
    _with_parent(lifeline)
    _execute(argv, os.environb.copy() | env)


def _join(groups: list[int]) -> None:
    for group in groups:
        os.write(group, b"0")  # the caller


def _guarded(work: Callable[[], int]) -> NoReturn:
    """Ends with what the work returns; never goes back to where the caller was."""
    status = 125
    try:
        status = work()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it must not be looked up in a container's files
        os.write(2, f"envctl can't enter: {error}\n".encode(errors="replace"))
    finally:
        os._exit(status)


def main(order: str, rest: list[str]) -> int:
    """Enters, executes and waits; returns the exit status (128 + signal for signals).  Raises OSError.

    The order is a JSON list: process to enter, when it started (as in /proc/PID/stat), where to, files by which control groups are
    joined, how many variables there are.
    """
    pid, started, where, groups, variables = json.loads(order)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _call("prctl", _PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _call("prctl", _DUMPABLE, 0, 0, 0, 0)  # nothing in a container may look into this process while it still has rights
    pidfd = os.pidfd_open(pid)
    target = look(pid)
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        if int(file.read().rpartition(")")[2].split()[19]) != started:
            raise ProcessLookupError("the container has been started anew")
    env = {os.fsencode(name): os.fsencode(value) for name, _, value in (each.partition("=") for each in rest[:variables])}
    if where == "node":
        _call("setns", pidfd, _NEWPID)  # holds for children
    else:
        _call("unshare", _NEWPID)
    joined = [os.open(group, os.O_WRONLY) for group in groups]
    lifeline, ours = os.pipe()
    if not (child := os.fork()):
        os.close(ours)
        _guarded(lambda: _child(where, target, pidfd, lifeline, joined, rest[variables:], env))
    os.close(lifeline)
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):  # the command's alone
        os.dup2(null, number)
    return _status_of(child)


if __name__ == "__main__":
    _guarded(lambda: main(sys.argv[1], sys.argv[2:]))
