"""Which images are PostgreSQL, Kafka or Redis, in which version; and which only look like it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["postgres", "kafka", "redis", "zookeeper"]

_OFFICIAL: dict[str, Kind] = {  # laid out so that envctl can run it
    "postgres": "postgres", "postgis/postgis": "postgres", "timescale/timescaledb": "postgres", "pgvector/pgvector": "postgres",
    "ankane/pgvector": "postgres", "apache/kafka": "kafka", "redis": "redis", "valkey/valkey": "redis",
}
_KINDS: dict[str, Kind] = {
    **_OFFICIAL,
    "bitnami/postgresql": "postgres", "bitnamilegacy/postgresql": "postgres",
    "confluentinc/cp-kafka": "kafka", "confluentinc/cp-server": "kafka", "confluentinc/cp-enterprise-kafka": "kafka", "bitnami/kafka": "kafka",
    "bitnamilegacy/kafka": "kafka", "wurstmeister/kafka": "kafka", "debezium/kafka": "kafka", "ubuntu/kafka": "kafka",
    "bitnami/redis": "redis", "bitnamilegacy/redis": "redis", "bitnami/valkey": "redis", "bitnamilegacy/valkey": "redis",
    "zookeeper": "zookeeper", "confluentinc/cp-zookeeper": "zookeeper", "bitnami/zookeeper": "zookeeper", "bitnamilegacy/zookeeper": "zookeeper",
    "wurstmeister/zookeeper": "zookeeper", "debezium/zookeeper": "zookeeper", "ubuntu/zookeeper": "zookeeper",
}
LOOKALIKES = {
    "redpandadata/redpanda": "Redpanda is not Apache Kafka", "vectorized/redpanda": "Redpanda is not Apache Kafka",
    "supabase/postgres": "it is PostgreSQL with roles and extensions of its own", "redis/redis-stack": "it is Redis with modules",
    "redis/redis-stack-server": "it is Redis with modules", "cockroachdb/cockroach": "CockroachDB is not PostgreSQL",
    "dragonflydb/dragonfly": "Dragonfly is not Redis", "eqalpha/keydb": "KeyDB is not Redis", "yugabytedb/yugabyte": "YugabyteDB is not PostgreSQL",
    "landoop/fast-data-dev": "it is Kafka with much besides", "spotify/kafka": "it is Kafka with ZooKeeper inside",
}
_NEWEST = {"postgres": ">=15", "kafka": ">=4", "redis": ">=7"}
_CONFLUENT = {8: "4", 7: "3", 5: "2"}  # the major version of Apache Kafka in the Confluent Platform; minor versions are alike
KRAFT = (3, 3)  # from here on Apache Kafka needs no ZooKeeper


@dataclass(frozen=True, slots=True)
class Reference:
    """An image's reference without its registry."""

    repository: str
    tag: str


def parse(text: str) -> Reference:
    """`registry:5000/library/postgres:15@sha256:…` → postgres, 15."""
    name = text.partition("@")[0]
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        name = rest
    head, colon, tag = name.rpartition(":")
    repository, tag = (head, tag) if colon and "/" not in tag else (name, "")
    return Reference(repository.removeprefix("library/"), tag)


def kind_of(text: str) -> Kind | None:
    """What is inside an image; None where envctl has no engine for it."""
    return _KINDS.get(parse(text).repository)


def runs_as_it_is(text: str) -> bool:
    """Whether envctl can run the engine from this image."""
    reference = parse(text)
    return reference.repository in _OFFICIAL and not (kind_of(text) == "kafka" and _older_than_kraft(reference))


def _older_than_kraft(reference: Reference) -> bool:
    numbers = _numbers(reference)
    return bool(numbers) and tuple(int(number) for number in numbers) < KRAFT


def _numbers(reference: Reference) -> list[str]:
    """The version in a tag, in its parts; empty when there is none."""
    found = re.search(r"pg(\d+)", reference.tag) or re.match(r"v?(\d+(?:\.\d+)*)", reference.tag)
    if reference.repository == "wurstmeister/kafka":  # Scala's version stands first
        found = re.match(r"[\d.]+-(\d+(?:\.\d+)*)", reference.tag)
    return found[1].split(".") if found else []


def version_of(text: str) -> tuple[str, str]:
    """The version for the topology, and what is to be said about it (empty: nothing)."""
    kind, reference = kind_of(text), parse(text)
    numbers = _numbers(reference)
    assert kind
    if reference.repository in ("valkey/valkey", "bitnami/valkey", "bitnamilegacy/valkey"):
        return _NEWEST["redis"], "Valkey is taken for the Redis that it comes from"
    if not numbers:
        return _NEWEST[kind], f"the tag {reference.tag or 'latest'!r} names no version: {_NEWEST[kind]} is taken"
    if reference.repository.startswith("confluentinc/"):
        major, minor = int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 0
        numbers = ["2", str(minor + 6)] if major == 6 else [_CONFLUENT.get(major, "4"), str(minor)]
    if kind == "kafka":
        return _kafka_version(numbers)
    if kind == "postgres" and reference.repository != "postgres" and not reference.repository.startswith("bitnami"):
        return numbers[0], ""  # what follows is the extension's version
    if kind == "postgres" and int(numbers[0]) >= 10:  # versions of PostgreSQL have two parts since then
        return ".".join(numbers[:2]), ""
    return ".".join(numbers), ""


def _kafka_version(numbers: list[str]) -> tuple[str, str]:
    version = tuple(int(number) for number in (*numbers, "0")[:2])
    if version < KRAFT:
        return f">={KRAFT[0]}.{KRAFT[1]}", f"Apache Kafka {version[0]}.{version[1]} needs ZooKeeper; a newer one without it is taken"
    return f">={version[0]}.{version[1]}", ""
