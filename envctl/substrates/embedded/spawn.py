"""How PID 1 of a cell starts processes: nodes in namespaces of their own, commands inside nodes, helpers beside them.

Everything here that runs after a fork ends in exec or `os._exit`; it never returns into the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from envctl.errors import ResourceError
from envctl.substrates.embedded import ip, root
from envctl.substrates.embedded import syscalls as sys
from envctl.substrates.embedded.identity import NODE_UID
from envctl.substrates.embedded.wire import readable

# The shell stays as the node's PID 1: it reaps orphans, gives its child the ordinary signal dispositions that a PID 1
# lacks, and turns a death by signal into 128 + n.  When it ends, the kernel ends everything else in the node.
INIT = '"$@"; exit $?'
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROCESSES = 4096  # processes and threads of a node: the kernel counts them for each user namespace since 5.14, before for each user
_NODE_NAMESPACES = ("net", "ipc", "uts", "pid", "mnt")


@dataclass(frozen=True, slots=True)
class Command:
    """What is to be executed: standard descriptors are open in the cell's PID 1."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    stdio: tuple[int, int, int]


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

    def exit_of(self, pid: int) -> asyncio.Future[int]:
        """A future of the exit status (128 + signal for signals)."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if pid in self._unclaimed:
            future.set_result(self._unclaimed.pop(pid))
        else:
            self._waiting[pid] = future
        return future

    async def fork(self, child: Callable[[int], NoReturn]) -> tuple[int, asyncio.Future[int]]:
        """Forks and runs `child(report)`, which executes a program, or leaves one behind and names it on `report`.

        Returns the process that is left (its number in the cell) and the future of its exit status.  Raises ResourceError with what `child` raised.
        """
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
            return pid, self.exit_of(pid)
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


def _guarded(child: Callable[[int], NoReturn], report: int) -> NoReturn:
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


def beside(command: Command, netns: int | None) -> Callable[[int], NoReturn]:
    """A command with the machine's files, in the cell's network or in a node's."""

    def child(_report: int) -> NoReturn:
        if netns is not None:
            sys.setns(netns, sys.CLONE_NEWNET)
        os.setsid()
        execute(command)

    return child


def inside(command: Command, init: int) -> Callable[[int], NoReturn]:
    """A command in all namespaces of the node whose PID 1 has the number `init`."""

    def child(report: int) -> NoReturn:
        user = os.open(f"/proc/{init}/ns/user", os.O_RDONLY)
        for fd in [os.open(f"/proc/{init}/ns/{kind}", os.O_RDONLY) for kind in _NODE_NAMESPACES]:
            sys.setns(fd)
        pid = os.fork()
        if pid == 0:
            sys.setns(user, sys.CLONE_NEWUSER)
            os.setsid()
            _become_ordinary()
            execute(command)
        os.write(report, f"pid {pid}\n".encode())
        os._exit(0)

    return child


def removal(path: Path) -> Callable[[int], NoReturn]:
    """Removes a tree."""

    def child(_report: int) -> NoReturn:
        shutil.rmtree(path, ignore_errors=True)
        os._exit(0)

    return child


def node(command: Command, place: root.Root, netns: int, cell_uid: int) -> Callable[[int], NoReturn]:
    """A new node: namespaces and root of its own, an ordinary user without any privilege, a tiny init as PID 1."""

    def child(report: int) -> NoReturn:
        sys.setns(netns, sys.CLONE_NEWNET)
        sys.unshare(sys.CLONE_NEWNS | sys.CLONE_NEWPID | sys.CLONE_NEWIPC | sys.CLONE_NEWUTS)
        socket.sethostname(place.hostname)
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)  # the cell's, from before the pivot
        mine, its = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            mine.close()
            _guarded(lambda _: _node_init(command, place, its), report)
        os.write(report, f"pid {pid}\n".encode())
        its.close()
        if mine.recv(1):
            _map(proc, pid, cell_uid)
            mine.send(b"m")
        os._exit(0)

    return child


def _node_init(command: Command, place: root.Root, mapper: socket.socket) -> NoReturn:
    root.enter(place)
    os.setsid()
    sys.unshare(sys.CLONE_NEWUSER)
    mapper.send(b"u")
    if not mapper.recv(1):
        raise OSError("the user namespace of the node could not be mapped")
    _become_ordinary()
    execute(command)


def _map(proc: int, pid: int, cell_uid: int) -> None:
    for name in ("uid_map", "gid_map"):
        fd = os.open(f"{pid}/{name}", os.O_WRONLY, dir_fd=proc)
        os.write(fd, f"{NODE_UID} {cell_uid} 1".encode())
        os.close(fd)


def _become_ordinary() -> None:
    with contextlib.suppress(PermissionError):  # an ordinary user may not drop groups; the node sees none of their files
        os.setgroups([])
    os.setresgid(NODE_UID, NODE_UID, NODE_UID)
    os.setresuid(NODE_UID, NODE_UID, NODE_UID)
    sys.no_new_privileges()
    with contextlib.suppress(PermissionError):  # refused as a whole (seccomp): then the node can't reach a key either
        sys.leave_session_keyring()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (_PROCESSES, _PROCESSES))


def network(address: str, port: str) -> Callable[[int], NoReturn]:
    """A new network namespace, joined to the cell's bridge by a veth pair; the process stays until it is killed."""

    def child(report: int) -> NoReturn:
        cell = os.open("/proc/self/ns/net", os.O_RDONLY)
        sys.unshare(sys.CLONE_NEWNET)
        node = os.open("/proc/self/ns/net", os.O_RDONLY)
        third, fourth = address.split(".")[2:]
        mac = f"02:00:c6:12:{int(third):02x}:{int(fourth):02x}"
        ip.batch([
            "link set lo up",
            f"link add eth0 address {mac} type veth peer name {port} netns 1",
            f"addr add {address}/16 dev eth0",
            "link set eth0 up",
        ])
        Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")  # nodes have no capability, but may use port 80
        sys.setns(cell, sys.CLONE_NEWNET)
        ip.batch([f"link set {port} master cell0 up"])
        sys.setns(node, sys.CLONE_NEWNET)
        os.close(report)
        while True:
            signal.pause()

    return child
