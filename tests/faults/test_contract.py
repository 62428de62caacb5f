"""What every fault that is held has to fulfil, whatever it does."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import Any

import pytest

from envctl import plugins
from envctl.faults.base import Fault, World
from envctl.substrates.base import Reach
from envctl.toolchain import find
from envctl.waiting import until

HELD: dict[str, dict[str, Any]] = {
    "packet-loss": {"from": "client", "to": "server", "loss": "30 %"},
    "partition": {"from": "client", "to": "server"},
    "partition one way": {"from": "client", "to": "server", "direction": "forward"},
    "partition, isolated": {"isolate": "server-0"},
    "partition, minority": {"split": "trio"},
    "crash-loop": {"target": "server", "pick": 1},
    "node-pause": {"target": "server"},
    "node-pause, zone": {"zone": "b"},
    "dns-failure": {"target": "server"},
    "cpu-pressure": {"target": "server-0", "cpus": 0.05},
    "memory-pressure": {"target": "server", "bytes": "48Mi"},
    "disk-full": {"target": "server-0"},
    "time-skew": {"target": "server-0", "jump": "-90s"},
}
TARGETS = {"partition, minority": "trio-0", "node-pause, zone": "server-1"}  # whose restart it outlives; of the others it is server-0
Made = Callable[[str, World], Fault]

pytestmark = pytest.mark.cell


@pytest.fixture(params=HELD)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(case: str, world: World) -> Fault:
    fault: Fault = plugins.load("envctl.faults", re.split("[ ,]", case, maxsplit=1)[0]).build(HELD[case], world)
    return fault


def traces(reach: Reach) -> list[tuple[str, str, str]]:
    """What faults leave in nodes: their state, and rules."""
    tool = find("nft")
    argv = [str(tool.programs["nft"]), "list", "ruleset"]
    return [(node.name, node.state, reach.run(node.name, argv, where="netns", env=dict(tool.env)).stdout) for node in reach.environment().nodes]


def test_a_dry_run_writes_nothing(case: str, world: Callable[..., World], reach: Reach) -> None:
    before = traces(reach)
    fault = make(case, world())
    blast = fault.probe()
    assert blast.nodes
    assert blast.summary
    assert fault.undo()
    assert traces(reach) == before


def test_it_acts_is_measured_spares_others_and_goes(case: str, world: Callable[..., World], reach: Reach) -> None:
    before = traces(reach)
    fault = make(case, world())
    fault.probe()
    assert not fault.verify().shown, "it has not been applied yet"
    fault.apply(60)
    effect = fault.verify()
    assert effect.shown, effect
    assert effect.detail["canary_sent"] > 0
    assert effect.detail["canary_lost"] == 0
    assert not fault.absent().shown
    fault.heal()
    fault.heal()
    assert fault.absent().shown
    assert traces(reach) == before


def test_its_lease_ends_it_when_nobody_does_and_a_renewal_keeps_it(case: str, world: Callable[..., World], reach: Reach) -> None:
    before = traces(reach)
    fault = make(case, world())
    fault.probe()
    fault.apply(2)
    fault.apply(60)
    assert fault.verify().shown
    fault.apply(1)
    assert until(lambda: not fault.verify().shown, 30), "who held it is gone, and so is its lease"
    fault.heal()
    assert fault.absent().shown
    assert traces(reach) == before


def test_a_target_that_is_started_again_meanwhile_is_healed_too(case: str, world: Callable[..., World], reach: Reach) -> None:
    before = traces(reach)
    fault, target = make(case, world()), TARGETS.get(case, "server-0")
    fault.probe()
    fault.apply(60)
    starts = reach.node(target).starts
    reach.signal(target, signal.SIGKILL)
    assert until(lambda: reach.node(target).starts > starts, 20)
    fault.apply(60)
    assert fault.verify().shown
    fault.heal()
    assert fault.absent().shown
    assert traces(reach) == before


def test_two_at_once_both_heal(case: str, world: Callable[..., World], reach: Reach) -> None:
    before = traces(reach)
    first, second = make(case, world("first")), make(case, world("second"))
    for fault in (first, second):
        fault.probe()
        fault.apply(60)
    first.heal()
    second.apply(60)
    assert not second.absent().shown
    assert second.verify().shown
    second.heal()
    assert first.absent().shown
    assert second.absent().shown
    assert traces(reach) == before
