"""The cell's address space: a network namespace and an address for each node, kept over restarts of its process."""

from __future__ import annotations

import os
import signal

from envctl.substrates.embedded import spawn


class Network:
    """Addresses above 198.18.1.0, by name, for as long as the environment lives; namespaces for as long as a node is wanted."""

    def __init__(self, children: spawn.Children) -> None:
        self._children = children
        self._addresses: dict[str, str] = {}
        self._namespaces: dict[str, int] = {}

    def address(self, name: str) -> str:
        """The address of that name: the one it had before, else the next free one."""
        if name not in self._addresses:
            number = len(self._addresses)
            self._addresses[name] = f"198.18.{1 + number // 254}.{1 + number % 254}"
        return self._addresses[name]

    def namespace(self, name: str) -> int:
        """The descriptor that keeps the node's network namespace."""
        return self._namespaces[name]

    async def join(self, name: str) -> str:
        """Makes the node's network namespace, unless it is there, and gives its address."""
        address = self.address(name)
        if name not in self._namespaces:
            port = "n" + "-".join(address.split(".")[2:])
            pid, ended = await self._children.fork(spawn.network(address, port))
            self._namespaces[name] = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            os.kill(pid, signal.SIGKILL)
            await ended
        return address

    def leave(self, name: str) -> None:
        """Lets go of the namespace: its interfaces and rules vanish."""
        os.close(self._namespaces.pop(name))
