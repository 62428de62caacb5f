"""Run beside the nodes: makes missing topics, adopts what is there, and waits until every replica is in sync."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from envctl.engines.provisioning import main
from envctl.errors import DeadlineError, ResourceError

_WITHIN_S = 60.0
_CALL_S = 20.0


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do.  A topic is {"name", "partitions", "replication", "config"}."""

    bootstrap: str
    brokers: int
    topics: tuple[Mapping[str, Any], ...]


def provision(work: Work) -> None:
    """Does it all; what is as declared already is left alone.  Raises ResourceError and DeadlineError."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": work.bootstrap, "log_level": 0})
    try:
        there = _await_brokers(admin, work).topics
        _create(admin, [topic for topic in work.topics if topic["name"] not in there])
        for topic in work.topics:
            if topic["name"] in there:
                _adopt(admin, topic, there[topic["name"]])
        _await_in_sync(admin, work)
    except KafkaException as error:
        raise ResourceError(f"Kafka at {work.bootstrap}: {error.args[0].str()}") from error


def _await_brokers(admin: Any, work: Work) -> Any:
    """The cluster's metadata, once every broker is in it (a topic may need all of them)."""
    deadline = time.monotonic() + _WITHIN_S
    while True:
        found = admin.list_topics(timeout=_CALL_S)
        if len(found.brokers) >= work.brokers:
            return found
        _not_too_late(deadline, f"{len(found.brokers)} of {work.brokers} brokers are there")


def _create(admin: Any, topics: Iterable[Mapping[str, Any]]) -> None:
    from confluent_kafka import KafkaError, KafkaException
    api: Any = import_module("confluent_kafka.admin")  # untyped: it re-exports without saying so

    wanted = [
        api.NewTopic(
            topic["name"], num_partitions=topic["partitions"], replication_factor=topic["replication"], config=dict(topic["config"])
        )
        for topic in topics
    ]
    if not wanted:
        return
    for name, future in admin.create_topics(wanted, request_timeout=_CALL_S).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # made meanwhile: then it is there
                raise ResourceError(f"topic {name} could not be made: {error.args[0].str()}") from error


def _adopt(admin: Any, topic: Mapping[str, Any], found: Any) -> None:
    """Brings an existing topic to what is declared.  Raises ResourceError for what cannot be changed in place."""
    api: Any = import_module("confluent_kafka.admin")  # untyped: it re-exports without saying so

    name, partitions = topic["name"], len(found.partitions)
    copies = {len(partition.replicas) for partition in found.partitions.values()}
    hint = "take the environment down and up again, or declare what is there"
    if partitions > topic["partitions"]:
        raise ResourceError(f"topic {name} has {partitions} partitions, {topic['partitions']} are declared; there is no way back", hint=hint)
    if copies != {topic["replication"]}:
        have = ", ".join(str(number) for number in sorted(copies))
        raise ResourceError(f"topic {name} has replication {have}, {topic['replication']} is declared", hint=hint)
    if partitions < topic["partitions"]:
        futures = admin.create_partitions([api.NewPartitions(name, topic["partitions"])], request_timeout=_CALL_S)
        futures[name].result()
    _configure(admin, name, topic["config"])


def _configure(admin: Any, name: str, wanted: Mapping[str, str]) -> None:
    """Sets the topic's options that differ from the declared ones."""
    api: Any = import_module("confluent_kafka.admin")  # untyped: it re-exports without saying so

    resource = api.ConfigResource(api.ResourceType.TOPIC, name)
    found = admin.describe_configs([resource], request_timeout=_CALL_S)[resource].result()
    entries = [
        api.ConfigEntry(key, value, incremental_operation=api.AlterConfigOpType.SET)
        for key, value in wanted.items()
        if key not in found or found[key].value != value
    ]
    if entries:
        changed = api.ConfigResource(api.ResourceType.TOPIC, name, incremental_configs=entries)
        admin.incremental_alter_configs([changed], request_timeout=_CALL_S)[changed].result()


def _await_in_sync(admin: Any, work: Work) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while True:
        found = admin.list_topics(timeout=_CALL_S).topics
        lacking = [topic["name"] for topic in work.topics if not _in_sync(topic, found.get(topic["name"]))]
        if not lacking:
            return
        _not_too_late(deadline, f"replicas are not in sync yet: {', '.join(lacking)}")


def _in_sync(topic: Mapping[str, Any], found: Any) -> bool:
    if found is None or len(found.partitions) < topic["partitions"]:
        return False
    return all(part.leader >= 0 and len(part.isrs) >= topic["replication"] for part in found.partitions.values())


def _not_too_late(deadline: float, state: str) -> None:
    if time.monotonic() > deadline:
        raise DeadlineError(f"Kafka is not complete after {_WITHIN_S:.0f} s: {state}")
    time.sleep(0.05)


if __name__ == "__main__":
    main(Work, provision)
