"""What of a redelivery can be told without a Kafka; the rest is in `inside_bus.py`."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from telemetry.test_traces import Recorder

from envctl.engines.group_records import UNREAD, Commit
from envctl.faults.base import World
from envctl.faults.redelivery import Redelivery, Reset, _behind, _past, _read_again
from envctl.model.topology import Kafka, Service, Subscription, Topic, Topology

BUS = Kafka(name="bus", version="4.1", topics={name: Topic(name) for name in ("orders", "bills")})


RESET = Reset(before=40, to=20)
OURS = Commit(20, UNREAD, "ours")


def log(*offsets: int) -> tuple[Commit, ...]:
    return tuple(Commit(offset, 0) for offset in offsets)


def test_only_what_was_committed_behind_our_own_commit_counts() -> None:
    assert _behind((*log(40), OURS, *log(30, 41)), RESET, "ours") == log(30, 41)
    assert _behind((*log(40), OURS, *log(30), OURS), RESET, "ours") == ()
    assert _behind(log(40, 20, 30, 41), RESET, "ours") is None, "a consumer that goes back by itself"
    assert _behind((), RESET, "ours") is None


def test_it_is_where_it_was_once_it_has_passed_that() -> None:
    assert _past(log(30, 41), RESET)
    assert not _past(log(30, 39), RESET)


def test_messages_came_again_where_a_commit_is_of_one_of_them() -> None:
    assert _read_again(log(30, 41), RESET)
    assert _read_again(log(40), RESET)
    assert not _read_again((Commit(40, UNREAD),), RESET), "a position that it may have taken from elsewhere"
    assert not _read_again(log(20, 41), RESET), "it may have gone on by itself where it was"


@pytest.mark.parametrize(("offset", "signs"), [(20, {("orders", 1)}), (39, {("orders", 1)}), (40, set()), (19, set())])
def test_messages_came_again_where_a_span_is_of_one_of_them(tmp_path: Path, offset: int, signs: set[tuple[str, int]]) -> None:
    reach: Any = SimpleNamespace(environment=lambda: SimpleNamespace(directory=tmp_path))
    fault = Redelivery.build({"group": "payments"}, World(reach, Topology("t", Path("t.yaml"), ("a",), {}), random.Random(1), tmp_path))
    fault._resets = {("orders", 1): RESET}
    recorder = Recorder(tmp_path / "telemetry")
    recorder.span(1, "payments", "consumer", attrs={"messaging.destination.name": "orders", "messaging.destination.partition.id": "1",
                                                    "messaging.kafka.offset": offset, "messaging.consumer.group.name": "payments"})
    assert fault._signs({}) == signs


def test_a_topic_that_the_group_does_not_consume_is_refused() -> None:
    service = Service(name="payments", command=("x",), consumes=(Subscription("orders", "payments"),))
    topology = Topology("t", Path("t.yaml"), ("a",), {"bus": BUS, "payments": service})
    (found,) = Redelivery.unfit({"group": "payments", "topic": "bills"}, topology)
    assert found == ("topic", "payments does not consume bills", "it consumes orders")
    assert not Redelivery.unfit({"group": "payments", "topic": "orders"}, topology)
    assert not Redelivery.unfit({"group": "payments"}, topology)
