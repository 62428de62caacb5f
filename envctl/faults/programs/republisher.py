"""Produces records of a topic again, as they come: `python -m … BOOTSTRAP TOPIC duplicate|reorder SHARE SEED ORDERS TOLD`.

`duplicate`: a record once more, right after it was read.  `reorder`: the record before it of the same key once more, so that an older one
stands behind a newer one.  Key, value, headers and partition are those of the original, and so is the trace that its headers tell.  What has
been seen once is not taken for a new record, whoever produced it again, so that no two of these can feed each other.

ORDERS is a file that says for how many seconds to go on, written anew by whoever wants it longer, and removed by whoever wants it no more.
TOLD gets a line when it has begun (`begun`), one for each copy that was acknowledged (a `Copy` as JSON), and one at the end (`over`).
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from envctl.engines.topics import ends_of, reader
from envctl.waiting import end_when_told

BATCH = 100
FLUSH_S = 10.0


@dataclass(frozen=True, slots=True)
class Copy:
    """A record that was produced again, by its offsets."""

    partition: int
    original: int
    newer: int  # the record after the original that had come already: of a duplicate the original itself
    copy: int
    seen: int  # how many records had been candidates by then, this one included


@dataclass(frozen=True, slots=True)
class Orders:
    """The file that keeps it going."""

    path: Path

    def renew(self, lease_s: float) -> None:
        """Written as a whole; it differs after each renewal."""
        half = self.path.with_suffix(".half")
        half.write_text(f"{lease_s} {time.monotonic_ns()}", encoding="utf-8")
        half.replace(self.path)

    def read(self) -> tuple[float, int] | None:
        """(seconds, renewal); None when it is to end."""
        with suppress(FileNotFoundError):
            lease_s, renewed = self.path.read_text(encoding="utf-8").split()
            return float(lease_s), int(renewed)
        return None

    def end(self) -> None:
        """Idempotent."""
        self.path.unlink(missing_ok=True)


class Republisher:
    """Which record is produced again when one is read."""

    def __init__(self, way: str, share: float, rng: random.Random) -> None:
        self._way, self._share, self._rng = way, share, rng
        self._known: set[bytes] = set()  # digests of what was seen
        self._last: dict[tuple[int, bytes], Any] = {}  # (partition, key) → its newest record
        self.seen = 0  # candidates

    def again(self, message: Any) -> Any | None:
        """The message to be produced again now that this one has been read; None mostly."""
        mark = blake2b(repr((message.partition(), message.key(), message.value(), message.headers())).encode(), digest_size=16).digest()
        if mark in self._known:
            return None
        self._known.add(mark)
        candidate = message if self._way == "duplicate" else self._before(message)
        if candidate is None:
            return None
        self.seen += 1
        return candidate if self._rng.random() < self._share else None

    def _before(self, message: Any) -> Any | None:
        if message.key() is None:
            return None
        at = (message.partition(), message.key())
        before, self._last[at] = self._last.get(at), message
        return before


def main(argv: list[str]) -> None:
    """Goes on until nobody wants it any more."""
    bootstrap, topic, way, share, seed, orders, told = argv
    end_when_told(0)
    with Path(told).open("a", encoding="utf-8") as file:
        try:
            for line in republish(bootstrap, topic, Republisher(way, float(share), random.Random(seed)), Orders(Path(orders))):
                file.write(f"{line}\n")
                file.flush()
        finally:
            file.write("over\n")


def republish(bootstrap: str, topic: str, republisher: Republisher, orders: Orders) -> Iterator[str]:
    """What is told, as it happens."""
    from confluent_kafka import Producer, TopicPartition

    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0, "client.id": "envctl-republisher", "log_level": 0})
    acknowledged: list[Copy] = []
    with reader(bootstrap) as consumer:
        consumer.assign([TopicPartition(topic, partition, end) for partition, end in ends_of(bootstrap, topic).items()])
        yield "begun"
        for messages in _batches(consumer, orders):
            for message in messages:
                again = republisher.again(message)
                if again is not None:
                    _produce(producer, topic, again, message.offset(), republisher.seen, acknowledged)
            producer.flush(FLUSH_S)
            yield from (json.dumps(asdict(copy)) for copy in sorted(acknowledged, key=lambda copy: copy.seen))
            acknowledged.clear()


def _batches(consumer: Any, orders: Orders) -> Iterator[list[Any]]:
    """Messages as they come, until the orders are gone or have not been renewed for as long as they say."""
    renewed, deadline = 0, 0.0
    while (said := orders.read()) is not None:
        if said[1] != renewed:
            renewed, deadline = said[1], time.monotonic() + said[0]
        if time.monotonic() >= deadline:
            return
        yield [message for message in consumer.consume(BATCH, timeout=0.05) if message.error() is None]


def _produce(producer: Any, topic: str, again: Any, newer: int, seen: int, acknowledged: list[Copy]) -> None:
    def delivered(error: Any, copy: Any) -> None:
        if error is None:
            acknowledged.append(Copy(copy.partition(), again.offset(), newer, copy.offset(), seen))

    producer.produce(topic, again.value(), again.key(), again.partition(), headers=again.headers(), on_delivery=delivered)


def read_told(path: Path) -> tuple[bool, bool, list[Copy]]:
    """Whether it has begun, whether it is over, and its copies so far."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []  # what follows the last end of line is not whole yet
    copies: list[Mapping[str, int]] = [json.loads(line) for line in lines if line.startswith("{")]
    return "begun" in lines, bool(lines) and lines[-1] == "over", [Copy(**one) for one in copies]


if __name__ == "__main__":
    main(sys.argv[1:])
