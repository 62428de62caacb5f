"""The first process of a cell: makes the namespaces, maps the users, and ends once PID 1 listens.

`python -c BOOT SOURCES LOCK envctl-cell ENV_ID DIRECTORY`.  The arguments mark the cell: it can be found in /proc without any file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys as system
from pathlib import Path
from typing import NoReturn

from envctl.substrates.embedded import root
from envctl.substrates.embedded import syscalls as sys
from envctl.substrates.embedded.identity import NODE_UID, RESOLVER, cell_uid, stranger_uid
from envctl.substrates.embedded.network import ip
from envctl.substrates.embedded.spawn import map_users, unshare_users
from envctl.substrates.keeper import FIRST_LEASE_S

_SPACES = sys.CLONE_NEWPID | sys.CLONE_NEWNS | sys.CLONE_NEWNET | sys.CLONE_NEWIPC | sys.CLONE_NEWUTS


def main() -> NoReturn:
    """The first process of a cell.  It shares the lock of its maker until it is clear whether there is a cell."""
    signal.alarm(int(FIRST_LEASE_S))
    lock, env_id, directory = int(system.argv[1]), system.argv[-2], Path(system.argv[-1])
    mine, its = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        mine.close()
        os.close(lock)
        _become_pid_1(env_id, directory, its)
    its.close()
    stranger = stranger_uid()
    nodes = {} if stranger is None else {NODE_UID: stranger}
    map_users(pid, mine, {0: os.geteuid(), **nodes}, {0: os.getegid(), **nodes})
    os._exit(0 if mine.recv(1) else 1)


def _become_pid_1(env_id: str, directory: Path, parent: socket.socket) -> NoReturn:
    unshare_users(_SPACES, parent)
    if os.fork():
        os._exit(0)
    os.setsid()
    _furnish(env_id, directory)
    import asyncio

    from envctl.substrates.embedded.cell import live

    asyncio.run(live(env_id, directory, parent))
    os._exit(0)


def _furnish(env_id: str, directory: Path) -> None:
    """The cell's own mounts and bridge.  Helpers see the machine's files, but resolve names by the cell's resolver."""
    os.chdir("/")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    if cell_uid():
        os.setgroups([])
    os.umask(0o022)
    sys.mount("", "/", flags=sys.MS_REC | sys.MS_SLAVE)
    sys.mount("proc", "/proc", "proc", sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC)
    for name, text in (("resolv.conf", root.RESOLV_CONF), ("nsswitch.conf", root.NSSWITCH)):
        (directory / name).write_text(text)
        with contextlib.suppress(OSError):  # a machine without the file
            sys.mount(str(directory / name), os.path.realpath(f"/etc/{name}"), flags=sys.MS_BIND)
    socket.sethostname(env_id)
    ip(
        "link set lo up",
        "link add cell0 address 02:00:c6:12:00:01 type bridge",
        f"addr add {RESOLVER}/16 dev cell0",
        "link set cell0 up",
    )
