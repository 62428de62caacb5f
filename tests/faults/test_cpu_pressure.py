"""Nodes that get little CPU, and what else happens to them meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from envctl.errors import UsageError
from envctl.faults.base import World
from envctl.faults.cpu_pressure import CpuPressure
from envctl.faults.node_pause import NodePause
from envctl.model.topology import Resources, Service, Topology
from envctl.substrates.base import Reach
from envctl.waiting import until

pytestmark = pytest.mark.cell


def test_what_is_paused_under_pressure_stands_still_and_what_is_not_does_not(world: Callable[..., World], reach: Reach) -> None:
    pressure, pause = CpuPressure.build({"target": "server", "cpus": 0.05}, world("press")), NodePause.build({"target": "server-0"}, world("pause"))
    reach.popen("server-1", ["sh", "-c", "while :; do :; done"])
    pressure.apply(60)
    assert not reach.is_paused("server-0")
    assert not any(reach.is_paused("server-1") for _ in range(50)), "now and then it is stopped for a moment"
    pause.apply(60)
    assert pause.verify().shown
    assert all(reach.is_paused("server-0") for _ in range(50))
    pressure.heal()
    assert reach.is_paused("server-0"), "who ends one does not end the other"
    pause.heal()
    assert until(lambda: not reach.is_paused("server-0"), 10)
    assert pause.absent().shown
    assert reach.run("server-1", ["pkill", "-KILL", "-f", "while"]).status == 0


@pytest.mark.parametrize("params", [{"cpus": 400}, {"share": "95 %"}, {"share": "0 %"}])
def test_what_is_no_pressure_is_refused(world: Callable[..., World], params: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="under no pressure") as refusal:
        CpuPressure.build({"target": "server", **params}, world()).probe()
    assert refusal.value.hint.startswith("ask for 0.02 to")


@pytest.mark.parametrize(("cpus", "refused"), [(0.4, True), (0.2, False)])
def test_what_a_node_could_hardly_tell_from_its_own_limit_is_refused(cpus: float, refused: bool, world: Callable[..., World]) -> None:
    own = Service(name="server", resources=Resources(cpus=0.5))
    fault = CpuPressure.build({"target": "server", "cpus": cpus}, replace(world(), topology=Topology("t", Path("t.yaml"), ("a",), {"server": own})))
    if not refused:
        assert fault.probe().nodes
        return
    with pytest.raises(UsageError, match=r"server-0 may use 0\.5 CPUs by itself: with 0\.4 it is under no pressure") as refusal:
        fault.probe()
    assert refusal.value.hint == "ask for 0.33 at most"
