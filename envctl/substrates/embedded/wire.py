"""Speech between clients and the cell: one JSON object a line over a Unix stream socket, descriptors by SCM_RIGHTS."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from envctl.model.environment import Mount, Node, NodeSpec
from envctl.model.topology import Probe, Resources

Message = dict[str, Any]
_MAX_FDS = 8


def encode(message: Mapping[str, Any], fds: Sequence[int] = ()) -> bytes:
    """One line.  `fds` tells the receiver how many descriptors belong to it."""
    return json.dumps({**message, "fds": len(fds)}, default=str).encode() + b"\n"


def spec_from(value: Mapping[str, Any]) -> NodeSpec:
    """The NodeSpec that `dataclasses.asdict` made `value` of, after a journey as JSON."""
    fields = dict(value)
    fields["command"] = tuple(fields["command"])
    fields["mounts"] = tuple(Mount(Path(m["source"]), m["target"], m["writable"]) for m in fields["mounts"])
    fields["data"] = Path(fields["data"]) if fields["data"] else None
    fields["ready"] = probe_from(fields["ready"])
    fields["resources"] = Resources(**fields["resources"])
    return NodeSpec(**fields)


def probe_from(value: Mapping[str, Any] | None) -> Probe | None:
    """The Probe in a message, if there is one."""
    return Probe(**{**value, "command": tuple(value["command"])}) if value else None


def spec_to(spec: NodeSpec) -> Message:
    """A NodeSpec as JSON can carry it."""
    return asdict(spec)


def node_from(value: Mapping[str, Any]) -> Node:
    """The Node in a reply."""
    return Node(**value)


class Lines:
    """Cuts a stream into messages and keeps the descriptors that came with them."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""
        self._fds: list[int] = []

    @property
    def pending(self) -> bool:
        """Whether a whole message has been read already."""
        return b"\n" in self._buffer

    def ready(self) -> tuple[Message, list[int]] | None:
        """The next whole message that has been read already, with its descriptors."""
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        message: Message = json.loads(line)
        count = message.pop("fds", 0)
        mine, self._fds = self._fds[:count], self._fds[count:]
        return message, mine

    def read(self) -> bool:
        """Reads once; False at the end of the stream."""
        data, fds, _flags, _address = socket.recv_fds(self.sock, 1 << 16, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        self._buffer += data
        self._fds += fds
        return bool(data)

    def close(self) -> None:
        """Closes the socket and every descriptor that nobody took."""
        for fd in self._fds:
            os.close(fd)
        self.sock.close()


class Peer(Lines):
    """The cell's end of one connection (non-blocking)."""

    async def receive(self) -> tuple[Message, list[int]] | None:
        """The next message, or None when the client has gone."""
        while (message := self.ready()) is None:
            await readable(self.sock.fileno())
            try:
                if not self.read():
                    return None
            except ConnectionError:
                return None
        return message

    async def send(self, message: Mapping[str, Any]) -> None:
        """Sends one message; a client that has gone is fine."""
        try:
            await asyncio.get_running_loop().sock_sendall(self.sock, encode(message))
        except ConnectionError:
            return


async def readable(fd: int) -> None:
    """Waits until `fd` can be read."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _settle, future)
    try:
        await future
    finally:
        loop.remove_reader(fd)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def connect(directory: Path) -> Lines:
    """A client's connection to the cell whose directory this is.  Raises OSError when no cell listens there."""
    # A socket address holds 107 bytes at most: the path goes through a descriptor of its directory.
    anchor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(f"/proc/self/fd/{anchor}/cell.sock")
    except OSError:
        sock.close()
        raise
    finally:
        os.close(anchor)
    return Lines(sock)


def send(lines: Lines, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Sends one message from a client (blocking)."""
    data = encode(message, fds)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sent = lines.sock.sendmsg([data], rights)
    lines.sock.sendall(data[sent:])


def receive(lines: Lines) -> Message:
    """The next message, at a client (blocking).  Raises ConnectionError when the cell has ended."""
    while (message := lines.ready()) is None:
        if not lines.read():
            raise ConnectionError("the cell has ended")
    return message[0]
