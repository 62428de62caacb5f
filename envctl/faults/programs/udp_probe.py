"""Sequence-numbered UDP probes that cross the same packet rules as real traffic.

Run inside a node's network namespace: `python -m envctl.faults.programs.udp_probe receive ADDRESS` prints the port it listens on, reads a
line from standard input when the senders are done, and prints as JSON what came from each sender: how many distinct probes, how many
came again, and the numbers of those that came after a later one, with the seconds by which they were late;
`… send ADDRESS PORT COUNT SOURCE` sends COUNT probes from SOURCE, paced so that no queue overflows.
"""

from __future__ import annotations

import bisect
import json
import select
import socket
import struct
import sys
import time

PER_SECOND = 2000
DRAIN_S = 0.2  # how long a probe may take to arrive after the last one was sent
IDLE_LIMIT_S = 60.0  # a receiver whose parent has gone ends by itself
BUFFER_BYTES = 4 << 20


class Arrivals:
    """What has arrived from one sender."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._again = 0
        self._late: list[tuple[int, float]] = []
        self._newest: list[int] = []  # each probe that was the latest when it came, and when that was
        self._when: list[float] = []

    def note(self, number: int, now: float) -> None:
        """A probe has arrived."""
        if number in self._numbers:
            self._again += 1
            return
        self._numbers.add(number)
        if not self._newest or number > self._newest[-1]:
            self._newest.append(number)
            self._when.append(now)
        else:
            self._late.append((number, round(now - self._when[bisect.bisect(self._newest, number)], 6)))

    def told(self) -> dict[str, object]:
        """For the one who asked."""
        return {"distinct": len(self._numbers), "again": self._again, "late": self._late}


def receive(address: str) -> None:
    """Counts distinct probes by sender until told to stop."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    probe.bind((address, 0))
    _say(str(probe.getsockname()[1]))
    seen: dict[str, Arrivals] = {}
    deadline = time.monotonic() + IDLE_LIMIT_S
    told = False
    while True:
        left = max(0.0, deadline - time.monotonic())  # what has arrived is counted, however late we come to it
        ready, _, _ = select.select([probe] if told else [probe, sys.stdin], [], [], left)
        if not ready:
            break
        if probe in ready:
            data, (source, _) = probe.recvfrom(64)
            seen.setdefault(source, Arrivals()).note(struct.unpack("!I", data[:4])[0], time.monotonic())
        if sys.stdin in ready:
            told, deadline = True, time.monotonic() + DRAIN_S
    _say(json.dumps({source: arrivals.told() for source, arrivals in seen.items()}))


def send(address: str, port: int, count: int, source: str) -> None:
    """Sends `count` probes at PER_SECOND from the address `source`."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.bind((source, 0))
    start = time.monotonic()
    for number in range(count):
        ahead = start + number / PER_SECOND - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        probe.sendto(struct.pack("!I", number), (address, port))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: list[str]) -> None:
    """Entry of the probe process."""
    if argv[0] == "receive":
        receive(argv[1])
    else:
        send(argv[1], int(argv[2]), int(argv[3]), argv[4])


if __name__ == "__main__":
    main(sys.argv[1:])
