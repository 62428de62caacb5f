"""Runs inside an environment with three brokers: `python inside_bus.py ENVIRONMENT NAME` runs the function of that name.

What is asserted there is the test; `test_bus.py` runs each of these functions.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka import TopicPartition as Place

from envctl.engines.cluster import admin, cluster, controller, partitions
from envctl.engines.group_offsets import move
from envctl.engines.topics import messages_of
from envctl.errors import CapabilityError, ResourceError, UsageError
from envctl.faults import brokers, redelivery
from envctl.faults.base import Effect, World
from envctl.faults.broker_kill import BrokerKill
from envctl.faults.broker_pause import BrokerPause
from envctl.faults.broker_restart import BrokerRestart
from envctl.faults.duplicate_messages import DuplicateMessages
from envctl.faults.leader_move import LeaderMove
from envctl.faults.node_kill import NodeKill
from envctl.faults.partition_reassignment import PartitionReassignment
from envctl.faults.placement import Held
from envctl.faults.rebalance import describe
from envctl.faults.redelivery import Redelivery
from envctl.faults.reorder_messages import ReorderMessages
from envctl.faults.republishing import content
from envctl.model.topology import Kafka, Topic, Topology
from envctl.substrates.base import Reach
from envctl.substrates.embedded import Embedded
from envctl.telemetry.lag import LagSampler
from envctl.waiting import until

TOPICS = {
    "orders": Topic("orders", 3), "pairs": Topic("pairs", 2, replication=2), "singles": Topic("singles", 1, replication=1),
    **{name: Topic(name, 2) for name in ("once", "again", "leased", "fed", "sought")},
}
BUS = Kafka(name="bus", version="4.1", brokers=3, topics=TOPICS, settings={
    "broker.session.timeout.ms": "3000", "group.consumer.min.heartbeat.interval.ms": "500", "group.consumer.heartbeat.interval.ms": "500"})
TOPOLOGY = Topology("t", Path("t.yaml"), ("a", "b", "c"), {"bus": BUS})
BOOTSTRAP = "bus-0:9092,bus-1:9092,bus-2:9092"


class Bus:
    """The environment, as faults see it."""

    def __init__(self, directory: Path, scratch: Path) -> None:
        self.reach: Reach = Embedded.attach(directory)
        self._scratch = scratch

    def world(self, id: str = "fault") -> World:
        scratch = self._scratch / id
        scratch.mkdir(exist_ok=True)
        return World(self.reach, TOPOLOGY, random.Random(1), scratch, BOOTSTRAP)

    def found(self) -> dict[str, Any]:
        """Leader and replicas of every partition of the topics, when all are in sync."""
        with admin(BOOTSTRAP) as client:
            assert until(lambda: all(one.whole for one in partitions(client).values()), 40)
            return {f"{topic}/{number}": (one.leader, one.replicas) for (topic, number), one in partitions(client, TOPICS).items()}


def refused(fault: Any, words: str, kind: type[Exception] = UsageError) -> None:
    with pytest.raises(kind, match=words):
        fault.probe()


MOVES = ((LeaderMove, "orders"), (PartitionReassignment, "pairs"), (PartitionReassignment, "orders"))


def partitions_that_are_moved_are_measured_and_put_back(bus: Bus) -> None:
    before = bus.found()
    for kind, topic in MOVES:
        fault = kind({"topic": topic}, bus.world())
        blast = fault.probe()
        assert blast.nodes, blast
        assert fault.undo()["placement"]
        assert bus.found() == before, "a dry run moves nothing"
        assert not fault.verify().shown, "it has not been applied yet"
        fault.apply(60)
        fault.apply(60)
        effect = fault.verify()
        assert effect.shown, effect
        assert effect.detail["canary_sent"] > 0, effect
        assert effect.detail["canary_lost"] == 0, effect
        assert all(bus.found()[name] != before[name] for name in before if name.startswith(topic)), (bus.found(), before)
        assert not fault.absent().shown
        fault.heal()
        fault.heal()
        assert fault.absent().shown, fault.absent()
        assert bus.found() == before


def some_partitions_are_moved_and_the_others_stay(bus: Bus) -> None:
    before = bus.found()
    fault = LeaderMove({"topic": "orders", "partitions": 1}, bus.world())
    fault.probe()
    fault.apply(60)
    assert fault.verify().shown, fault.verify()
    after = bus.found()
    assert sum(after[name] != before[name] for name in before) == 1, (before, after)
    fault.heal()
    assert fault.absent().shown


def what_nobody_holds_any_more_is_put_back(bus: Bus) -> None:
    before = bus.found()
    fault = LeaderMove({"topic": "orders"}, bus.world())
    fault.probe()
    fault.apply(1)
    assert until(lambda: fault.absent().shown, 30)
    assert bus.found() == before
    assert not fault.verify().shown
    fault.apply(60)
    assert fault.verify().shown, "a renewal that comes late has it act again"
    LeaderMove({"topic": "orders"}, bus.world()).heal()  # somebody else, who knows nothing of it
    assert fault.absent().shown
    assert bus.found() == before


def a_broker_that_was_started_again_meanwhile_leads_again(bus: Bus) -> None:
    before = bus.found()
    fault = LeaderMove({"topic": "orders"}, bus.world())
    fault.probe()
    fault.apply(60)
    starts = bus.reach.node("bus-0").starts
    bus.reach.signal("bus-0", signal.SIGKILL)
    assert until(lambda: bus.reach.node("bus-0").starts > starts, 20)
    fault.apply(60)
    bus.reach.wait_ready("bus-0", 60)
    fault.heal()
    assert fault.absent().shown, fault.absent()
    assert {name: one for name, one in bus.found().items() if name.startswith("orders")} == {name: one for name, one in before.items() if name.startswith("orders")}


def two_topics_are_moved_at_once_and_one_topic_only_once(bus: Bus) -> None:
    before = bus.found()
    first, second = LeaderMove({"topic": "orders"}, bus.world("first")), PartitionReassignment({"topic": "pairs"}, bus.world("second"))
    for fault in (first, second):
        fault.probe()
        fault.apply(60)
    refused(PartitionReassignment({"topic": "orders"}, bus.world("third")), "moved already")
    assert first.verify().shown, first.verify()
    first.heal()
    second.apply(60)
    assert second.verify().shown, second.verify()
    assert not second.absent().shown
    second.heal()
    assert first.absent().shown
    assert second.absent().shown
    assert bus.found() == before


def what_has_nowhere_to_go_is_refused(bus: Bus) -> None:
    refused(LeaderMove({"topic": "singles"}, bus.world()), "no other broker", CapabilityError)
    refused(LeaderMove({"topic": "nothing"}, bus.world()), "no topic")
    refused(LeaderMove({"topic": "orders", "partitions": 4}, bus.world()), "4 of 3")
    assert not Held(bus.world().scratch.parent / "placement-orders.json").path.exists()


def acts_and_goes(bus: Bus, fault: Any, *, nodes: bool = True) -> Effect:
    """The whole contract; returns what was measured."""
    blast = fault.probe()
    assert bool(blast.nodes) == nodes, blast
    assert fault.undo()
    fault.apply(60)
    fault.apply(60)
    effect: Effect = fault.verify()
    assert effect.shown, effect
    assert effect.detail.get("canary_lost", 0) == 0, effect
    if not fault.instantaneous and not isinstance(fault, BrokerKill):  # which waits for a node that is held down
        assert not fault.absent().shown
    fault.heal()
    fault.heal()
    gone = fault.absent()
    assert gone.shown, gone
    bus.found()
    return effect


def the_controller() -> str:
    with admin(BOOTSTRAP) as client:
        return cluster(client).names[controller(client)[0]]


def a_controller_that_is_killed_is_followed_by_another_one(bus: Bus) -> None:
    target = the_controller()
    effect = acts_and_goes(bus, BrokerKill({"target": target}, bus.world()))
    assert effect.detail["canary_sent"] == 3, effect
    assert effect.detail["controller"][0] != effect.detail["controller"][1], effect
    assert "exit 137" in effect.summary, effect


def a_broker_that_is_killed_and_held_down_is_fenced(bus: Bus) -> None:
    fault = BrokerKill({"target": "bus", "pick": 1, "restart": False}, bus.world())
    effect = acts_and_goes(bus, fault)
    assert len(effect.detail["alive"]) == 2, effect


def a_broker_that_stands_still_is_fenced_and_comes_back(bus: Bus) -> None:
    effect = acts_and_goes(bus, BrokerPause({"target": the_controller()}, bus.world()))
    assert "1 of 1 stood still; fenced" in effect.summary, effect
    assert "by another controller" in effect.summary, effect


def a_broker_that_goes_on_too_early_is_not_shown_to_be_fenced(bus: Bus) -> None:
    brokers.FENCED_S = 2.0  # the session lasts three
    fault = BrokerPause({"target": "bus-0"}, bus.world())
    fault.probe()
    fault.apply(60)
    effect = fault.verify()
    fault.heal()
    assert not effect.shown, effect
    assert "still a broker of the cluster" in effect.summary, effect
    assert fault.absent().shown


def brokers_are_restarted_one_after_the_other(bus: Bus) -> None:
    effect = acts_and_goes(bus, BrokerRestart({"target": "bus", "pick": 2}, bus.world()))
    assert effect.detail["led"] > 3, effect
    last = effect.detail["nodes"][-1]["node"]
    alone = acts_and_goes(bus, BrokerRestart({"target": last}, bus.world()))  # it leads nothing yet, but for what nobody else can lead
    assert alone.detail["led"] <= 1, alone
    assert alone.detail["canary_sent"] == 3, alone


def brokers_are_restarted_together(bus: Bus) -> None:
    acts_and_goes(bus, BrokerRestart({"target": "bus", "pick": 2, "mode": "together"}, bus.world()))


def what_was_not_done_to_a_broker_is_not_shown(bus: Bus) -> None:
    brokers.FENCED_S = 2.0
    fault: Any = BrokerKill({"target": "bus-0"}, bus.world())
    fault.probe()
    real, NodeKill.verify = NodeKill.verify, lambda _: Effect(True, "it was said")  # type: ignore[method-assign]
    effect = fault.verify()
    NodeKill.verify = real  # type: ignore[method-assign]
    assert not effect.shown, effect
    assert "said" in effect.summary, effect
    fault = BrokerRestart({"target": "bus-0"}, bus.world())
    fault.probe()
    assert not fault.verify().shown


PROTOCOLS: dict[str, dict[str, str | int]] = {"classic": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}, "kip-848": {"group.protocol": "consumer"}}


def a_broker_that_leads_nothing_is_seen_to_be_away(bus: Bus) -> None:
    fault = BrokerKill({"target": "bus-1"}, bus.world())
    acts_and_goes(bus, fault)
    again = acts_and_goes(bus, BrokerKill({"target": "bus-1"}, bus.world()))
    assert again.detail["led"] <= 1, again  # but for what nobody else can lead


def how_far_a_group_is_behind_is_known_again_when_leaders_have_changed(bus: Bus) -> None:
    sampler = LagSampler(BOOTSTRAP, [("followers", "orders")])
    reader = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "followers"})
    write("orders", 9)
    assert until(lambda: committed(reader, "orders"), 30)
    reader.close()
    assert until(lambda: None not in lags(sampler), 30), lags(sampler)
    for name in ("bus-2", "bus-1", "bus-0"):
        fault = BrokerKill({"target": name, "restart": False}, bus.world())
        fault.probe()
        fault.apply(60)
        assert until(lambda: None not in lags(sampler), 30), (name, lags(sampler))
        fault.heal()
        assert fault.absent().shown
        assert until(lambda: None not in lags(sampler), 10), (name, lags(sampler))


def committed(reader: Consumer, topic: str) -> bool:
    try:
        return bool(reader.commit(offsets=[Place(topic, number, 0) for number in range(3)], asynchronous=False))
    except KafkaException:
        return False


def lags(sampler: LagSampler) -> list[float | None]:
    try:
        return [reading.value for reading in sampler.sample()]
    except KafkaException:
        return [None]


@contextmanager
def readers(group: str, topic: str, protocol: str, kept: dict[int, int] | None = None) -> Iterator[list[tuple[int, int]]]:
    """Two members of a group; what they have been given, as (partition, offset).  `kept`: they keep their places themselves, and begin there."""
    given: list[tuple[int, int]] = []
    over = threading.Event()

    def begin(consumer: Any, partitions: Any) -> None:
        for each in partitions:
            each.offset = (kept or {}).get(each.partition, each.offset)
        consumer.assign(partitions)

    def read() -> None:
        consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": group, "auto.offset.reset": "earliest", "auto.commit.interval.ms": 100, "log_level": 0,
                             **PROTOCOLS[protocol]})
        consumer.subscribe([topic], on_assign=begin) if kept is not None else consumer.subscribe([topic])
        while not over.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                given.append((message.partition(), message.offset()))
                if kept is not None:
                    kept[message.partition()] = message.offset() + 1
        consumer.close()

    threads = [threading.Thread(target=read) for _ in range(2)]
    for each in threads:
        each.start()
    try:
        yield given
    finally:
        over.set()
        for each in threads:
            each.join()


def write(topic: str, count: int, first: int = 0) -> None:
    """So many records over the topic's partitions, of ten keys, each with a header."""
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "acks": "all", "log_level": 0})
    for number in range(first, first + count):
        producer.produce(topic, f"value {number}", f"key {number % 10}", headers=[("traceparent", f"00-{number:032x}-b7ad6b7169203331-01".encode())])
    assert producer.flush(30) == 0


def read_all(topic: str) -> list[tuple[Any, ...]]:
    """Everything in a topic: content first, then partition and offset."""
    found = messages_of(BOOTSTRAP, topic, within_s=20)
    return [(content(message), message.partition(), message.offset()) for message in found]


def another_group_commits() -> bool:
    try:
        with admin(BOOTSTRAP) as client:
            move(client, "watchers", {("orders", 0): 3})
            return True
    except ResourceError:  # its coordinator is being made
        return False


def redelivered(bus: Bus, protocol: str) -> None:
    write("orders", 90)
    assert until(another_group_commits, 20)
    with readers(f"readers-{protocol}", "orders", protocol) as given:
        everything = {one[1:] for one in read_all("orders")}
        assert until(lambda: set(given) == everything, 40)
        fault = Redelivery({"group": f"readers-{protocol}", "back": 7}, bus.world(protocol))
        assert until(lambda: len(describe(BOOTSTRAP, f"readers-{protocol}").members) == 2, 20)
        effect = acts_and_goes(bus, fault, nodes=False)
        assert effect.detail["messages"] == 21, effect
        assert effect.detail["canary_sent"] > 0, effect
        twice = {one for one in given if given.count(one) > 1}
        last = {(one["partition"], offset) for one in effect.detail["partitions"] for offset in range(one["reset"], one["committed"])}
        assert len(last) == 21
        assert last <= twice, (last, twice)


def a_classic_group_handles_its_last_messages_again(bus: Bus) -> None:
    redelivered(bus, "classic")


def a_kip_848_group_handles_its_last_messages_again(bus: Bus) -> None:
    redelivered(bus, "kip-848")
    refused(Redelivery({"group": "readers-kip-848"}, bus.world()), "not stable")  # they have left


def a_consumer_that_seeks_by_itself_is_not_proved(bus: Bus) -> None:
    redelivery.PASS_S = 4.0
    write("sought", 20)
    kept: dict[int, int] = {}
    with readers("seekers", "sought", "classic", kept) as given, writing("sought"):
        assert until(lambda: len(given) >= 20, 40)
        fault = Redelivery({"group": "seekers", "back": 7}, bus.world("sought"))
        assert until(lambda: len(describe(BOOTSTRAP, "seekers").members) == 2, 20)
        fault.probe()
        fault.apply(20)
        assert until(lambda: fault.absent().shown, 20), "its commits fall and rise as they should"
        effect = fault.verify()
        assert not effect.shown, effect
        assert effect.summary == "2 of 2 offsets fell, 2 were passed again, and nothing shows that messages in between came again", effect
        back = {(one["partition"], offset) for one in effect.detail["partitions"] for offset in range(one["reset"], one["committed"])}
        assert len(back) == 14
        assert not {one for one in given if given.count(one) > 1} & back, "nothing of it came again"


def what_was_not_redelivered_is_not_shown(bus: Bus) -> None:
    redelivery.PASS_S = 2.0
    write("pairs", 20)
    with readers("idlers", "pairs", "classic") as given:
        assert until(lambda: len(given) >= 20, 40)
        fault = Redelivery({"group": "idlers"}, bus.world())
        assert until(lambda: len(describe(BOOTSTRAP, "idlers").members) == 2, 20)
        fault.probe()
        assert not fault.verify().shown
        Redelivery._reset = Redelivery._planned  # type: ignore[method-assign]
        fault.apply(20)
        assert not fault.verify().shown, fault.verify()
        redelivery.RESET_S, Redelivery._planned = 1.0, lambda *_: {}  # type: ignore[method-assign]
        with pytest.raises(ResourceError, match="committed nothing"):
            Redelivery({"group": "idlers"}, bus.world("second")).apply(20)


@contextmanager
def writing(topic: str) -> Iterator[None]:
    """Records come all the time."""
    over = threading.Event()

    def go_on() -> None:
        first = 1000
        while not over.wait(0.02):
            write(topic, 5, first)
            first += 5

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def duplicates(topic: str) -> int:
    """How many records are in a topic beside the first of the same content."""
    contents = [repr(one[0]) for one in read_all(topic)]
    return len(contents) - len(set(contents))


def records_come_twice(bus: Bus) -> None:
    fault = DuplicateMessages({"topic": "once", "share": "50 %"}, bus.world())
    assert not fault.verify().shown
    with writing("once"):
        effect = acts_and_goes(bus, fault)
        assert effect.detail["copies"] < effect.detail["seen"], effect
        copies = duplicates("once")
        assert copies >= effect.detail["copies"]
    assert duplicates("once") == copies, "what came after the healing came once"
    assert not fault.verify().shown


def records_come_again_behind_newer_ones(bus: Bus) -> None:
    fault = ReorderMessages({"topic": "again"}, bus.world())
    with writing("again"):
        effect = acts_and_goes(bus, fault)
    inverted = effect.detail["sample"][0]
    found = {one[1:]: one[0] for one in read_all("again")}
    original, newer, copy = (found[inverted["partition"], inverted[name]] for name in ("original", "newer", "copy"))
    assert original == copy
    assert original[0] == newer[0]
    assert original[1] != newer[1]
    assert inverted["original"] < inverted["newer"] < inverted["copy"]


def records_are_produced_again_no_longer_than_somebody_wants_it(bus: Bus) -> None:
    fault = DuplicateMessages({"topic": "leased"}, bus.world())
    fault.probe()
    with writing("leased"):
        fault.apply(1)
        assert until(lambda: not fault.verify().shown and fault._is_over(), 30)
        fault.apply(60)
        assert fault.verify().shown, "a renewal that comes late has it act again"
        fault._process.signal(signal.SIGKILL)  # type: ignore[union-attr]
        assert until(lambda: not fault.verify().shown, 30)
        fault.apply(60)
        assert fault.verify().shown, fault.verify()
        DuplicateMessages({"topic": "leased"}, bus.world()).heal()  # somebody else, who knows nothing of it
        assert fault.absent().shown
        copies = duplicates("leased")
    assert duplicates("leased") == copies


def two_that_produce_again_do_not_feed_each_other(bus: Bus) -> None:
    first, second = (DuplicateMessages({"topic": "fed"}, bus.world(id)) for id in ("first", "second"))
    for fault in (first, second):
        fault.probe()
        fault.apply(60)
    write("fed", 40)
    assert first.verify().shown, first.verify()
    assert second.verify().shown, second.verify()
    first.heal()
    assert not second.absent().shown
    second.heal()
    assert first.absent().shown
    assert second.absent().shown
    assert duplicates("fed") == 2 * 40


def a_topic_that_is_not_there_is_refused(bus: Bus) -> None:
    refused(DuplicateMessages({"topic": "nothing"}, bus.world()), "no topic")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        globals()[sys.argv[2]](Bus(Path(sys.argv[1]), Path(place)))
