"""Reads the topics of a running Kafka: where they end, and what is in them, without joining a group or committing anything."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from envctl.errors import ResourceError

ANSWER_S = 10.0  # how long brokers may take to answer one request
BATCH = 5000


@contextmanager
def reader(bootstrap: str) -> Iterator[Any]:
    """A consumer of committed messages that never joins a group and never commits; closed at the end."""
    from confluent_kafka import Consumer

    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "envctl-reader", "enable.auto.commit": False, "auto.offset.reset": "earliest",
        "isolation.level": "read_committed", "fetch.wait.max.ms": 20, "log_level": 0,
    })
    try:
        yield consumer
    finally:
        consumer.close()


def partitions_of(consumer: Any, topic: str) -> int:
    """How many partitions a topic has.  Raises ResourceError when there is no such topic."""
    found = consumer.list_topics(topic, timeout=ANSWER_S).topics[topic]
    if found.error is not None or not found.partitions:
        raise ResourceError(f"there is no topic {topic}")
    return len(found.partitions)


def ends_of(bootstrap: str, topic: str) -> dict[int, int]:
    """Partition → offset behind its last message."""
    with reader(bootstrap) as consumer:
        return {partition: end for partition, (_, end) in _bounds(consumer, topic, range(partitions_of(consumer, topic))).items()}


def messages_of(
    bootstrap: str, topic: str, *, starts: Mapping[int, int] | None = None, partitions: Iterable[int] | None = None, within_s: float
) -> Iterator[Any]:
    """All messages of a topic (or some of its partitions) from `starts`, or the beginning, to the end as of now.

    The position tells the end, not the last message, because compaction and transaction markers leave gaps.  Raises
    ResourceError when the end can't be reached in `within_s` seconds.
    """
    with reader(bootstrap) as consumer:
        wanted = range(partitions_of(consumer, topic)) if partitions is None else partitions
        bounds = _bounds(consumer, topic, wanted)
        at = {partition: max(first, (starts or {}).get(partition, 0)) for partition, (first, _) in bounds.items()}
        left = {partition: end for partition, (_, end) in bounds.items() if at[partition] < end}
        yield from _up_to(consumer, topic, at, left, time.monotonic() + within_s)
        if left:
            raise ResourceError(f"topic {topic} could not be read to its end in {within_s:.0f} s")


def _bounds(consumer: Any, topic: str, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
    from confluent_kafka import TopicPartition

    return {one: consumer.get_watermark_offsets(TopicPartition(topic, one), timeout=ANSWER_S) for one in partitions}


def _up_to(consumer: Any, topic: str, at: Mapping[int, int], left: dict[int, int], deadline: float) -> Iterator[Any]:
    """Messages before the ends in `left`, which keeps the partitions that are not read to their end."""
    from confluent_kafka import TopicPartition

    ends = dict(left)
    consumer.assign([TopicPartition(topic, partition, at[partition]) for partition in left])
    while left and time.monotonic() < deadline:
        for message in consumer.consume(BATCH, timeout=0.1):
            if message.error() is None and message.offset() < ends[message.partition()]:
                yield message
        for position in consumer.position([TopicPartition(topic, partition) for partition in left]):
            if position.offset >= left[position.partition]:
                del left[position.partition]
