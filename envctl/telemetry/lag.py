"""How far consumer groups are behind, and which generation they are in, asked from Kafka itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from envctl.engines.group_records import TOPIC, parse_generation, partition_of
from envctl.telemetry.reading import Reading

LAG = "kafka.consumer_group.lag"
GENERATION = "kafka.group.generation"
DEPTH = "kafka.topic.depth"
_TIMEOUT_S = 3.0
_GROUP_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Position:
    """What is known about a group in one partition; None is unknown."""

    committed: int | None
    start: int | None
    end: int | None


def lag_of(position: Position, *, group_committed: bool = True) -> int | None:
    """max(end − max(committed, log start), 0); unknown without a commit.

    A partition that holds nothing has no lag once the group has committed somewhere: there is nothing to commit in it.
    """
    if position.end is None or position.start is None:
        return None
    if position.committed is None:
        return 0 if group_committed and position.end == position.start else None
    return max(position.end - max(position.committed, position.start), 0)


class LagSampler:
    """`kafka.consumer_group.lag` by group, topic and partition.  Committed offsets are read before the ends."""

    def __init__(self, bootstrap: str, subscriptions: Sequence[tuple[str, str]]) -> None:
        """`subscriptions` are (group, topic) pairs."""
        from confluent_kafka import Consumer

        # Consumers that never join their group.  Not an AdminClient: its list_consumer_group_offsets and list_offsets end the
        # process by a segmentation fault when a coordinator moves or no broker answers (confluent-kafka 2.16).
        settings: dict[str, Any] = {"bootstrap.servers": bootstrap, "socket.timeout.ms": 5000, "log_level": 0, "enable.auto.commit": False}
        self._consumers = {group: Consumer({**settings, "group.id": group}) for group, _ in subscriptions}
        self._asker = next(iter(self._consumers.values()))
        self._subscriptions = subscriptions
        self._partitions: dict[str, int] = {}
        self._refused = False

    def sample(self) -> Iterator[Reading]:
        """One request a group, and two for the ends and starts of all partitions."""
        self._count_partitions()
        if self._refused:  # it goes on asking whoever led before, or with a leader's old epoch, until it looks again
            self._asker.list_topics(timeout=_TIMEOUT_S)
        self._refused = True
        committed = self._committed()
        end, start = self._offsets(-1), self._offsets(-2)
        self._refused = None in (*end.values(), *start.values())
        active = {group for (group, *_), offset in committed.items() if offset is not None}
        for group, topic, partition in self._places():
            place = (topic, partition)
            position = Position(committed[group, *place], start[place], end[place])
            lag = lag_of(position, group_committed=group in active)
            attrs = {"group": group, "topic": topic, "partition": partition, "end": position.end, "committed": position.committed}
            yield Reading(LAG, lag, attrs)

    def unknown(self) -> Iterator[Reading]:
        """Every partition without a value; before the partitions are known, every topic."""
        for group, topic, partition in self._places():
            yield Reading(LAG, None, {"group": group, "topic": topic, "partition": partition})

    def close(self) -> None:
        """Closes the consumers."""
        for consumer in self._consumers.values():
            consumer.close()

    def _places(self) -> Iterator[tuple[str, str, int]]:
        for group, topic in self._subscriptions:
            for partition in range(self._partitions.get(topic, 1)):
                yield group, topic, partition

    def _count_partitions(self) -> None:
        missing = {topic for _, topic in self._subscriptions} - set(self._partitions)
        if missing:
            topics = self._asker.list_topics(timeout=_TIMEOUT_S).topics
            self._partitions |= {name: len(topics[name].partitions) for name in missing if name in topics}
            if unmade := missing - set(self._partitions):
                raise LookupError(f"no topic {', '.join(sorted(unmade))}")

    def _committed(self) -> dict[tuple[str, str, int], int | None]:
        from confluent_kafka import KafkaException, TopicPartition

        asked: dict[str, list[TopicPartition]] = {}
        for group, topic, partition in self._places():
            asked.setdefault(group, []).append(TopicPartition(topic, partition))
        found: dict[tuple[str, str, int], int | None] = dict.fromkeys(self._places())
        for group, places in asked.items():
            with suppress(KafkaException):  # its coordinator is moving: this group is unknown, others are not
                for one in self._consumers[group].committed(places, timeout=_GROUP_TIMEOUT_S):
                    found[group, one.topic, one.partition] = one.offset if one.offset >= 0 and not one.error else None
        return found

    def _offsets(self, which: int) -> dict[tuple[str, int], int | None]:
        """Ends (-1) or starts (-2) of all partitions: the special times of Kafka's ListOffsets request."""
        from confluent_kafka import TopicPartition

        asked = [TopicPartition(topic, partition, which) for topic, count in self._partitions.items() for partition in range(count)]
        answered = self._asker.offsets_for_times(asked, timeout=_TIMEOUT_S)
        return {(one.topic, one.partition): one.offset if one.offset >= 0 and not one.error else None for one in answered}


class DepthSampler:
    """`kafka.topic.depth` by topic and partition: the messages that lie in topics, such as dead letters, whether or not anybody reads them."""

    def __init__(self, bootstrap: str, topics: Sequence[str]) -> None:
        from confluent_kafka import Consumer

        settings = {"group.id": "envctl-depths", "enable.auto.commit": False, "log_level": 0}
        self._consumer = Consumer({"bootstrap.servers": bootstrap, **settings})
        self._topics = topics
        self._partitions: dict[str, int] = {}

    def sample(self) -> Iterator[Reading]:
        """One request a partition, which asks its leader."""
        from confluent_kafka import TopicPartition

        for topic in set(self._topics) - set(self._partitions):
            found = self._consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic]
            if found.error is not None or not found.partitions:
                raise LookupError(f"no topic {topic}")
            self._partitions[topic] = len(found.partitions)
        for topic, partition in self._places():
            first, end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_GROUP_TIMEOUT_S)
            yield Reading(DEPTH, end - first, {"topic": topic, "partition": partition})

    def unknown(self) -> Iterator[Reading]:
        """Every partition without a value; before the partitions are known, every topic."""
        return (Reading(DEPTH, None, {"topic": topic, "partition": partition}) for topic, partition in self._places())

    def close(self) -> None:
        """Closes the consumer."""
        self._consumer.close()

    def _places(self) -> Iterator[tuple[str, int]]:
        return ((topic, partition) for topic in self._topics for partition in range(self._partitions.get(topic, 1)))


class GenerationSampler:
    """`kafka.group.generation` by group, from the groups' own records in `__consumer_offsets`."""

    def __init__(self, bootstrap: str, groups: Sequence[str]) -> None:
        from confluent_kafka import Consumer

        settings = {"group.id": "envctl-generations", "enable.auto.commit": False, "auto.offset.reset": "earliest", "log_level": 0}
        self._consumer = Consumer({"bootstrap.servers": bootstrap, **settings})
        self._groups = groups
        self._assigned = False
        self._known: dict[str, int] = {}

    def sample(self) -> Iterator[Reading]:
        """Reads what is new; a group that never was has no reading."""
        if self._assigned or self._assign():
            while messages := self._consumer.consume(500, timeout=0.05):
                for message in messages:
                    self._take(message.key(), message.value(), message.error())
        return (Reading(GENERATION, value, {"group": group}) for group, value in self._known.items())

    def unknown(self) -> Iterator[Reading]:
        """The known groups without a value."""
        return (Reading(GENERATION, None, {"group": group}) for group in self._known)

    def close(self) -> None:
        """Closes the consumer."""
        self._consumer.close()

    def _assign(self) -> bool:
        from confluent_kafka import OFFSET_BEGINNING, TopicPartition

        topic = self._consumer.list_topics(TOPIC, timeout=_TIMEOUT_S).topics[TOPIC]
        if topic.error is not None or not topic.partitions:
            return False  # no group has committed anything yet
        wanted = {partition_of(group, len(topic.partitions)) for group in self._groups}
        self._consumer.assign([TopicPartition(TOPIC, partition, OFFSET_BEGINNING) for partition in wanted])
        self._assigned = True
        return True

    def _take(self, key: bytes | None, value: bytes | None, error: Any) -> None:
        if error is None and key is not None and (found := parse_generation(key, value)) and found[0] in self._groups:
            self._known[found[0]] = found[1]
