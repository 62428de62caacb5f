"""What the faults of one run know of each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from held import world_of

from envctl.errors import UsageError
from envctl.faults import acting
from envctl.faults.base import Blast, World
from envctl.faults.database_failover import DatabaseFailover
from envctl.faults.packet_loss import PacketLoss
from envctl.model.environment import Node
from envctl.substrates.base import Reach


def node(name: str) -> Node:
    return Node(name, name.rpartition("-")[0], "service", "a", "198.18.1.1", "ready", 1, 0.0, 1, None)


class Machine:
    """Nodes that are only told of."""

    def __init__(self, *names: str) -> None:
        self.released: list[str] = []
        self._nodes = tuple(map(node, names))

    def environment(self) -> Any:
        return SimpleNamespace(nodes=self._nodes)

    def release(self, name: str) -> None:
        self.released.append(name)


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], World]:
    machine: Any = Machine("db-0", "db-1", "web-0", "web-1")
    return lambda name: world_of(machine, tmp_path / name)


def test_what_one_fault_has_of_a_node_no_other_one_takes_until_it_has_gone(run: Callable[[str], World]) -> None:
    first, second = run("first").scratch, run("second").scratch
    acting.begin(first, Blast((node("db-0"), node("db-1")), ""), {"processes"})
    with pytest.raises(UsageError, match="first acts on db-1 still"):
        acting.begin(second, Blast((node("db-1"),), ""), {"processes", "clock"})
    acting.begin(second, Blast((node("db-1"),), ""), {"clock"})
    acting.end(second)
    acting.begin(second, Blast((node("web-0"),), ""), {"processes"})
    assert acting.held_by_others(run("third")) == {"db-0", "db-1", "web-0"}
    acting.end(first)
    acting.end(first)
    acting.begin(second, Blast((node("db-1"),), ""), {"processes"})


def test_nobody_is_a_bystander_who_is_the_target_of_another_fault_or_was_meanwhile(run: Callable[[str], World]) -> None:
    mine, other = run("mine"), run("other")
    acting.begin(other.scratch, Blast((node("web-0"),), "", (node("web-1"),)), ())
    assert [each.name for each in acting.bystanders(mine, [node("db-0")])] == ["db-1"]
    acting.begin(mine.scratch, Blast((node("db-0"),), ""), ())
    acting.end(other.scratch)
    assert acting.unexplained(mine, ["db-1", "web-0"]) == ["db-1"], "it acted after mine had begun"
    assert [each.name for each in acting.bystanders(run("later"), [node("db-0")], most=1)] == ["db-1"]
    assert acting.canary(mine, [1, 2], [1]) == {"canary_sent": 2, "canary_lost": 1}
    assert acting.canary(mine, [], [])["canary_none"] == "all other nodes are targets of other, or not ready"
    assert acting.canary(replace(mine, scratch=Path("/nowhere/alone")), [], [])["canary_none"] == "no other node is ready"


def test_the_healing_of_a_failover_leaves_down_whom_another_fault_holds(run: Callable[[str], World]) -> None:
    world = run("failover")
    acting.begin(run("kill").scratch, Blast((node("db-1"),), ""), {"processes"})
    DatabaseFailover.build({"target": "db"}, world).heal()
    assert world.reach.released == ["db-0"]  # type: ignore[attr-defined]


@pytest.mark.cell
def test_the_canary_of_a_link_is_none_that_another_fault_hurts(world: Callable[..., World], reach: Reach) -> None:
    one = PacketLoss.build({"from": "client", "to": "server", "loss": "30 %"}, world("one"))
    acting.begin(world("one").scratch, one.probe(), ())
    (bystander,) = acting.bystanders(world("one"), [node for node in reach.environment().nodes if node.component in ("client", "server")], most=1)
    other = PacketLoss.build({"from": bystander.name, "to": "server", "loss": "50 %"}, world("other"))
    acting.begin(world("other").scratch, other.probe(), ())
    for fault in (one, other):
        fault.apply(60)
    for fault in (one, other):
        effect = fault.verify()
        assert effect.shown, effect
        assert effect.detail["canary_sent"] > 0
        fault.heal()
        assert fault.absent().shown
