"""What an interrupt means to a session, and what stale locks and abandoned environments mean to the next command."""

from __future__ import annotations

import fcntl
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from envctl.errors import CancelledError, Exit
from envctl.lease import ids_of
from envctl.model.verdict import Verdict
from envctl.runner.__main__ import Cancelled
from envctl.seeding.snapshots import abandoned
from envctl.session import Interrupts, Outcome
from envctl.stack import lock
from envctl.substrates.embedded import census


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    made = Interrupts()
    made.install()
    yield made
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_interrupt_of_a_run_is_counted_and_the_second_one_ends_it(interrupts: Interrupts) -> None:
    with interrupts.bearing(1):
        interrupt()
        assert interrupts.count == 1
        with pytest.raises(CancelledError):
            interrupt()
    with interrupts.bearing(math.inf):
        interrupt()
    with pytest.raises(CancelledError):
        interrupt()


@pytest.mark.parametrize(("outcome", "cancelled", "code"), [
    ("pass", False, Exit.PASS), ("fail", False, Exit.FAIL), ("inconclusive", False, Exit.INCONCLUSIVE),
    ("pass", True, Exit.CANCELLED), ("fail", True, Exit.FAIL), ("inconclusive", True, Exit.CANCELLED),
])
def test_a_cancelled_run_says_so_unless_it_has_proved_a_failure(outcome, cancelled: bool, code: Exit) -> None:
    assert Outcome(Verdict(outcome, (), (), (), ""), Path(), cancelled).exit_code is code


def test_a_run_that_is_cancelled_before_it_begins_is_told_when_it_does() -> None:
    told: list[str] = []
    cancelled = Cancelled()
    cancelled.by("first")
    cancelled.by("second")
    cancelled.tell(told.append)
    assert told == ["first"]


def test_stale_locks_are_swept_and_held_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "stale.lock").touch()
    with lock.hold(tmp_path / "envs", "held", "up"):
        lock.sweep(tmp_path / "envs")
        assert [path.name for path in (tmp_path / "envs").iterdir()] == ["held.lock"]


def test_a_lock_file_is_no_environment(tmp_path: Path) -> None:
    (tmp_path / "left.lock").touch()
    (tmp_path / "dead").mkdir()
    assert [found.id for found in census.environments(tmp_path) if found.directory.parent == tmp_path] == ["dead"]


def test_an_environment_for_a_snapshot_is_abandoned_when_nobody_holds_the_snapshots_lock(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ENVCTL_CACHE", str(tmp_path))
    (tmp_path / "snapshots").mkdir()
    with (tmp_path / "snapshots" / ".0123456789abcdef01234567.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not abandoned("snapshot-0123456789abcdef")
    assert abandoned("snapshot-0123456789abcdef")
    assert not abandoned("shop-main-0123456789")


def test_a_checkout_has_its_environment_and_what_was_left_in_making_a_snapshot(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ENVCTL_CACHE", str(tmp_path / "cache"))
    for name in ("snapshot-0123456789abcdef", "shop-main-0123456789"):
        (tmp_path / "cache" / "envs" / name).mkdir(parents=True)
    stacks = tmp_path / "shop" / ".envctl" / "state" / ".pulumi" / "stacks" / "shop"
    stacks.mkdir(parents=True)
    (stacks / "snapshot-fedcba9876543210.json").write_text("{}")
    here, *left = ids_of(tmp_path / "shop")
    assert here.startswith("shop-local-")
    assert left == ["snapshot-0123456789abcdef", "snapshot-fedcba9876543210"]
