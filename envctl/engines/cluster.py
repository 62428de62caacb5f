"""What a Kafka cluster says of itself: its brokers, who controls it, and where its partitions are.

Through kafka-python: librdkafka's admin client has been seen to crash while a coordinator is away, and faults ask just then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from envctl.errors import ResourceError

NOBODY = -1  # the leader of a partition that has none


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition as the metadata has it."""

    leader: int  # broker id, or NOBODY
    epoch: int  # of its leader: rises with every election
    replicas: tuple[int, ...]  # broker ids; the first is preferred as leader
    isr: tuple[int, ...]  # those in sync

    @property
    def whole(self) -> bool:
        """Whether it has a leader, and all of its replicas are in sync."""
        return self.leader != NOBODY and set(self.isr) == set(self.replicas)


Partitions = Mapping[tuple[str, int], Partition]
"""(topic, partition) → its state."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The brokers as the controller knows them."""

    alive: frozenset[int]  # ids of the brokers that are registered and not fenced
    names: Mapping[int, str]  # broker id → the host that it advertises, fenced ones included


@contextmanager
def admin(bootstrap: str, *, answer_s: float = 30.0) -> Iterator[Any]:
    """A client for Kafka's admin API, closed at the end.  What Kafka refuses, or does not answer in `answer_s`, is raised as ResourceError."""
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        client = KafkaAdminClient(bootstrap_servers=bootstrap.split(","), request_timeout_ms=int(answer_s * 1000), bootstrap_timeout_ms=int(answer_s * 1000))
    except KafkaError as error:
        raise ResourceError(f"Kafka's admin API at {bootstrap} can't be reached: {error}") from error
    try:
        yield client
    except KafkaError as error:
        raise ResourceError(f"Kafka refused: {error}") from error
    finally:
        client.close()


def partitions(client: Any, topics: Iterable[str] | None = None) -> Partitions:
    """All partitions of some topics, or of all.  Raises ResourceError for a topic that is not there."""
    found = client.describe_topics(None if topics is None else list(topics))
    missing = [topic["name"] for topic in found if not topic["partitions"]]
    if missing:
        raise ResourceError(f"there is no topic {', '.join(missing)}")
    return {
        (topic["name"], one["partition_index"]): Partition(one["leader_id"], one["leader_epoch"], tuple(one["replica_nodes"]), tuple(one["isr_nodes"]))
        for topic in found for one in topic["partitions"]
    }


def cluster(client: Any) -> Cluster:
    """The brokers now."""
    found = client.describe_cluster()["brokers"]
    return Cluster(frozenset(one["broker_id"] for one in found if not one.get("is_fenced")), {one["broker_id"]: one["host"] for one in found})


def controller(client: Any) -> tuple[int, int]:
    """(id, epoch) of the active controller: the leader of the metadata's own quorum (what metadata calls the controller is any broker, with KRaft)."""
    (topic,) = client.describe_metadata_quorum()["topics"]
    (one,) = topic["partitions"]
    return one["leader_id"], one["leader_epoch"]
