"""Directories of a node in which there is no room."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from envctl.errors import CapabilityError
from envctl.faults.base import World
from envctl.faults.disk_full import DiskFull
from envctl.substrates.base import Reach
from envctl.waiting import until

pytestmark = pytest.mark.cell
WRITE = "head -c 200000 /dev/zero > {}/more"


def test_what_is_there_stays_what_is_deleted_gives_no_room_and_the_size_comes_back(world: Callable[..., World], reach: Reach) -> None:
    def run(script: str) -> tuple[int, str, str]:
        done = reach.run("server-0", ["sh", "-c", script])
        return done.status, done.stdout, done.stderr

    assert run("head -c 500000 /dev/zero > /tmp/a; echo kept > /tmp/b; df --output=size /tmp | tail -1 | tr -d ' '")[:2] == (0, "1048576\n")
    fault = DiskFull.build({"target": "server-0", "path": "/tmp"}, world())
    fault.apply(60)
    assert "No space left" in run(WRITE.format("/tmp"))[2]
    assert run("rm /tmp/more; cat /tmp/b")[:2] == (0, "kept\n")
    assert run("head -c 100000 /dev/zero > /dev/shm/x; s=$?; rm /dev/shm/x; exit $s")[0] == 0, "another directory of it has room"
    run("rm /tmp/a")
    fault.apply(60)
    assert "No space left" in run(WRITE.format("/tmp"))[2], "a renewal takes the room that was made"
    assert fault.verify().shown
    fault.heal()
    assert run(WRITE.format("/tmp"))[0] == 0
    assert run("rm /tmp/more; df --output=size /tmp | tail -1 | tr -d ' '; ls -A /tmp")[1] == "1048576\nb\n"


def test_the_room_comes_back_when_only_its_lease_is_left(world: Callable[..., World], reach: Reach) -> None:
    fault = DiskFull.build({"target": "server-0", "path": "/dev/shm"}, world())
    fault.apply(3)
    assert fault.verify().shown
    assert until(lambda: fault.absent().shown, 20)


def test_the_room_comes_back_when_who_takes_it_is_killed(world: Callable[..., World], reach: Reach) -> None:
    fault = DiskFull.build({"target": "server-0"}, world())
    fault.apply(600)
    assert fault.verify().shown
    fault._fillers["server-0"].signal(signal.SIGKILL)
    assert until(lambda: fault.absent().shown, 20)
    fault.apply(600)
    assert fault.verify().shown, "a renewal takes it again"
    fault.heal()
    assert fault.absent().shown


def test_a_directory_on_the_machines_disk_is_refused(world: Callable[..., World]) -> None:
    with pytest.raises(CapabilityError, match="would fill the machine's disk"):
        DiskFull.build({"target": "server-1"}, world()).probe()
