"""What of a redelivery can be told without a Kafka; the rest is in `inside_bus.py`."""

from __future__ import annotations

from pathlib import Path

from envctl.faults.redelivery import Redelivery, Reset, _again
from envctl.model.topology import Kafka, Service, Subscription, Topic, Topology

BUS = Kafka(name="bus", version="4.1", topics={name: Topic(name) for name in ("orders", "bills")})


def test_offsets_have_been_passed_again_only_behind_the_reset() -> None:
    reset = Reset(before=40, to=20)
    assert _again((40, 20, 30, 41), reset)
    assert not _again((40, 20, 30), reset), "not yet where it was"
    assert not _again((40, 41), reset), "never reset"
    assert not _again((), reset)


def test_a_topic_that_the_group_does_not_consume_is_refused() -> None:
    service = Service(name="payments", command=("x",), consumes=(Subscription("orders", "payments"),))
    topology = Topology("t", Path("t.yaml"), ("a",), {"bus": BUS, "payments": service})
    (found,) = Redelivery.unfit({"group": "payments", "topic": "bills"}, topology)
    assert found == ("topic", "payments does not consume bills", "it consumes orders")
    assert not Redelivery.unfit({"group": "payments", "topic": "orders"}, topology)
    assert not Redelivery.unfit({"group": "payments"}, topology)
