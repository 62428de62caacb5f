"""The cell's address space: a network namespace and an address for each node, kept over restarts of its process."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from envctl.substrates.embedded import spawn
from envctl.substrates.embedded import syscalls as sys


def ip(*lines: str) -> None:
    """Runs lines of iproute2 in one call.  Raises OSError with what it said."""
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip: {done.stderr.strip()}")


class Network:
    """Addresses above 198.18.1.0, by name, for as long as the environment lives; namespaces for as long as a node is wanted."""

    def __init__(self, children: spawn.Children) -> None:
        self._children = children
        self._addresses: dict[str, str] = {}
        self._namespaces: dict[str, int] = {}

    def namespace(self, name: str) -> int:
        """The descriptor that keeps the node's network namespace."""
        return self._namespaces[name]

    async def join(self, name: str) -> str:
        """Gives the node's address, the one it had before or else the next free one, and makes its namespace unless it is there."""
        number = len(self._addresses)
        address = self._addresses.setdefault(name, f"198.18.{1 + number // 254}.{1 + number % 254}")
        if name not in self._namespaces:
            pid, ended = await self._children.fork(lambda report: _hold_namespace(address, report))
            self._namespaces[name] = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            os.kill(pid, signal.SIGKILL)
            await ended
        return address

    def leave(self, name: str) -> None:
        """Lets go of the namespace, if there is one: its interfaces and rules vanish."""
        if name in self._namespaces:
            os.close(self._namespaces.pop(name))


def _hold_namespace(address: str, report: int) -> None:
    """A new network namespace, joined to the cell's bridge by a veth pair, for as long as this process is left alive."""
    cell = os.open("/proc/self/ns/net", os.O_RDONLY)
    sys.unshare(sys.CLONE_NEWNET)
    node = os.open("/proc/self/ns/net", os.O_RDONLY)
    third, fourth = address.split(".")[2:]
    port, mac = f"n{third}-{fourth}", f"02:00:c6:12:{int(third):02x}:{int(fourth):02x}"
    ip(
        "link set lo up",
        f"link add eth0 address {mac} type veth peer name {port} netns 1",
        f"addr add {address}/16 dev eth0",
        "link set eth0 up",
    )
    Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")  # nodes have no capability, but may use port 80
    sys.setns(cell, sys.CLONE_NEWNET)
    ip(f"link set {port} master cell0 up")
    sys.setns(node, sys.CLONE_NEWNET)
    os.close(report)
    while True:
        signal.pause()
