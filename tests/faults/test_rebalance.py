"""Rebalance of a real consumer group on a real broker."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loopback_broker import make_topic

from envctl.errors import UsageError
from envctl.faults.base import Effect, World
from envctl.faults.rebalance import Rebalance, describe, evict
from envctl.model.topology import Topology
from envctl.waiting import until

pytestmark = pytest.mark.engines
PROTOCOLS: dict[str, dict[str, str | int]] = {
    "classic": {"session.timeout.ms": 6000, "partition.assignment.strategy": "range"},
    "kip-848": {"group.protocol": "consumer"},
}


class Host:
    """A reach whose environment is this machine's loopback, where the broker is."""

    def environment(self) -> Any:
        return SimpleNamespace(nodes=())

    def __init__(self, argv: Sequence[str] = ()) -> None:
        self._instead = argv  # what is started in place of what was asked for

    own = (sys.executable, "-P")

    def popen(self, _node: None, argv: Sequence[str], *, stdout: Any = None, **_: object) -> Any:
        process = subprocess.Popen(self._instead or argv, stdout=stdout)
        return SimpleNamespace(poll=process.poll, wait=process.wait, signal=process.send_signal)


@pytest.fixture
def world(broker: Any, tmp_path: Path) -> Callable[..., World]:
    def make(*instead: str) -> World:
        return World(Host(instead), Topology("t", Path("t.yaml"), (), {}), random.Random(1), tmp_path, broker.bootstrap)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="module", params=sorted(PROTOCOLS))
def group(broker: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    """Two members that read for as long as the module's tests run."""
    from confluent_kafka import Consumer

    name = f"readers-{request.param}"
    make_topic(broker, f"letters-{request.param}", [3, 3, 3, 3])
    over = threading.Event()

    def read() -> None:
        consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": name, "auto.offset.reset": "earliest",
                             **PROTOCOLS[request.param]})
        consumer.subscribe([f"letters-{request.param}"])
        while not over.is_set():
            consumer.poll(0.1)
        consumer.close()

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    assert until(lambda: len(describe(broker.bootstrap, name).members) == 2 and describe(broker.bootstrap, name).state == "Stable", 40)
    yield name
    over.set()
    for reader in readers:
        reader.join()


def test_a_stranger_that_joins_and_leaves_moves_the_generation_twice(world: Callable[..., World], group: str) -> None:
    fault = Rebalance.build({"group": group, "mode": "churn"}, world())
    fault.probe()
    fault.apply(20)
    effect = fault.verify()
    assert effect.shown, effect
    assert effect.detail["member"]
    fault.heal()
    gone = fault.absent()
    assert gone.shown, gone
    assert gone.detail["generation"] >= effect.detail["before"] + 2


def test_a_stranger_that_has_left_and_not_ended_yet_has_acted(
    world: Callable[..., World], group: str, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = describe(broker.bootstrap, group)
    member = (*Host.own, "-m", "envctl.faults.programs.transient_member", broker.bootstrap, group, before.assignor, "20", *before.topics)
    fault = Rebalance.build({"group": group, "mode": "churn"}, world("sh", "-c", '"$@"; status=$?; sleep 5; exit $status', "sh", *member))
    monkeypatch.setattr(Rebalance, "_stable", lambda _: len(describe(broker.bootstrap, group).members) == 2)
    fault.apply(20)
    effect = fault.verify()
    assert effect.shown, effect
    monkeypatch.undo()
    fault.heal()
    assert fault.absent().shown


def test_a_group_that_moves_between_probe_and_apply_is_waited_for(world: Callable[..., World], group: str, broker: Any) -> None:
    fault = Rebalance.build({"group": group, "mode": "churn"}, world())
    fault.probe()
    evict(broker.bootstrap, group, describe(broker.bootstrap, group).members[:1])
    fault.apply(20)
    effect = fault.verify()
    assert effect.shown, effect
    fault.heal()
    assert fault.absent().shown


def test_evicted_members_are_gone_and_come_back(world: Callable[..., World], group: str, broker: Any) -> None:
    before = describe(broker.bootstrap, group)
    fault = Rebalance.build({"group": group, "mode": "evict", "members": 1}, world())
    fault.probe()
    fault.apply(20)
    effect = fault.verify()
    assert effect.shown, effect
    assert len(effect.detail["evicted"]) == 1
    assert until(lambda: len(describe(broker.bootstrap, group).members) == 2, 30)
    if before.assignor:  # classic: under a new name
        assert not set(effect.detail["evicted"]) & set(describe(broker.bootstrap, group).members)
    else:
        assert set(describe(broker.bootstrap, group).members) == set(before.members)
    fault.heal()
    assert fault.absent().shown


def test_a_rebalance_that_never_came_is_not_shown(world: Callable[..., World], group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envctl.faults.rebalance.SETTLE_S", 1.0)
    monkeypatch.setattr("envctl.faults.rebalance.evict", lambda *_: ())
    fault = Rebalance.build({"group": group, "mode": "evict"}, world())
    fault.probe()
    fault.apply(20)
    assert not fault.verify().shown


def not_shown_though_others_rebalance(fault: Rebalance, bootstrap: str, group: str) -> Effect:
    """What a fault says that did nothing itself, while somebody else made the generation rise."""
    fault.probe()
    fault.apply(20)
    evict(bootstrap, group, describe(bootstrap, group).members)
    effect = fault.verify()
    assert effect.detail["after"] > effect.detail["before"]
    assert not effect.shown
    return effect


def settle(broker: Any, group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both members of the group have their shares again; from then on not much patience is needed."""

    def settled() -> bool:
        found = describe(broker.bootstrap, group)
        return len(found.members) == 2 and found.state == "Stable"

    assert until(settled, 60)
    monkeypatch.setattr("envctl.faults.rebalance.SETTLE_S", 5.0)


def test_a_stranger_that_never_joined_is_not_shown_by_a_rebalance_of_others(
    world: Callable[..., World], group: str, broker: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    settle(broker, group, monkeypatch)
    fault = Rebalance.build({"group": group, "mode": "churn"}, world(sys.executable, "-c", "raise SystemExit(1)"))
    assert "did not join" in not_shown_though_others_rebalance(fault, broker.bootstrap, group).summary
    fault.heal()


def test_an_eviction_that_was_not_acknowledged_is_not_shown_by_a_rebalance_of_others(
    world: Callable[..., World], group: str, broker: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    settle(broker, group, monkeypatch)
    monkeypatch.setattr("envctl.faults.rebalance.evict", lambda bootstrap, name, _: evict(bootstrap, name, ["somebody else"]))
    fault = Rebalance.build({"group": group, "mode": "evict"}, world())
    assert "0 of 2 evictions acknowledged" in not_shown_though_others_rebalance(fault, broker.bootstrap, group).summary


def test_a_group_without_members_is_refused(world: Callable[..., World], broker: Any) -> None:
    with pytest.raises(UsageError, match="not stable"):
        Rebalance.build({"group": "nobody"}, world()).probe()


def test_without_a_kafka_it_is_refused(tmp_path: Path) -> None:
    nowhere = World(Host(), Topology("t", Path("t.yaml"), (), {}), random.Random(1), tmp_path, "")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="kafka"):
        Rebalance.build({"group": "readers"}, nowhere).probe()
