"""Memory that is held in a node."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from envctl.errors import ResourceError, UsageError
from envctl.faults import memory_pressure
from envctl.faults.base import World
from envctl.faults.memory_pressure import MemoryPressure
from envctl.model.topology import Resources, Service, Topology
from envctl.substrates.base import Reach
from envctl.waiting import until

pytestmark = pytest.mark.cell

INJECTOR = """
import random, sys, time
from pathlib import Path
from envctl.faults.base import World
from envctl.faults.memory_pressure import MemoryPressure
from envctl.model.topology import Topology
from envctl.substrates.embedded import Embedded
world = World(Embedded.attach(Path(sys.argv[1])), Topology("t", Path("t.yaml"), ("a",), {}), random.Random(1), Path(sys.argv[2]))
fault = MemoryPressure.build({"target": "server-0", "bytes": "32Mi"}, world)
fault.apply(600)
print(fault.verify().shown, flush=True)
time.sleep(600)
"""


def test_it_goes_with_an_injector_that_is_killed(world: Callable[..., World], reach: Reach) -> None:
    directory: Path = reach.environment().directory
    injector = subprocess.Popen([sys.executable, "-c", INJECTOR, str(directory), str(world("killed").scratch)], stdout=subprocess.PIPE, text=True)
    assert injector.stdout
    assert injector.stdout.readline() == "True\n"
    after = MemoryPressure.build({"target": "server-0", "bytes": "32Mi"}, world("killed"))
    assert not after.absent().shown
    injector.kill()
    injector.wait()
    injector.stdout.close()
    assert until(lambda: after.absent().shown, 20)


def test_what_is_left_is_of_the_nodes_own_limit(world: Callable[..., World]) -> None:
    limited = Topology("t", Path("t.yaml"), ("a",), {"server": Service(name="server", resources=Resources(memory_bytes=256 << 20))})
    fault = MemoryPressure.build({"target": "server", "leave": "200Mi"}, replace(world(), topology=limited))
    assert fault.probe().summary == "all but 200Mi in server-0 (zone a), server-1 (zone b)"
    fault.apply(60)
    effect = fault.verify()
    assert effect.shown, effect
    for asked, used in zip(effect.detail["asked_bytes"], effect.detail["used_bytes"], strict=True):
        assert 40 << 20 < asked < 56 << 20
        assert asked < used < 64 << 20
    healer = MemoryPressure.build({"target": "server", "leave": "200Mi"}, replace(world(), topology=limited))  # which remembers nothing
    assert not healer.absent().shown
    healer.heal()
    assert fault.absent().shown
    fault.heal()
    with pytest.raises(UsageError, match="server-0 may use 256 MiB in all, and uses"):
        MemoryPressure.build({"target": "server", "leave": "256Mi"}, replace(world(), topology=limited)).probe()


def test_two_together_take_no_more_than_one_may(world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (MemoryPressure.build({"target": "server-0", "bytes": "48Mi"}, world(name)) for name in ("first", "second"))
    monkeypatch.setattr(memory_pressure, "SHARE", (72 << 20) / first._available(first._targets[0]))
    for fault in (first, second):
        fault.probe()
    first.apply(60)
    with pytest.raises(ResourceError, match="with what other faults hold, 96 MiB would be taken"):
        second.apply(60)
    second.heal()
    first.apply(60)
    assert first.verify().shown
    with pytest.raises(ResourceError, match="with what other faults hold"):
        second.apply(60)
    second.heal()
    first.heal()
    second.apply(60)
    assert second.verify().shown
    second.heal()
    assert second.absent().shown


def test_the_machine_is_never_filled(world: Callable[..., World]) -> None:
    with pytest.raises(UsageError, match="more than half of what"):
        MemoryPressure.build({"target": "server-0", "bytes": "4000Gi"}, world()).probe()
