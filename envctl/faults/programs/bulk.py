"""A bulk transfer over TCP, and its goodput.

Run inside a node's network namespace: `python -m envctl.faults.programs.bulk sink ADDRESS` prints the port on which it takes one transfer, and then
as JSON how many bytes arrived and how many bits per second that was; `… pour SOURCE ADDRESS PORT SECONDS BITS_PER_S` sends for so long, and
offers no more than that rate, so that segments stay small.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time

ACCEPT_S = 30.0
_CHUNK = bytes(1 << 16)
_BURST_S = 0.002  # readings nearer to each other are one burst
_SO_MAX_PACING_RATE = 47  # bytes per second, an unsigned long


def sink(address: str) -> None:
    """Takes one transfer."""
    with socket.create_server((address, 0)) as listener:
        listener.settimeout(ACCEPT_S)
        _say(str(listener.getsockname()[1]))
        connection, _ = listener.accept()
    came: list[tuple[float, int]] = []
    while count := _read(connection):
        came.append((time.monotonic(), count))
    _say(json.dumps({"bytes": sum(count for _, count in came), "bits_per_s": rate(came)}))


def rate(came: list[tuple[float, int]]) -> float:
    """Bits per second of (when, bytes) readings.  A limit lets a burst pass and then waits until it is paid for: the last one is not yet."""
    if not came or came[-1][0] <= came[0][0]:
        return 0.0
    paid = sum(count for when, count in came if when < came[-1][0] - _BURST_S)
    return paid * 8 / (came[-1][0] - came[0][0])


def _read(connection: socket.socket) -> int:
    try:
        return len(connection.recv(1 << 16))
    except OSError:  # the sender is done, and has thrown away what it had not sent yet
        return 0


def pour(source: str, address: str, port: int, seconds: float, bits_per_s: float) -> None:
    """Sends zeros for so long."""
    with socket.socket() as connection:
        connection.bind((source, 0))
        connection.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("@L", round(bits_per_s / 8)))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.settimeout(seconds)
        connection.connect((address, port))
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                connection.send(_CHUNK)
            except TimeoutError:
                break
    _say("done")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: list[str]) -> None:
    """Entry of the process."""
    if argv[0] == "sink":
        sink(argv[1])
    else:
        pour(argv[1], argv[2], int(argv[3]), float(argv[4]), float(argv[5]))


if __name__ == "__main__":
    main(sys.argv[1:])
