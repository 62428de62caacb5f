"""Where a consumer group goes on in a topic, read and moved from outside while the group has no members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from envctl.errors import ResourceError

ANSWER_S = 10.0  # how long brokers may take to answer one request


def committed(bootstrap: str, group: str, topic: str, partitions: int) -> dict[int, int]:
    """Partition → the offset that the group has committed, where it has.  Raises ResourceError."""
    from confluent_kafka import TopicPartition

    with _asking(bootstrap, group) as consumer:
        places = consumer.committed([TopicPartition(topic, each) for each in range(partitions)], timeout=ANSWER_S)
    return {one.partition: one.offset for one in places if one.offset >= 0 and not one.error}


def rewind(bootstrap: str, group: str, topic: str, to: Mapping[int, int]) -> None:
    """Has the group go on at these offsets (by partition).

    Committed as by a consumer that is no member, which a coordinator takes only while the group has none (Kafka: OffsetCommit with generation -1).
    Raises ResourceError where it has, or no coordinator answers.
    """
    from confluent_kafka import TopicPartition

    with _asking(bootstrap, group) as consumer:
        places = consumer.commit(offsets=[TopicPartition(topic, each, offset) for each, offset in to.items()], asynchronous=False)
    if wrong := [one for one in places if one.error]:
        raise ResourceError(f"offsets of group {group} in {topic}/{wrong[0].partition} can't be moved: {wrong[0].error.str()}")


@contextmanager
def _asking(bootstrap: str, group: str) -> Iterator[Any]:
    """A consumer that never joins its group.  What Kafka refuses is raised as ResourceError."""
    from confluent_kafka import Consumer, KafkaException

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False, "log_level": 0})
    try:
        yield consumer
    except KafkaException as error:
        raise ResourceError(f"the offsets of group {group} can't be read or moved: {error.args[0].str()}") from error
    finally:
        consumer.close()
