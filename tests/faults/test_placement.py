"""Where partitions go, without a Kafka; that they do is tested in `inside_bus.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from envctl.engines.cluster import Partition
from envctl.faults.leader_move import LeaderMove
from envctl.faults.partition_reassignment import PartitionReassignment
from envctl.faults.placement import Held, Moved, Place
from envctl.model.topology import Kafka, Topic, Topology
from envctl.waiting import until

ALL = frozenset({0, 1, 2})


def moved(kind: type[Moved], partition: Partition, number: int = 0) -> Place:
    return kind._elsewhere(object(), partition, number, ALL)  # type: ignore[arg-type]


@pytest.mark.parametrize(("leader", "place"), [
    (0, Place(1, (1, 0, 2))),
    (1, Place(2, (2, 0, 1))),
    (2, Place(0, (0, 1, 2))),  # whose leader was not the preferred one
])
def test_the_replica_after_the_leader_leads(leader: int, place: Place) -> None:
    assert moved(LeaderMove, Partition(leader, 1, (0, 1, 2), (0, 1, 2))) == place


def test_replicas_are_rotated_where_all_brokers_have_one_and_replaced_where_not() -> None:
    assert moved(PartitionReassignment, Partition(1, 1, (0, 1, 2), (0, 1, 2))) == Place(2, (2, 0, 1))
    assert moved(PartitionReassignment, Partition(1, 1, (0, 1), (0, 1))) == Place(0, (0, 2))
    assert moved(PartitionReassignment, Partition(0, 1, (0,), (0,)), number=1) == Place(2, (2,))


@pytest.mark.parametrize(("brokers", "replicas", "leaders", "all"), [(1, 1, False, False), (3, 1, False, True), (3, 3, True, True), (3, 2, True, True)])
def test_a_topic_that_has_nowhere_to_go_is_refused_by_the_topology_alone(brokers: int, replicas: int, leaders: bool, all: bool) -> None:
    bus = Kafka(name="bus", version="4.1", brokers=brokers, topics={"t": Topic("t", replication=replicas)})
    topology = Topology("t", Path("t.yaml"), ("a",), {"bus": bus})
    assert bool(LeaderMove.unfit({"topic": "t"}, topology)) != leaders
    assert bool(PartitionReassignment.unfit({"topic": "t"}, topology)) != all


def test_a_guard_that_is_killed_is_followed_by_another_one(tmp_path: Path) -> None:
    held = Held(tmp_path / "placement.json")
    held.renew({}, 600)
    guard = subprocess.Popen([sys.executable, "-m", "envctl.faults.programs.placement_guard", "nowhere:9092", str(held.path)])
    children = Path(f"/proc/{guard.pid}/task/{guard.pid}/children")
    try:
        assert until(children.read_text, 20)
        first = children.read_text().split()[0]
        os.kill(int(first), signal.SIGKILL)
        assert until(lambda: bool(told := children.read_text().split()) and told[0] != first, 20)
        held.path.unlink()
        assert guard.wait(20) == 0
    finally:
        guard.kill()
