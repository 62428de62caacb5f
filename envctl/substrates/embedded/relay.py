"""Published ports: bytes from a listener of the host's to a port of a node, and back."""

from __future__ import annotations

import asyncio

_CHUNK = 1 << 16


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    """Joins one accepted connection to the node; half-closed connections stay half open."""
    try:
        back_reader, back_writer = await asyncio.open_connection(host, port)
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
