"""How PID 1 of a cell starts processes: nodes in namespaces of their own, commands inside nodes, helpers beside them.

Everything here that runs after a fork ends in exec or `os._exit`; it never returns into the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import signal
import socket
import termios
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from envctl.errors import ResourceError
from envctl.substrates.embedded import root
from envctl.substrates.embedded import syscalls as sys
from envctl.substrates.embedded.identity import NODE_UID
from envctl.substrates.keeper.wire import readable

# The shell stays as the node's PID 1: it reaps orphans, gives its child the ordinary signal dispositions that a PID 1
# lacks, and turns a death by signal into 128 + n.  When it ends, the kernel ends everything else in the node.
INIT = '"$@"; exit $?'
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROCESSES = 4096  # processes and threads of a node: the kernel counts them for each user namespace since 5.14, before for each user
_NODE_NAMESPACES = ("net", "ipc", "uts", "pid", "mnt")
Child = Callable[[int], None]
"""Runs after a fork: executes a program, or leaves one behind, whose number it writes to the descriptor it is given, and returns."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is to be executed: standard descriptors are open in the cell's PID 1."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    stdio: tuple[int, int, int]


Started = tuple[int, asyncio.Future[int]]
"""A process: its number in the cell, and the future of its exit status (128 + signal for signals)."""


class Children:
    """Every child of PID 1, its own and the orphans it adopts."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._unclaimed: dict[int, int] = {}
        self._forking = 0
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            code = 128 - code if code < 0 else code
            if future := self._waiting.pop(pid, None):
                future.set_result(code)
            elif self._forking:  # it may be the one whose number is still on its way
                self._unclaimed[pid] = code

    def _exit_of(self, pid: int) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if pid in self._unclaimed:
            future.set_result(self._unclaimed.pop(pid))
        else:
            self._waiting[pid] = future
        return future

    async def fork(self, child: Child) -> Started:
        """Forks and runs `child`; returns the process that is left.  Raises ResourceError with what `child` raised."""
        read, write = os.pipe()
        self._forking += 1
        try:
            pid = os.fork()
            if pid == 0:
                _guarded(child, write)
            os.close(write)
            lines = await _drain(read)
            for line in lines:
                word, _, rest = line.partition(" ")
                if word == "error":
                    raise ResourceError(rest)
                pid = int(rest)
            return pid, self._exit_of(pid)
        finally:
            os.close(read)
            self._forking -= 1
            if not self._forking:
                self._unclaimed.clear()


async def _drain(fd: int) -> list[str]:
    os.set_blocking(fd, False)
    data = b""
    while True:
        await readable(fd)
        part = os.read(fd, 4096)
        if not part:
            return data.decode().splitlines()
        data += part


def _guarded(child: Child, report: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        child(report)
    except BaseException as error:  # noqa: BLE001 - a forked child must never return into its parent's loop
        text = f"{type(error).__name__}: {error}".replace("\n", " ")
        os.write(report, f"error {text}\n".encode())
    finally:
        os._exit(125)


def execute(command: Command) -> NoReturn:
    """Replaces the caller by the command.  It inherits its three standard descriptors only: all others close on exec."""
    high = [os.dup(fd) for fd in command.stdio]
    for target, fd in enumerate(high):
        os.dup2(fd, target)
    os.umask(0o022)
    os.chdir(command.cwd)
    os.execvpe(command.argv[0], command.argv, dict(command.env))  # noqa: S606 - without a shell is the point


def beside(command: Command, netns: int | None) -> Child:
    """A command with the machine's files, in the cell's network or in a node's."""

    def child(_report: int) -> None:
        if netns is not None:
            sys.setns(netns, sys.CLONE_NEWNET)
        _lead_session(command)
        execute(command)

    return child


def inside(command: Command, init: int) -> Child:
    """A command in all namespaces of the node whose PID 1 has the number `init`."""

    def child(report: int) -> None:
        user = os.open(f"/proc/{init}/ns/user", os.O_RDONLY)
        for fd in [os.open(f"/proc/{init}/ns/{kind}", os.O_RDONLY) for kind in _NODE_NAMESPACES]:
            sys.setns(fd)
        if pid := os.fork():
            os.write(report, f"pid {pid}\n".encode())
            return
        sys.setns(user, sys.CLONE_NEWUSER)
        _lead_session(command)
        _become_ordinary()
        execute(command)

    return child


def _lead_session(command: Command) -> None:
    """A session of its own; a terminal that it is given becomes the session's, without which there is no job control and no Ctrl-C."""
    os.setsid()
    if os.isatty(command.stdio[0]):
        fcntl.ioctl(command.stdio[0], termios.TIOCSCTTY, 0)


def node(command: Command, place: root.Root, netns: int, cell_uid: int) -> Child:
    """A new node: namespaces and root of its own, an ordinary user without any privilege, a tiny init as PID 1."""

    def child(report: int) -> None:
        sys.setns(netns, sys.CLONE_NEWNET)
        sys.unshare(sys.CLONE_NEWPID)
        mine, its = socket.socketpair()
        if pid := os.fork():
            os.write(report, f"pid {pid}\n".encode())
            its.close()
            map_users(pid, mine, {NODE_UID: cell_uid}, {NODE_UID: cell_uid})
            return
        mine.close()
        sys.unshare(sys.CLONE_NEWNS | sys.CLONE_NEWIPC | sys.CLONE_NEWUTS)
        socket.sethostname(place.hostname)
        root.enter(place)
        os.setsid()
        unshare_users(0, its)
        _become_ordinary()
        execute(command)

    return child


def _become_ordinary() -> None:
    os.setresgid(NODE_UID, NODE_UID, NODE_UID)
    os.setresuid(NODE_UID, NODE_UID, NODE_UID)
    sys.no_new_privileges()
    with contextlib.suppress(PermissionError):  # refused as a whole (seccomp): then the node can't reach a key either
        sys.leave_session_keyring()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (_PROCESSES, _PROCESSES))


def unshare_users(flags: int, parent: socket.socket) -> None:
    """A user namespace, and others that belong to it; returns once the parent has said who is who in it."""
    sys.unshare(sys.CLONE_NEWUSER | flags)
    parent.send(b"?")
    if not parent.recv(1):
        raise OSError("the users of the new namespace could not be mapped")


def map_users(pid: int, child: socket.socket, uids: Mapping[int, int], gids: Mapping[int, int]) -> None:
    """What a child that is in `unshare_users` waits for: ids inside → ids here."""
    if not child.recv(1):
        return
    process = Path(f"/proc/{pid}")
    if len(gids) == 1:  # without privilege, a group can be mapped only where groups can't be dropped any more
        (process / "setgroups").write_text("deny")
    for name, ids in (("uid_map", uids), ("gid_map", gids)):
        (process / name).write_text("".join(f"{inside} {here} 1\n" for inside, here in ids.items()))
    child.send(b"!")
