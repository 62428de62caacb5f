"""Published ports: bytes from a listener of the host's to a port of a node, and back."""

from __future__ import annotations

import asyncio
import functools
import os
import socket

_CHUNK = 1 << 16
Target = tuple[str, str, int]
"""A node's name, its address and a port of it."""


class Ports:
    """All published ports, by name.  `published`: their addresses on the host."""

    def __init__(self) -> None:
        self.published: dict[str, str] = {}
        self._targets: dict[str, Target] = {}
        self._servers: dict[str, asyncio.Server] = {}

    async def publish(self, name: str, target: Target, address: str, listener: int) -> str:
        """Accepts on `listener`, which is bound to `address`; a name that is there keeps its address, and leads to the new target."""
        self._targets[name] = target
        if name not in self.published:
            self.published[name] = address
            accept = functools.partial(self._forward, name)
            self._servers[name] = await asyncio.start_server(accept, sock=socket.socket(fileno=os.dup(listener)))
        return self.published[name]

    def withdraw(self, node: str) -> None:
        """Closes what leads to a node."""
        for name in [name for name, target in self._targets.items() if target[0] == node]:
            self._servers.pop(name).close()
            del self._targets[name], self.published[name]

    async def _forward(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Joins one accepted connection to the node; half-closed connections stay half open."""
        try:
            back_reader, back_writer = await asyncio.open_connection(*self._targets[name][1:])
        except OSError:
            writer.transport.abort()  # the client sees a reset, as from a node that refuses
            return
        await asyncio.gather(_pump(reader, back_writer), _pump(back_reader, writer))
        for end in (writer, back_writer):
            end.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()
