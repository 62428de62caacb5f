"""A group gets everything again: on a real broker, with consumers that are threads in place of nodes."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from loopback_broker import make_topic, until

from envctl.checks.base import Redelivery
from envctl.checks.idempotent_consumer import IdempotentConsumer
from envctl.engines import group_offsets
from envctl.engines.cluster import admin
from envctl.engines.topics import ends_of
from envctl.errors import ResourceError
from envctl.model.event import Observation, Step
from envctl.model.scenario import CheckSpec, Scenario, Stream, Traffic
from envctl.model.topology import Service, Subscription, Topology
from envctl.record import EVENTS, Record, RecordWriter, RunManifest
from envctl.runner import redelivering
from envctl.runner.redelivering import Redeliverer, redeliveries
from envctl.runner.walk import Run

PARTITIONS = [4, 3]


def committed(broker, group, topic):
    """Partition → what the group has committed."""
    with admin(broker.bootstrap) as client:
        return {partition: offset for (name, partition), offset in group_offsets.committed(client, [group])[group].items() if name == topic}


def move(broker, group, topic, to):
    with admin(broker.bootstrap) as client:
        group_offsets.move(client, group, {(topic, partition): offset for partition, offset in to.items()})


class Consumer(threading.Thread):
    """A member that writes down what it gets and then commits it; `once` does not write the same down twice."""

    def __init__(self, broker, group, topic, effects, once, reset="earliest"):
        super().__init__(daemon=True)
        self.settings = {"bootstrap.servers": broker.bootstrap, "group.id": group, "auto.offset.reset": reset, "enable.auto.commit": False,
                         "session.timeout.ms": 6000}
        self.topic, self.effects, self.once, self.over = topic, effects, once, threading.Event()
        self.start()

    def run(self):
        from confluent_kafka import Consumer as Client

        client = Client(self.settings)
        client.subscribe([self.topic])
        while not self.over.is_set():
            message = client.poll(0.1)
            if message is None or message.error():
                continue
            effect = f"{message.partition()}/{message.value().decode()}"
            if not self.once or effect not in self.effects:
                self.effects.append(effect)
            client.commit(message, asynchronous=False)
        client.close()

    def end(self):
        self.over.set()
        self.join(30)


class Reach:
    """Nodes that are such consumers."""

    def __init__(self, start):
        self.start, self.consumer, self.calls = start, start(), []

    def environment(self):
        return SimpleNamespace(nodes=[SimpleNamespace(name="payments-0", component="payments"), SimpleNamespace(name="web-0", component="web")])

    def node(self, _):
        return SimpleNamespace(pid=1 if self.consumer else None)

    def hold(self, name, _):
        self.calls.append(("hold", name))

    def signal(self, name, number):
        self.calls.append((signal.Signals(number).name, name))
        self.consumer.end()
        self.consumer = None

    def release(self, name):
        self.calls.append(("release", name))
        self.consumer = self.start()

    def wait_ready(self, name, _):
        self.calls.append(("ready", name))


class Scene:
    """A topic of the run, its group, and the record of a redelivery to it."""

    def __init__(self, broker, tmp_path, name, *, once=True, start=None, counts=(2, 0), first=lambda _: None, reset="earliest"):
        self.topic, self.group, self.directory, self.effects = f"{name}.placed", name, tmp_path, []
        make_topic(broker, self.topic, list(counts))  # before the run
        self.starts = ends_of(broker.bootstrap, self.topic)
        self.broker = broker
        first(self)
        self.reach = Reach(start or (lambda: Consumer(broker, self.group, self.topic, self.effects, once, reset)))
        params = {"group": self.group, "topic": self.topic, "effects": ["booked"]}
        self.scenario = Scenario("s", Path("s.yaml"), Traffic(Path("t"), "web", None, None), streams={"booked": Stream("booked", sql="select", fields={"id": "id"})},
                                 checks=(CheckSpec("no-loss", "no-loss", {}), CheckSpec("its-id", "idempotent-consumer", params)))
        RunManifest(id="r", scenario="s", stack="t", env_id="e", commit="c", branch="b", rng_seed=7, started_at=0.0, clock_ns=0, epoch_ns=0).save(tmp_path)
        self.record = RecordWriter(tmp_path / EVENTS)
        service = Service(name="payments", consumes=(Subscription(self.topic, self.group),))
        topology = Topology("t", Path("t.yaml"), ("a",), {"payments": service})
        self.ground = SimpleNamespace(reach=self.reach, topology=topology, scenario=self.scenario, bootstrap=broker.bootstrap, directory=tmp_path,
                                      stopping=threading.Event())

    def produce(self):
        self.write(dict(enumerate(PARTITIONS)))
        ends = ends_of(self.broker.bootstrap, self.topic)
        until(lambda: committed(self.broker, self.group, self.topic) == {partition: ends[partition] for partition in range(len(PARTITIONS))})

    def write(self, counts):
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.broker.bootstrap})
        for partition, count in counts.items():
            for number in range(count):
                producer.produce(self.topic, f"m{number}", partition=partition)
        assert producer.flush(30) == 0

    def starts_of(self, topic):
        assert topic == self.topic
        return self.starts

    def observe(self, _, name):
        self.record.write(Step(at_ns=1, name="observe", edge="begin", detail={"stream": name}))
        for effect in list(self.effects):
            self.record.write(Observation(at_ns=1, stream=name, id=effect))
        self.record.write(Step(at_ns=1, name="observe", edge="end", ok=True, detail={"stream": name}))
        self.record.sync()

    def redeliver(self, within_s=60.0):
        asked = Redelivery(self.group, self.topic, ("booked",), within_s)
        said = Redeliverer(self.ground, self, asked, "its-id").run()
        self.record.write(Step(at_ns=2, name="redeliver", edge="end", ok=True, detail={"check": "its-id", **said}))
        self.record.sync()
        return said

    def judged(self):
        ((spec, _),) = redeliveries(self.scenario)
        return IdempotentConsumer.judge(spec.id, spec.params, Record(self.directory, self.scenario))


@pytest.fixture
def scene(broker, tmp_path):
    made = []

    def make(name, **options):
        made.append(Scene(broker, tmp_path, name, **options))
        return made[-1]

    yield make
    for each in made:
        each.record.close()
        if each.reach.consumer:
            each.reach.consumer.end()


def test_a_consumer_that_knows_what_it_has_done_passes(scene):
    it = scene("good")
    it.produce()
    assert it.redeliver() == {"messages": sum(PARTITIONS), "nodes": ["payments-0"]}
    assert [call for call in it.reach.calls if call[0] != "hold"] == [("SIGTERM", "payments-0"), ("release", "payments-0"), ("ready", "payments-0")]
    assert it.reach.calls[0] == ("hold", "payments-0")
    found = it.judged()
    assert (found.outcome, found.stats["messages"]) == ("pass", 7)


def test_one_that_does_it_all_again_is_found(scene, monkeypatch):
    monkeypatch.setattr(redelivering, "READ_AGAIN_S", 0.5)
    it = scene("bad", once=False)
    it.produce()
    it.redeliver()
    found = it.judged()
    assert (found.outcome, found.total) == ("fail", sum(PARTITIONS))
    assert len(it.effects) == 2 + 2 * sum(PARTITIONS)


def test_what_was_there_before_the_run_is_not_delivered_again(scene, monkeypatch):
    monkeypatch.setattr(redelivering, "READ_AGAIN_S", 0.0)
    it = scene("bounded", once=False)
    it.produce()
    it.redeliver()
    assert it.effects.count("0/0") == it.effects.count("0/1") == 1


def test_partitions_of_which_the_group_has_committed_nothing_are_left_alone(scene):
    def before_it_came(it):
        """It begins where two partitions end; a third one has what was seeded, a fourth one also what was written in the run before it came."""
        move(it.broker, it.group, it.topic, {0: 2, 1: 0})
        it.write({3: 1})

    it = scene("latest", counts=(2, 0, 3, 1), first=before_it_came, reset="latest")
    it.produce()
    assert it.redeliver()["messages"] == sum(PARTITIONS)
    assert set(committed(it.broker, it.group, it.topic)) == {0, 1}
    assert it.judged().outcome == "pass"


def test_a_topic_in_which_the_run_wrote_nothing_stays_as_it_is(scene):
    it = scene("idle")
    assert it.redeliver() == {"messages": 0}
    assert not it.reach.calls


def test_a_group_that_keeps_a_member_is_not_moved_and_its_nodes_come_back(scene, broker, monkeypatch):
    monkeypatch.setattr(redelivering, "EMPTY_S", 1.0)
    it = scene("kept")
    stranger = Consumer(broker, it.group, it.topic, [], True)
    it.produce()
    until(lambda: stranger.effects or it.effects)
    try:
        with pytest.raises(ResourceError, match="can't be"):
            it.redeliver()
    finally:
        stranger.end()
    assert it.reach.calls[-1] == ("release", "payments-0")


def test_a_consumer_that_does_not_come_back_is_not_waited_for_for_ever(scene):
    it = scene("gone")
    it.produce()
    it.reach.start = lambda: None
    with pytest.raises(ResourceError, match="had not caught up again in 1 s"):
        it.redeliver(within_s=1.0)


def test_offsets_move_only_while_a_group_has_no_members(broker):
    make_topic(broker, "moved", [3])
    effects: list[str] = []
    member = Consumer(broker, "movers", "moved", effects, True)
    until(lambda: committed(broker, "movers", "moved") == {0: 3})
    with pytest.raises(ResourceError, match="the offsets of group movers in moved/0 can't be moved: UnknownMemberIdError"):
        move(broker, "movers", "moved", {0: 1})
    member.end()
    until(lambda: move(broker, "movers", "moved", {0: 1}) is None)
    assert committed(broker, "movers", "moved") == {0: 1}


def test_a_redelivery_that_could_not_be_done_is_told_and_ends_no_run(tmp_path, monkeypatch):
    params = {"group": "g", "topic": "t", "effects": ["booked"]}
    scenario = Scenario("s", Path("s.yaml"), Traffic(Path("t"), "web", None, None), streams={"booked": Stream("booked", sql="select")},
                        checks=(CheckSpec("one", "idempotent-consumer", params), CheckSpec("two", "idempotent-consumer", params)))
    manifest = RunManifest(id="r", scenario="s", stack="t", env_id="e", commit="c", branch="b", rng_seed=7, started_at=0.0, clock_ns=0, epoch_ns=0)
    manifest.save(tmp_path)
    run = Run(tmp_path, SimpleNamespace(), Topology("t", Path("t.yaml"), ("a",), {}), scenario, manifest)
    errors = [LookupError("no topic t"), ResourceError("no node consumes as g")]
    monkeypatch.setattr(Redeliverer, "run", lambda _: (_ for _ in ()).throw(errors.pop(0)))
    run._redeliver(SimpleNamespace(), SimpleNamespace())
    run.record.close()
    ends = [step for step in Record(tmp_path, scenario).steps if step.edge == "end"]
    assert [(step.detail["check"], step.ok, step.detail["error"]) for step in ends] == [
        ("one", False, "LookupError: no topic t"), ("two", False, "no node consumes as g")]
