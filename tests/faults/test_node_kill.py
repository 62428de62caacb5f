"""Node kill on real processes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from envctl.errors import UsageError
from envctl.faults.base import World
from envctl.faults.node_kill import NodeKill
from envctl.model.scenario import Limits, Scenario, Traffic
from envctl.runner.faulting import check_limits, probe
from envctl.substrates.base import Reach
from envctl.waiting import until

pytestmark = pytest.mark.cell


def test_a_killed_node_is_restarted_by_its_supervisor(world: Callable[..., World], reach: Reach) -> None:
    before = reach.node("client-0")
    fault = NodeKill.build({"target": "client"}, world())
    assert [node.name for node in fault.probe().nodes] == ["client-0"]
    fault.apply(10)
    effect = fault.verify()
    assert effect.shown
    assert effect.summary == "exit 137, restarted"
    fault.heal()
    assert fault.absent().shown
    after = reach.node("client-0")
    assert (after.exit_status, after.address, after.starts) == (137, before.address, before.starts + 1)


def test_a_renewal_kills_nobody_again(world: Callable[..., World], reach: Reach) -> None:
    fault = NodeKill.build({"target": "client"}, world())
    fault.probe()
    fault.apply(10)
    assert fault.verify().shown
    starts = reach.node("client-0").starts
    fault.apply(10)
    assert reach.node("client-0").starts == starts
    fault.heal()


def test_without_restart_it_stays_down_until_it_is_healed(world: Callable[..., World], reach: Reach) -> None:
    fault = NodeKill.build({"target": "server", "pick": 1, "restart": False}, world())
    (target,) = fault.probe().nodes
    fault.apply(30)
    effect = fault.verify()
    assert (effect.shown, effect.summary) == (True, "exit 137, held down")
    assert reach.node(target.name).pid is None
    fault.heal()
    fault.heal()
    assert fault.absent().shown
    assert reach.node(target.name).state == "ready"


def test_the_lease_of_a_held_node_ends_it_when_nobody_does(world: Callable[..., World], reach: Reach) -> None:
    fault = NodeKill.build({"target": "other-0", "restart": False}, world())
    fault.probe()
    before = reach.node("other-0").starts
    fault.apply(1)
    assert until(lambda: reach.node("other-0").state == "ready" and reach.node("other-0").starts == before + 1, 60)
    assert reach.node("other-0").exit_status == 137
    assert not fault.verify().shown


def test_the_pick_is_that_of_the_random_seed(world: Callable[..., World]) -> None:
    def picked(seed: int) -> str:
        return NodeKill.build({"target": "server", "pick": 1}, world(seed=seed)).probe().nodes[0].name

    assert picked(7) == picked(7)
    assert {picked(seed) for seed in range(12)} == {"server-0", "server-1"}


def test_more_than_there_are_is_refused(world: Callable[..., World]) -> None:
    with pytest.raises(UsageError, match="pick 3 of 2"):
        NodeKill.build({"target": "server", "pick": 3}, world()).probe()


def test_a_target_that_is_down_at_first_is_found_alive_when_asked_again(world: Callable[..., World], reach: Reach) -> None:
    reach.hold("other-0", 30)
    reach.signal("other-0", signal.SIGKILL)
    fault = NodeKill.build({"target": "other"}, world())
    with pytest.raises(UsageError, match="not alive"):
        fault.probe()
    reach.release("other-0")
    assert [node.name for node in probe(fault, threading.Event()).nodes] == ["other-0"]
    fault.apply(10)
    assert fault.verify().shown
    fault.heal()
    assert fault.absent().shown


def test_asking_again_draws_the_same_nodes(world: Callable[..., World]) -> None:
    for seed in range(6):
        fault = NodeKill.build({"target": "server", "pick": 1}, world(seed=seed))
        assert fault.probe().nodes == fault.probe().nodes


def test_all_nodes_of_a_zone_are_down_until_it_is_healed(world: Callable[..., World], reach: Reach) -> None:
    fault = NodeKill.build({"zone": "b", "restart": False}, world())
    blast = fault.probe()
    assert {(node.name, node.zone) for node in blast.nodes} == {("server-1", "b"), ("other-0", "b")}
    with pytest.raises(UsageError, match="limit is 1"):
        check_limits(scenario(max_nodes=1), blast)
    check_limits(scenario(max_zones=1), blast)
    with pytest.raises(UsageError, match="limit is 0"):
        check_limits(scenario(max_zones=0), blast)
    fault.apply(30)
    assert fault.verify().summary == "exit 137, held down"
    assert {node.name for node in reach.environment().nodes if node.pid is None} == {"server-1", "other-0"}
    fault.heal()
    assert fault.absent().shown
    assert all(node.state == "ready" for node in reach.environment().nodes)


def test_a_zone_comes_back_with_the_lease_when_nobody_heals_it(world: Callable[..., World], reach: Reach) -> None:
    fault = NodeKill.build({"zone": "b", "restart": False}, world())
    fault.probe()
    fault.apply(1)
    assert until(lambda: all(reach.node(name).state == "ready" for name in ("server-1", "other-0")), 20)
    assert not fault.verify().shown


def test_a_zone_where_nothing_is_can_not_go(world: Callable[..., World]) -> None:
    with pytest.raises(UsageError, match="no node of this environment is in the zone 'c'") as caught:
        NodeKill.build({"zone": "c"}, world()).probe()
    assert caught.value.hint == "its nodes are in the zones: a, b"


def scenario(**limits: int) -> Scenario:
    return Scenario("s", Path("s.yaml"), Traffic(Path("t"), "web", None, None), limits=Limits(**limits))

