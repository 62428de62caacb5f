"""A consumer-group member that processes nothing: `python -m … BOOTSTRAP GROUP ASSIGNOR LEASE_SECONDS TOPIC…`.

Without an assignor (an empty argument) it joins by the protocol of KIP-848.
It joins, waits until it was given its assignment (or until the lease is over), stays until it is told to leave or a moment
after its assignment, and leaves.  It never commits, so whoever gets its partitions next starts where the group stood.
At its first assignment (of no partition, where there are too few) it prints a line, `MEMBER_ID PARTITIONS`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from envctl.waiting import end_when_told

STAY_S = 1.0  # long enough for the others to have noticed


def main(argv: list[str]) -> None:
    """Joins and leaves."""
    from confluent_kafka import Consumer

    bootstrap, group, assignor, lease_s, *topics = argv
    end_when_told(0)
    protocol = {"partition.assignment.strategy": assignor, "session.timeout.ms": 6000} if assignor else {"group.protocol": "consumer"}
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False,
                         "client.id": "envctl-transient-member", "auto.offset.reset": "earliest", **protocol})
    leave_at = time.monotonic() + float(lease_s)
    told = False

    def assigned(_consumer: Any, partitions: Sequence[Any]) -> None:
        nonlocal leave_at, told
        leave_at = min(leave_at, time.monotonic() + STAY_S)
        if not told:
            print(consumer.memberid(), len(partitions), flush=True)  # noqa: T201 — whoever started it reads this
        told = True

    try:
        consumer.subscribe(topics, on_assign=assigned)
        while time.monotonic() < leave_at:
            consumer.poll(0.1)
    finally:
        consumer.close()


if __name__ == "__main__":
    main(sys.argv[1:])
