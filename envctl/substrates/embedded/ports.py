"""Published ports: bytes from a listener of the host's to a port of a node, and back."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass

_CHUNK = 1 << 16


@dataclass(slots=True)
class Endpoint:
    """Where a published port is on the host, and where it leads."""

    published: str
    node: str
    address: str
    port: int
    server: asyncio.Server | None = None

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Joins one accepted connection to the node; half-closed connections stay half open."""
        try:
            back_reader, back_writer = await asyncio.open_connection(self.address, self.port)
        except OSError:
            writer.transport.abort()  # the client sees a reset, as from a node that refuses
            return
        await asyncio.gather(_pump(reader, back_writer), _pump(back_reader, writer))
        for end in (writer, back_writer):
            end.close()


class Ports:
    """All published ports, by name."""

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}

    def published(self) -> dict[str, str]:
        """Name → address on the host."""
        return {name: endpoint.published for name, endpoint in self._endpoints.items()}

    async def publish(self, name: str, target: tuple[str, str, int], address: str, listener: int) -> str:
        """Accepts on `listener`, which is bound to `address`; a name that is there keeps its address, and leads to the new target."""
        if name not in self._endpoints:
            self._endpoints[name] = endpoint = Endpoint(address, *target)
            endpoint.server = await asyncio.start_server(endpoint.forward, sock=socket.socket(fileno=os.dup(listener)))
        endpoint = self._endpoints[name]
        endpoint.node, endpoint.address, endpoint.port = target
        return endpoint.published

    def withdraw(self, node: str) -> None:
        """Closes what leads to a node."""
        for name in [name for name, endpoint in self._endpoints.items() if endpoint.node == node]:
            if server := self._endpoints.pop(name).server:
                server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()
