"""A zone that falls silent and down, in a real cell."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envctl.errors import UsageError
from envctl.faults.base import World
from envctl.faults.node_kill import NodeKill
from envctl.faults.zone_outage import ZoneOutage
from envctl.model.scenario import Limits, Scenario, Traffic
from envctl.runner.faulting import check_limits
from envctl.substrates.base import Reach
from envctl.toolchain import find
from envctl.waiting import until

pytestmark = pytest.mark.cell

INSIDE = {"server-1", "other-0"}


def rules(reach: Reach) -> list[str]:
    """The nodes that have packet rules."""
    tool = find("nft")
    argv = [str(tool.programs["nft"]), "list", "ruleset"]
    return [node.name for node in reach.environment().nodes if reach.run(node.name, argv, where="netns", env=dict(tool.env)).stdout.strip()]


def down(reach: Reach) -> set[str]:
    return {node.name for node in reach.environment().nodes if node.pid is None}


def test_every_node_of_the_zone_is_silent_and_down_until_it_is_healed(world: Callable[..., World], reach: Reach) -> None:
    fault = ZoneOutage.build({"zone": "b"}, world())
    blast = fault.probe()
    assert {node.name for node in blast.nodes} == INSIDE
    assert blast.summary == "zone b: other-0, server-1"
    assert fault.undo()
    assert (rules(reach), down(reach)) == ([], set()), "a dry run writes nothing"
    assert not fault.verify().shown, "it has not been applied yet"
    fault.apply(60)
    fault.apply(60)
    effect = fault.verify()
    assert effect.shown, effect
    assert {node["node"]: node["exit_status"] for node in effect.detail["nodes"]} == dict.fromkeys(INSIDE, 128 + signal.SIGKILL)
    assert effect.detail["canary_sent"] > 0
    assert effect.detail["canary_lost"] == 0
    assert down(reach) == INSIDE
    assert not fault.absent().shown
    fault.heal()
    fault.heal()
    assert fault.absent().shown
    assert (rules(reach), down(reach)) == ([], set())


@pytest.mark.parametrize("change", ["delete table inet envctl_outage_leak", "flush set inet envctl_outage_leak peers", "flush chain inet envctl_outage_leak arriving"])
def test_an_outage_that_killed_and_did_not_silence_is_not_proved(change: str, world: Callable[..., World], reach: Reach) -> None:
    fault = ZoneOutage.build({"zone": "b"}, world("leak"))
    fault.probe()
    fault.apply(60)
    tool = find("nft")
    argv = [str(tool.programs["nft"]), *change.split()]
    assert reach.run("trio-1", argv, where="netns", env=dict(tool.env)).status == 0
    effect = fault.verify()
    assert (effect.shown, effect.detail["not_cut_off_from"]) == (False, ["trio-1"])
    fault.heal()
    assert fault.absent().shown


def test_all_the_others_stop_hearing_of_the_zone_at_once(world: Callable[..., World], reach: Reach) -> None:
    together = threading.Barrier(len(reach.environment().nodes) - len(INSIDE))

    class Together:
        """Sets no rules anywhere before they are to be set everywhere."""

        def __getattr__(self, name: str) -> Any:
            return getattr(reach, name)

        def run(self, node: str, argv: Any, **options: Any) -> Any:
            if "add element" in options.get("stdin", ""):
                together.wait(20)
            return reach.run(node, argv, **options)

    fault = ZoneOutage.build({"zone": "b"}, replace(world(), reach=Together()))
    fault.probe()
    fault.apply(60)
    effect = fault.verify()
    assert effect.shown, effect
    assert effect.detail["silenced_within_s"] > 0
    fault.heal()
    assert fault.absent().shown


def test_a_node_that_is_down_elsewhere_is_told(world: Callable[..., World], reach: Reach) -> None:
    fault, other = ZoneOutage.build({"zone": "b"}, world("here")), NodeKill.build({"target": "client", "restart": False}, world("there"))
    fault.probe()
    other.probe()
    fault.apply(60)
    other.apply(60)
    effect = fault.verify()
    assert not effect.shown
    assert "down too: client-0" in effect.summary
    for each in (other, fault):
        each.heal()
        assert each.absent().shown


def test_the_zone_comes_back_with_the_lease_when_nobody_heals_it(world: Callable[..., World], reach: Reach) -> None:
    fault = ZoneOutage.build({"zone": "b"}, world())
    fault.probe()
    fault.apply(2)
    assert until(lambda: not down(reach) and all(reach.node(name).state == "ready" for name in INSIDE), 30)
    assert not fault.verify().shown
    healer = ZoneOutage.build({"zone": "b"}, world())  # which remembers nothing
    healer.heal()
    assert healer.absent().shown
    assert rules(reach) == []


def test_two_at_once_both_heal(world: Callable[..., World], reach: Reach) -> None:
    first, second = (ZoneOutage.build({"zone": "b"}, world(name)) for name in ("first", "second"))
    for fault in (first, second):
        fault.probe()
        assert len(fault.undo()["nodes"]) == len(reach.environment().nodes) - len(INSIDE)
    for fault in (first, second):
        fault.apply(60)
    assert second.verify().shown
    for fault in (first, second):
        fault.heal()
    assert first.absent().shown
    assert second.absent().shown
    assert (rules(reach), down(reach)) == ([], set())


def test_all_its_nodes_count_against_the_limits_and_an_empty_zone_is_refused(world: Callable[..., World]) -> None:
    blast = ZoneOutage.build({"zone": "b"}, world()).probe()
    scenario = Scenario("s", Path("s.yaml"), Traffic(Path("t"), "web", None, None), limits=Limits(max_nodes=1, max_zones=1))
    with pytest.raises(UsageError, match="touches 2 nodes, the scenario's limit is 1"):
        check_limits(scenario, blast)
    with pytest.raises(UsageError, match="no node of this environment is in the zone 'c'"):
        ZoneOutage.build({"zone": "c"}, world()).probe()
