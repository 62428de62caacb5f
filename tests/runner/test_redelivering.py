"""What a redelivery rests on: offsets that move on a real broker, and a run that goes on where they can't."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from loopback_broker import make_topic, until

from envctl.engines.group_offsets import committed, rewind
from envctl.errors import ResourceError
from envctl.model.scenario import CheckSpec, Scenario, Stream, Traffic
from envctl.model.topology import Topology
from envctl.record import Record, RunManifest
from envctl.runner.redelivering import Redeliverer
from envctl.runner.walk import Run


class Consumer(threading.Thread):
    """A member that writes down what it gets and then commits it; `once` does not write the same down twice."""

    def __init__(self, broker, group, topic, effects, once):
        super().__init__(daemon=True)
        self.settings = {"bootstrap.servers": broker.bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
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


def test_offsets_move_only_while_a_group_has_no_members(broker):
    make_topic(broker, "moved", [3])
    effects: list[str] = []
    member = Consumer(broker, "movers", "moved", effects, True)
    until(lambda: committed(broker.bootstrap, "movers", "moved", 1) == {0: 3})
    with pytest.raises(ResourceError, match="movers"):
        rewind(broker.bootstrap, "movers", "moved", {0: 1})
    member.end()
    until(lambda: rewind(broker.bootstrap, "movers", "moved", {0: 1}) is None)
    assert committed(broker.bootstrap, "movers", "moved", 1) == {0: 1}


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
