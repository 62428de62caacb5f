"""Speech between clients and a keeper: JSON objects, one a line, over a stream socket; descriptors by SCM_RIGHTS where it is a Unix one.

A connection carries one request, with its descriptors, and one answer; some requests have more of either.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]
_MAX_FDS = 8


def _encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, default=str).encode() + b"\n"


class Lines:
    """One end of a connection.  It owns the descriptors that came, `fds`, until they are dropped."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fds: list[int] = []
        self._buffer = b""

    def taken(self) -> Message | None:
        """The next message, if the whole of it has been read already."""
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        message: Message = json.loads(line)
        return message

    def read(self) -> None:
        """Reads once.  Raises ConnectionError at the end of the stream."""
        data, fds, _flags, _address = socket.recv_fds(self.sock, 1 << 16, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        self.fds += fds
        self._buffer += data
        if not data:
            raise ConnectionError("the other side has gone")

    def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Sends one message (blocking)."""
        data = _encode(message)
        sent = socket.send_fds(self.sock, [data], fds) if fds else 0
        if rest := data[sent:]:  # nothing more may go to who has answered and gone
            self.sock.sendall(rest)

    def receive(self) -> Message:
        """The next message (blocking).  Raises ConnectionError."""
        while (message := self.taken()) is None:
            self.read()
        return message

    def drop_fds(self) -> None:
        """Closes the descriptors that came."""
        while self.fds:
            os.close(self.fds.pop())

    def close(self) -> None:
        """Closes everything."""
        self.drop_fds()
        self.sock.close()


class Peer(Lines):
    """The keeper's end of a connection (non-blocking)."""

    async def hear(self) -> Message | None:
        """The next message, or None when the client has gone."""
        while (message := self.taken()) is None:
            await readable(self.sock.fileno())
            try:
                self.read()
            except ConnectionError:
                return None
        return message

    async def tell(self, message: Mapping[str, Any]) -> None:
        """Sends one message; a client that has gone is fine."""
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(self.sock, _encode(message))


async def readable(fd: int) -> None:
    """Waits until `fd` can be read."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(fd)
