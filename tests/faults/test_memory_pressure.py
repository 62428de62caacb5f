"""Memory that is held in a node."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from envctl.errors import UsageError
from envctl.faults.base import World
from envctl.faults.memory_pressure import MemoryPressure
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
world = World(Embedded.attach(Path(sys.argv[1])), Topology("t", Path("t.yaml"), ("a",), {}), random.Random(1), Path("killed"))
fault = MemoryPressure.build({"target": "server-0", "bytes": "32Mi"}, world)
fault.apply(600)
print(fault.verify().shown, flush=True)
time.sleep(600)
"""


def test_it_goes_with_an_injector_that_is_killed(world: Callable[..., World], reach: Reach) -> None:
    directory: Path = reach.environment().directory
    injector = subprocess.Popen([sys.executable, "-c", INJECTOR, str(directory)], stdout=subprocess.PIPE, text=True)
    assert injector.stdout
    assert injector.stdout.readline() == "True\n"
    after = MemoryPressure.build({"target": "server-0", "bytes": "32Mi"}, world("killed"))
    assert not after.absent().shown
    injector.kill()
    injector.wait()
    injector.stdout.close()
    assert until(lambda: after.absent().shown, 20)


def test_the_machine_is_never_filled(world: Callable[..., World]) -> None:
    with pytest.raises(UsageError, match="more than half of what"):
        MemoryPressure.build({"target": "server-0", "bytes": "4000Gi"}, world()).probe()
