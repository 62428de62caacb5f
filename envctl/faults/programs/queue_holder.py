"""Holds the packets that rules send to a queue of netfilter for a while, or alters them.

Run inside a node's network namespace: `python -m envctl.faults.programs.queue_holder hold TABLE CHAIN LEASE_S DELAY_S JITTER_S`, or `… corrupt TABLE
CHAIN LEASE_S`, binds a free queue, adds the rule for it to that chain, and says how.  Then it obeys lines on its standard input: `lease
SECONDS` renews its lease, `tell` answers with its counts as JSON.  It ends with its lease, or when its standard input closes; what it
still holds goes on then.  Killed, it takes along what it held, and the rule lets everything pass.  `… try` says whether all of that can
work here, and changes nothing.
"""

from __future__ import annotations

import errno
import heapq
import json
import os
import random
import select
import sys
import time
import zlib

from envctl.faults.programs import nfnetlink

_ROUNDS = 256  # of reading before it counts: as many as a full queue needs
_TRIES = 64  # numbers of queues, from one that the table's name gives: others may have taken theirs


class Holder:
    """A queue and what is held of it."""

    def __init__(self, queue: nfnetlink.PacketQueue, delay_s: float, jitter_s: float, *, corrupt: bool) -> None:
        self._queue, self._delay_s, self._jitter_s, self._corrupt = queue, delay_s, jitter_s, corrupt
        self._held: list[tuple[float, int]] = []  # when each is due, and its number: a heap
        self._random = random.Random()  # which packet it hits is chance: there is no order of packets that a seed could repeat
        self._read = self._most = self._newest = 0

    def take(self) -> int:
        """Reads what has arrived, and decides when it goes on; returns how much that was."""
        before = self._read
        for number, payload in self._queue.arrived():
            self._read, self._newest = self._read + 1, number
            if self._corrupt:
                self._queue.accept_altered(number, flipped(payload, self._random))
            else:
                jitter = self._random.uniform(-self._jitter_s, self._jitter_s) if self._jitter_s else 0.0
                heapq.heappush(self._held, (time.monotonic() + self._delay_s + jitter, number))  # it may have come while others were read
        self._most = max(self._most, len(self._held))
        return self._read - before

    def release(self, until: float) -> None:
        """Lets go on what is due."""
        due = []
        while self._held and self._held[0][0] <= until:
            due.append(heapq.heappop(self._held)[1])
        self._queue.accept(due)

    def next_due(self) -> float:
        """When the next packet goes on."""
        return self._held[0][0] if self._held else float("inf")

    def counts(self) -> dict[str, int]:
        """Packets read, those that passed unread or were dropped, and how many were held at most.

        The kernel numbers what it queues, so that a gap tells what was not read; a queue that was full let pass what has no number.
        """
        try:
            queued, dropped = self._queue.counts()
        except PermissionError:  # it is told to root only; one that fails open drops nothing
            queued, dropped = 0, 0
        for _ in range(_ROUNDS):
            if not self.take():
                break
        missed = max(queued, self._newest) - self._read + (self._most >= nfnetlink.PACKETS)
        return {"read": self._read, "missed": max(0, missed), "dropped": dropped, "held_most": self._most}


def flipped(packet: bytes, source: random.Random) -> bytes:
    """An IPv4 packet with one bit of its payload inverted, its checksums as they were: its receiver finds it wrong and drops it."""
    start = (packet[0] & 0xF) * 4
    if len(packet) <= start:
        return packet
    altered = bytearray(packet)
    altered[source.randrange(start, len(packet))] ^= 1 << source.randrange(8)
    return bytes(altered)


def bind(table: str, *, whole: bool) -> nfnetlink.PacketQueue:
    """The first free queue.  Raises OSError."""
    first = zlib.crc32(table.encode())
    for offset in range(_TRIES):
        try:
            return nfnetlink.PacketQueue(1 + (first + offset) % 0xFFFE, whole=whole)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EPERM) or offset == _TRIES - 1:
                raise
    raise AssertionError  # unreachable


def serve(holder: Holder, queue: nfnetlink.PacketQueue, lease_s: float) -> None:
    """Holds and obeys until the lease ends."""
    deadline, text = time.monotonic() + lease_s, b""
    while (now := time.monotonic()) < deadline:
        wait = max(0.0, min(deadline, holder.next_due()) - now)
        ready, _, _ = select.select([queue.fileno(), 0], [], [], wait)
        if queue.fileno() in ready:
            holder.take()
        holder.release(time.monotonic())
        if 0 in ready:
            part = os.read(0, 4096)
            if not part:
                return
            *lines, text = (text + part).split(b"\n")
            for line in lines:
                word, _, value = line.decode().partition(" ")
                if word == "lease":
                    deadline = time.monotonic() + float(value)
                else:
                    _say(json.dumps(holder.counts()))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: list[str]) -> None:
    """Entry of the process."""
    means = nfnetlink.usable()
    if argv[0] == "try" or means is None:
        _say(str(means))
        return
    mode, table, chain, lease_s, *times = argv
    queue = bind(table, whole=mode == "corrupt")
    nfnetlink.send_to_queue(table, chain, queue.number, means)
    delay_s, jitter_s = map(float, times or (0, 0))
    holder = Holder(queue, delay_s, jitter_s, corrupt=mode == "corrupt")
    _say(f"queue {queue.number} by {means}")
    try:
        serve(holder, queue, float(lease_s))
    finally:
        holder.take()
        holder.release(float("inf"))


if __name__ == "__main__":
    main(sys.argv[1:])
