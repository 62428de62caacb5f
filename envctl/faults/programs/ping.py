"""Round trips of sequence-numbered UDP probes.

Run inside a node's network namespace: `python -m envctl.faults.programs.ping answer ADDRESS` prints the port on which it sends back whatever comes,
until its standard input closes; `… ask SOURCE ADDRESS PORT COUNT` sends so many from that source, and prints as JSON how many seconds
each answer took, null where none came.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time

EVERY_S = 0.005
PATIENCE_S = 5.0  # how long the last answers may take
IDLE_LIMIT_S = 60.0


def answer(address: str) -> None:
    """Sends back whatever comes."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.bind((address, 0))
    _say(str(probe.getsockname()[1]))
    while True:
        ready, _, _ = select.select([probe, sys.stdin], [], [], IDLE_LIMIT_S)
        if probe not in ready:
            return
        data, source = probe.recvfrom(64)
        probe.sendto(data, source)


def ask(source: str, address: str, port: int, count: int) -> None:
    """Sends numbered probes at a steady pace, and times their answers."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.bind((source, 0))
    sent: list[float] = []
    took: list[float | None] = [None] * count
    start = time.monotonic()
    while time.monotonic() < start + count * EVERY_S + PATIENCE_S and (len(sent) < count or None in took):
        due = start + len(sent) * EVERY_S
        if len(sent) < count and time.monotonic() >= due:
            sent.append(time.monotonic())
            probe.sendto(struct.pack("!I", len(sent) - 1), (address, port))
            continue
        wait = max(0.0, due - time.monotonic()) if len(sent) < count else 0.1
        if select.select([probe], [], [], wait)[0]:
            number = struct.unpack("!I", probe.recv(64))[0]
            if took[number] is None:
                took[number] = time.monotonic() - sent[number]
    _say(json.dumps(took))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: list[str]) -> None:
    """Entry of the process."""
    if argv[0] == "answer":
        answer(argv[1])
    else:
        ask(argv[1], argv[2], int(argv[3]), int(argv[4]))


if __name__ == "__main__":
    main(sys.argv[1:])
