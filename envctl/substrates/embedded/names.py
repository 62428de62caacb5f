"""The cell's resolver: a node's name is its address, a component's name is all its nodes' (RFC 1035, A records only).

It runs in PID 1's own loop: an answer costs microseconds, and a resolver that can't die alone is one thing less to supervise.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Any

Lookup = Callable[[str], Sequence[str]]
_A, _ANY = 1, 255
_TTL_S = 1
_RESPONSE, _AUTHORITATIVE, _RECURSION = 0x8000, 0x0400, 0x0180  # QR; AA; RD copied and RA
_NXDOMAIN, _FORMERR, _NOTIMP = 3, 1, 4


def answer(query: bytes, lookup: Lookup) -> bytes:
    """The reply to one DNS message; empty when it is not worth one."""
    if len(query) < 12 or query[2] & 0x80:
        return b""
    ident, flags, questions = struct.unpack("!HHH", query[:6])
    if flags & 0x7800 or questions != 1:
        return _reply(ident, _NOTIMP if flags & 0x7800 else _FORMERR, b"", [])
    try:
        name, end = _name(query, 12)
        kind = struct.unpack("!H", query[end : end + 2])[0]
    except (IndexError, struct.error, UnicodeDecodeError):
        return _reply(ident, _FORMERR, b"", [])
    found = lookup(name.lower())
    addresses = found if kind in (_A, _ANY) else []  # no AAAA: an empty answer at once, never a time-out
    return _reply(ident, 0 if found else _NXDOMAIN, query[12 : end + 4], addresses)


def _name(query: bytes, at: int) -> tuple[str, int]:
    labels = []
    while length := query[at]:
        if length > 63:
            raise IndexError("a question has no reason to be compressed")
        labels.append(query[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    return ".".join(labels), at + 1


def _reply(ident: int, code: int, question: bytes, addresses: Sequence[str]) -> bytes:
    head = struct.pack(
        "!HHHHHH", ident, _RESPONSE | _AUTHORITATIVE | _RECURSION | code, 1 if question else 0, len(addresses), 0, 0,
    )
    records = (
        b"\xc0\x0c" + struct.pack("!HHIH", _A, 1, _TTL_S, 4) + bytes(int(part) for part in address.split("."))
        for address in addresses
    )
    return head + question + b"".join(records)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if reply := answer(data, self._lookup):
            self._transport.sendto(reply, addr)


async def serve(address: str, lookup: Lookup) -> None:
    """Listens on UDP port 53.  Answers are never truncated (TC), so nobody asks again over TCP."""
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Datagrams(lookup), local_addr=(address, 53))
