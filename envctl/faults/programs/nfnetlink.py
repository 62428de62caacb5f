"""Just enough of nfnetlink to hold packets in a queue of netfilter: a rule that sends packets there, and the queue itself.

A rule for a queue is made here and not by nft, because nft only knows the expression `queue`; kernels without it (CONFIG_NFT_QUEUE)
may still have the target NFQUEUE of iptables (CONFIG_NETFILTER_XT_TARGET_NFQUEUE), which fits into a rule of nftables (CONFIG_NFT_COMPAT).
Source: linux/netfilter/{nfnetlink,nfnetlink_queue,nf_tables,nf_tables_compat,xt_NFQUEUE}.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

Means = Literal["queue", "NFQUEUE"]  # the expression of nftables, the target of iptables

_NETFILTER = 12  # NETLINK_NETFILTER
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_ERROR, _BATCH_BEGIN, _BATCH_END = 2, 16, 17
_QUEUE, _NFTABLES = 3, 10  # subsystems
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 3, 6
_VERDICT, _CONFIG = 1, 2
_NESTED = 0x8000
_IPV4, _BYPASS = 2, 1  # the family of our tables; a queue that nobody reads lets packets pass
_BIND, _COPY_META, _COPY_PACKET = 1, 1, 2
_FAIL_OPEN, _GSO = 1, 4
_ACCEPT = 1
_SO_RCVBUFFORCE, _SOL_NETLINK, _NO_ENOBUFS = 33, 270, 5
PACKETS = 1 << 16  # what the queue may hold: far more than a link of a test carries in a second
_BUFFER_BYTES = 1 << 24
_LONGEST = (1 << 16) + 1024
_QUEUES = Path("/proc/self/net/netfilter/nfnetlink_queue")
_HEAD = struct.Struct("=IHHIIBBH")
_VERDICT_OF = struct.Struct("=IHHIIBBHHHII")


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nested(kind: int, *inner: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(inner))


def _name(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _message(kind: int, flags: int, resource: int, *attributes: bytes, family: int = 0) -> bytes:
    body = b"".join(attributes)
    return _HEAD.pack(_HEAD.size + len(body), kind, flags | _REQUEST, 0, 0, family, 0, socket.htons(resource)) + body


def _rule(table: str, chain: str, means: Means, number: int) -> bytes:
    """A rule whose only expression sends packets to a queue, or on where nobody reads it."""
    if means == "queue":
        data = [attribute(kind, struct.pack("!H", value)) for kind, value in ((1, number), (2, 1), (3, _BYPASS))]
    else:  # struct xt_NFQ_info_v3, aligned
        data = [_name(1, "NFQUEUE"), attribute(2, struct.pack("!I", 3)), attribute(3, struct.pack("=HHHxx", number, 1, _BYPASS))]
    expression = _nested(1, _name(1, "queue" if means == "queue" else "target"), _nested(2, *data))
    return _message(_NFTABLES << 8 | _NEW_RULE, _ACK | _CREATE | _APPEND, 0,
                    _name(1, table), _name(2, chain), _nested(4, expression), family=_IPV4)


def _transact(*messages: bytes, commit: bool) -> None:
    """Sends one transaction; without its end the kernel checks it and forgets it.  Raises OSError with the kernel's refusal."""
    batch = [_message(_BATCH_BEGIN, 0, _NFTABLES), *messages, *([_message(_BATCH_END, 0, _NFTABLES)] if commit else [])]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as netlink:
        netlink.settimeout(5)
        netlink.send(b"".join(batch))
        for _ in messages:
            _acknowledged(netlink)


def _acknowledged(netlink: socket.socket) -> None:
    data = netlink.recv(_LONGEST)
    kind, = struct.unpack_from("=H", data, 4)
    code, = struct.unpack_from("=i", data, 16) if kind == _ERROR else (0,)
    if code:
        raise OSError(-code, os.strerror(-code))


def usable() -> Means | None:
    """By which means a rule can send packets to a queue in this network namespace; None where the kernel has none.  Changes nothing.

    Raises PermissionError without the right to change packet rules.
    """
    name = "envctl_try"
    made = [_message(_NFTABLES << 8 | kind, _ACK | _CREATE, 0, *names, family=_IPV4)
            for kind, names in ((_NEW_TABLE, [_name(1, name)]), (_NEW_CHAIN, [_name(1, name), _name(3, name)]))]
    means: Means
    for means in ("queue", "NFQUEUE"):
        try:
            _transact(*made, _rule(name, name, means, 0), commit=False)
        except PermissionError:
            raise
        except OSError:
            continue
        return means
    return None


def send_to_queue(table: str, chain: str, number: int, means: Means) -> None:
    """Adds to a chain of a table of the family ip the rule that sends packets to a queue.  Raises OSError."""
    _transact(_rule(table, chain, means, number), commit=True)


class PacketQueue:
    """A queue of netfilter in this network namespace.  When it closes, the kernel drops what it still holds."""

    def __init__(self, number: int, *, whole: bool) -> None:
        """Binds it; `whole`: the packets' content is read, too, with complete checksums.  Raises OSError: EBUSY when another has it."""
        self.number, self._whole = number, whole
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self._netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        with contextlib.suppress(PermissionError):  # the machine's limit stays then
            self._netlink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._netlink.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)  # what does not fit is counted by the kernel
        self._configure(attribute(1, struct.pack("!BxH", _BIND, 0)))
        self._configure(attribute(2, struct.pack("!IB", _LONGEST if whole else 0, _COPY_PACKET if whole else _COPY_META)))
        self._configure(attribute(3, struct.pack("!I", PACKETS)))
        flags = _FAIL_OPEN | (0 if whole else _GSO)  # without GSO the kernel takes large packets apart and completes their checksums
        self._configure(attribute(4, struct.pack("!I", _FAIL_OPEN | _GSO)), attribute(5, struct.pack("!I", flags)))
        self._netlink.setblocking(False)

    def fileno(self) -> int:
        """For `select`."""
        return self._netlink.fileno()

    def _configure(self, *attributes: bytes) -> None:
        self._netlink.send(_message(_QUEUE << 8 | _CONFIG, _ACK, self.number, *attributes))
        _acknowledged(self._netlink)

    def arrived(self, most: int = 256) -> Iterator[tuple[int, bytes]]:
        """Up to so many packets that wait: their numbers, and their content if it is read."""
        for _ in range(most):
            try:
                data = self._netlink.recv(_LONGEST)
            except (BlockingIOError, InterruptedError):
                return
            number, = struct.unpack_from("!I", data, _HEAD.size + 4)
            yield number, self._payload(data) if self._whole else b""

    @staticmethod
    def _payload(data: bytes) -> bytes:
        at = _HEAD.size
        while at < len(data):
            length, kind = struct.unpack_from("=HH", data, at)
            if kind & ~_NESTED == 10:
                return data[at + 4:at + length]
            at += length + -length % 4
        return b""

    def accept(self, numbers: Sequence[int]) -> None:
        """Lets packets go on as they came."""
        for start in range(0, len(numbers), 1024):
            self._send(b"".join(self._verdict(number) for number in numbers[start:start + 1024]))

    def accept_altered(self, number: int, payload: bytes) -> None:
        """Lets a packet go on with another content."""
        header = struct.pack("!II", _ACCEPT, number)
        self._send(_message(_QUEUE << 8 | _VERDICT, 0, self.number, attribute(2, header), attribute(10, payload)))

    def _verdict(self, number: int) -> bytes:
        return _VERDICT_OF.pack(_VERDICT_OF.size, _QUEUE << 8 | _VERDICT, _REQUEST, 0, 0, 0, 0, socket.htons(self.number),
                                12, 2, socket.htonl(_ACCEPT), socket.htonl(number))

    def _send(self, data: bytes) -> None:
        self._netlink.setblocking(True)
        try:
            self._netlink.send(data)
        finally:
            self._netlink.setblocking(False)

    def counts(self) -> tuple[int, int]:
        """How many packets the kernel has queued, read or not, and how many it dropped.

        Raises PermissionError for an ordinary user, and OSError when the queue is gone.
        """
        for line in _QUEUES.read_text().splitlines():
            number, _, _, _, _, full, unread, queued, *_ = map(int, line.split())
            if number == self.number:
                return queued, full + unread
        raise OSError(errno.ENOENT, f"the queue {self.number} is not there")
