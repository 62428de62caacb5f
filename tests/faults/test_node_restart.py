"""Restarts in good order of real processes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from envctl.errors import UsageError
from envctl.faults.base import World
from envctl.faults.node_restart import NodeRestart
from envctl.model.environment import NodeSpec
from envctl.model.topology import Probe
from envctl.substrates.base import Reach
from envctl.waiting import until

pytestmark = pytest.mark.cell


def starts(reach: Reach) -> dict[str, int]:
    return {node.name: node.starts for node in reach.environment().nodes}


@pytest.mark.parametrize("params", [{"target": "server"}, {"target": "server", "rolling": True}], ids=["at once", "rolling"])
def test_each_target_is_started_once_more_and_nobody_else(world: Callable[..., World], reach: Reach, params: dict[str, Any]) -> None:
    before = starts(reach)
    fault = NodeRestart.build(params, world())
    assert [node.name for node in fault.probe().nodes] == ["server-0", "server-1"]
    assert not fault.verify().shown, "nothing has happened yet"
    fault.apply(10)
    fault.apply(10)
    effect = fault.verify()
    assert effect.shown, effect
    assert (effect.detail["canary_sent"], effect.detail["canary_lost"]) == (len(before) - 2, 0)
    fault.heal()
    fault.heal()
    assert fault.absent().shown
    assert starts(reach) == before | {name: before[name] + 1 for name in ("server-0", "server-1")}
    assert reach.node("server-0").exit_status == 128 + signal.SIGTERM, "it was asked to end, not killed"
    if "rolling" in params:
        first, second = (reach.node(f"server-{index}").started_at for index in range(2))
        assert first
        assert second
        assert first < second


def test_a_zone_is_restarted_and_a_node_that_dies_beside_it_is_told(world: Callable[..., World], reach: Reach) -> None:
    fault = NodeRestart.build({"zone": "b"}, world())
    assert {node.name for node in fault.probe().nodes} == {"server-1", "other-0"}
    fault.apply(10)
    assert fault.verify().shown
    reach.restart("client-0")
    reach.wait_ready("client-0", 20)
    effect = fault.verify()
    assert (effect.shown, effect.detail["canary_lost"]) == (False, 1)
    assert effect.summary.endswith("so was client-0")
    assert fault.absent().shown


def test_two_at_once_are_each_one_restart_and_only_one_is_seen(world: Callable[..., World], reach: Reach) -> None:
    before = starts(reach)["client-0"]
    first, second = (NodeRestart.build({"target": "client"}, world(name)) for name in ("first", "second"))
    for fault in (first, second):
        fault.probe()
    for fault in (first, second):
        fault.apply(10)
        assert fault.verify().shown
    for fault in (first, second):
        fault.heal()
        assert fault.absent().shown
    assert starts(reach)["client-0"] == before + 1


def test_what_is_down_can_not_be_restarted(world: Callable[..., World], reach: Reach) -> None:
    reach.hold("client-0", 30)
    reach.signal("client-0", signal.SIGKILL)
    fault = NodeRestart.build({"target": "client"}, world())
    with pytest.raises(UsageError, match="not ready: client-0"):
        fault.probe()
    fault.heal()
    assert fault.absent().shown


SLOW = "trap 'echo told; sleep 600' TERM; while :; do sleep 0.05; done"  # takes all the time that it is given to end
ONCE = "test -e /data/again && exec sleep 600; touch /data/again /data/ready; trap 'rm /data/ready; exit' TERM; while :; do sleep 0.05; done"


@pytest.mark.parametrize(("command", "fields", "ended"), [
    (SLOW, {"stop_grace_s": 60.0}, False),
    (ONCE, {"ready": Probe("exec", command=("test", "-e", "/data/ready"))}, True),
], ids=["while a node ends", "while a node is not ready"])
def test_a_run_that_is_stopped_in_a_rolling_restart_waits_for_no_node_and_takes_no_further_one(
    command: str, fields: dict[str, Any], ended: bool, world: Callable[..., World], realiser: Any,
) -> None:
    for name in ("rolled-0", "rolled-1"):
        realiser.start_node(NodeSpec(name, "rolled", "service", "a", ("sh", "-c", command), "1", **fields), ready_timeout_s=20)
    here, begun = world(), realiser.reach.node("rolled-0").starts
    fault = NodeRestart.build({"target": "rolled", "rolling": True}, here)
    fault.probe()
    rolling = threading.Thread(target=fault.apply, args=(10,))
    rolling.start()
    try:
        assert until(lambda: realiser.reach.node("rolled-0").starts > begun if ended else "told" in list(realiser.reach.log("rolled-0")), 20)
        here.stopping.set()
        rolling.join(10)
        assert not rolling.is_alive(), "of a minute to end, or half a one to be ready, nothing is waited for"
        effect = fault.verify()
        assert (effect.shown, effect.summary) == (False, f"{int(ended)} of 2 restarted; the run was stopped on the way")
        fault.apply(10)
        fault.heal()
        assert [realiser.reach.node(name).starts for name in ("rolled-0", "rolled-1")] == [begun + ended, begun]
    finally:
        for name in ("rolled-0", "rolled-1"):
            realiser.reach.hold(name, 60)
            realiser.reach.signal(name, signal.SIGKILL)
            realiser.stop_node(name)
