"""SIGKILL at every boundary of a session: nothing leaks, nothing is made twice, and the next command goes on.

A default run kills one kind of victim at half of the boundaries, and at three random instants.  `make chaos`
(ENVCTL_CHAOS_EVERY=1, ENVCTL_CHAOS_INSTANTS=50) kills every kind at every boundary, and at fifty instants.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Sequence

import pytest
from chaos_boundaries import EVERY, SAMPLE, Boundary, begin, forget_runs, forget_snapshots
from chaos_site import ALL, CELL, CLI, ENGINE, HELPERS, Running, Site

pytestmark = [pytest.mark.cell, pytest.mark.engines, pytest.mark.slow]

INSTANTS = int(os.environ.get("ENVCTL_CHAOS_INSTANTS", "3"))
PAIRS = EVERY if os.environ.get("ENVCTL_CHAOS_EVERY") else SAMPLE
RECOVERIES: tuple[tuple[str, ...], ...] = (("down",), ("up", "down"), ("gc", "down"), ("down", "up", "down"))
EXITS = {  # of a command that lives on while somebody else is killed
    ENGINE: {0, 4}, HELPERS: {0, 1, 4, 5, 7, 9}, CELL: {0, 4, 6, 7},
}


def ended(command: Running, who: str) -> None:
    """A command that was not killed itself ends in good order and soon."""
    status = command.wait()
    allowed = {-9} if who in (CLI, ALL) else EXITS[who] | {-9}
    assert status in allowed | {0}, (status, command.text())


def recover(site: Site, verbs: Sequence[str]) -> None:
    """What a user does next; each succeeds, `up` makes every node exactly once."""
    for verb in verbs:
        status, said = site.envctl(verb, *(["--full"] if verb == "up" else []))
        assert status in ({0, 6} if verb == "down" else {0}), said
        if verb == "up":
            made = [name for name in site.nodes() if not name.startswith("snapshot-")]  # those of a killed maker end by lease, `down` or `gc`
            assert sorted(name.partition(":")[2] for name in made) == ["app-0", "db-0"]
            assert set(site.nodes().values()) == {1}
            assert_state_is_usable(site)


def assert_state_is_usable(site: Site) -> None:
    stacks = (site.project / ".envctl" / "state" / ".pulumi" / "stacks").glob("*/*.json")
    (checkpoint,) = (stack for stack in stacks if not stack.name.startswith("snapshot-"))  # as above
    latest = json.loads(checkpoint.read_text())["checkpoint"]["latest"]
    assert not latest.get("pending_operations")
    assert sum(each["type"] == "envctl:index:Node" for each in latest["resources"]) == 2
    locks = (site.project / ".envctl" / "state" / ".pulumi" / "locks").rglob("*.json")
    assert not [path for path in locks if not path.parent.name.startswith("snapshot-")]  # likewise


def assert_nothing_is_there_twice(site: Site) -> None:
    assert set(site.nodes().values()) | set(site.cells().values()) <= {1}, (site.nodes(), site.cells())


def assert_the_record_can_be_judged(site: Site) -> None:
    """Whatever was recorded of a run is readable up to its last whole line, and never a pass it did not earn."""
    run = site.run_directory()
    if run is None or not (run / "run.json").exists():
        return
    status, said = site.envctl("judge", str(run))
    if not site.events():
        assert (status, "before its first event" in said) == (2, True), said
        return
    whole = b'"name":"run","edge":"end","ok":true' in site.events()
    unproved = b'"ok":false' in site.events()  # on a busy machine, without anybody's fault
    assert status in ({0, 7} if whole and unproved else {0} if whole else {7}), said


@pytest.mark.parametrize(("boundary", "who"), PAIRS, ids=[f"{b.phase}: {b.name}: {who}" for b, who in PAIRS])
@pytest.mark.timeout(600)
def test_a_kill_at_a_boundary_leaves_nothing_that_the_next_command_does_not_end(site: Site, boundary: Boundary, who: str) -> None:
    forget_runs(site)
    if boundary.fresh:
        forget_snapshots(site)
    before = site.take()
    command = begin(site, boundary.name)
    killed = site.kill(who, command)
    assert_nothing_is_there_twice(site)
    ended(command, who)
    assert killed or who in (ENGINE, HELPERS), f"there was nothing of {who} to kill"
    assert_the_record_can_be_judged(site)
    recover(site, RECOVERIES[PAIRS.index((boundary, who)) % len(RECOVERIES)])
    assert site.left(before) == []


@pytest.fixture(scope="session")
def takes_s(small: Site) -> float:
    """How long an untouched run takes here, its snapshot made already."""
    begun = time.monotonic()
    assert small.ci().wait() == 0
    return time.monotonic() - begun


@pytest.mark.parametrize("number", range(INSTANTS))
@pytest.mark.timeout(600)
def test_a_kill_at_a_random_instant_leaves_nothing_that_the_next_command_does_not_end(site: Site, takes_s: float, number: int) -> None:
    draw = random.Random(f"instant {number}")
    at_s, who, verbs = draw.uniform(0, takes_s), draw.choice((CLI, ENGINE, HELPERS, ALL)), draw.choice(RECOVERIES)
    if fresh := number % 5 == 4:
        forget_snapshots(site)
    forget_runs(site)
    before = site.take()
    command = site.ci()
    try:
        command.process.wait(at_s)
    except subprocess.TimeoutExpired:
        site.kill(who, command)
    assert_nothing_is_there_twice(site)
    ended(command, who)
    assert_the_record_can_be_judged(site)
    recover(site, verbs)
    assert site.left(before) == [], f"{who} was killed at {at_s:.2f} s, snapshot {'made anew' if fresh else 'there'}, then {verbs}"


def test_after_all_of_it_an_untouched_run_passes_and_nothing_half_made_is_left_in_the_cache(site: Site) -> None:
    before = site.take()
    command = site.ci()
    assert command.wait() == 0, command.text()
    assert site.left(before) == []
    half = [path for path in site.cache.glob("*/.*") if path.suffix != ".lock" and path.parent.name != "tools"]
    assert half == []
