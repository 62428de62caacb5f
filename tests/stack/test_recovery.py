from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import pytest
from stack_bench import Bench, system

from envctl.errors import ResourceError
from envctl.stack import lock
from envctl.stack.operations import tear_down
from envctl.waiting import until

UP = Path(__file__).parent / "up_process.py"


def begin(bench: Bench, ready_after_s: float) -> subprocess.Popen[str]:
    argv = [sys.executable, str(UP), str(bench.root), str(ready_after_s)]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True)


def engine_of(process: subprocess.Popen[str]) -> int:
    """The process id of the Pulumi engine that `process` has started."""
    found: list[int] = []

    def look() -> bool:
        for thread in Path(f"/proc/{process.pid}/task").glob("*/children"):  # a child belongs to the thread that made it
            with suppress(OSError):  # both come and go
                found.extend(int(pid) for pid in thread.read_text().split() if "pulumi" in Path(f"/proc/{pid}/comm").read_text())
        return bool(found)

    assert until(look, 20)
    return found[0]


def assert_nothing_was_made_twice(bench: Bench) -> None:
    counts = Counter(line for line in bench.world.journal() if line.startswith(("start", "environment")))
    assert set(counts.values()) == {1}, counts


def assert_usable(bench: Bench) -> None:
    assert_usable_after(bench, "plan-1")


def assert_usable_after(bench: Bench, digest: str) -> None:
    """A later `up` ends well, the state lists what is there and nothing is under way."""
    up = bench.up(system(READY_AFTER="0"), digest=digest)
    assert {each.name for each in up.environment.nodes} == {"api-0", "db-0", "db-1", "web-0"}
    latest = json.loads(bench.state.checkpoint.read_text())["checkpoint"]["latest"]
    assert not latest.get("pending_operations")
    assert Counter(each["type"] for each in latest["resources"])["envctl:index:Node"] == 4
    assert bench.up(system(READY_AFTER="0"), digest=digest).unchanged


@pytest.mark.parametrize("after", ["environment", "start db-0", "provision", "start web-0"])
def test_up_killed_in_the_middle_is_continued_by_the_next(bench: Bench, after: str) -> None:
    process = begin(bench, 0.5)
    assert until(lambda: any(line.startswith(after) for line in bench.world.journal()), 20)
    process.kill()
    process.wait()
    assert_usable(bench)
    assert_nothing_was_made_twice(bench)


@pytest.mark.parametrize("after", ["start db-0", "start web-0"])
def test_an_engine_killed_in_the_middle_is_explained_and_continued_by_the_next(bench: Bench, after: str) -> None:
    process = begin(bench, 4.0)
    engine = engine_of(process)
    assert until(lambda: any(line.startswith(after) for line in bench.world.journal()), 30)
    os.kill(engine, signal.SIGKILL)
    _, said = process.communicate(timeout=20)
    assert said.startswith("ResourceError: the Pulumi engine was killed")
    assert_usable(bench)
    assert_nothing_was_made_twice(bench)


def test_both_killed_at_once_leave_something_that_down_removes(bench: Bench) -> None:
    process = begin(bench, 0.5)
    engine = engine_of(process)
    assert until(lambda: any(line.startswith("start") for line in bench.world.journal()), 20)
    os.kill(engine, signal.SIGKILL)
    process.kill()
    process.wait()
    tear_down(bench.plan.env_id, substrates=bench.ground)
    assert not bench.state.leftovers()


def test_an_interrupt_stops_the_engine_and_leaves_what_the_next_command_continues(bench: Bench) -> None:
    process = begin(bench, 1.0)
    assert until(lambda: any(line.startswith("start db-0") for line in bench.world.journal()), 20)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert said.startswith("CancelledError: ")
    assert not list((bench.state.root / ".pulumi" / "locks").rglob("*.json"))
    assert_usable(bench)
    assert_nothing_was_made_twice(bench)


def write_lock(bench: Bench, pid: int, when: datetime) -> Path:
    bench.state.ensure()
    path = bench.state.root / ".pulumi" / "locks" / "organization" / "shop" / bench.plan.env_id / "1.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"pid": pid, "hostname": os.uname().nodename, "timestamp": when.isoformat()}))
    return path


def test_the_state_is_for_nobody_else(bench: Bench) -> None:
    bench.up()
    assert bench.state.root.stat().st_mode & 0o777 == 0o700


def test_a_lock_of_a_dead_process_is_broken(bench: Bench) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    path = write_lock(bench, dead.pid, datetime.now(UTC))
    bench.up()
    assert not path.exists()


def test_a_lock_older_than_the_process_that_now_has_its_number_is_broken(bench: Bench) -> None:
    path = write_lock(bench, os.getpid(), datetime(2020, 1, 1, tzinfo=UTC))
    assert bench.state.break_stale_locks() == []
    assert not path.exists()


def test_a_lock_that_stays_half_written_is_broken(bench: Bench) -> None:
    path = write_lock(bench, os.getpid(), datetime.now(UTC))
    path.write_text('{"pid": 1')
    assert bench.state.break_stale_locks() == [0], "its writer may be about to finish"
    os.utime(path, (1, 1))
    assert bench.state.break_stale_locks() == []
    assert not path.exists()


def test_a_lock_of_a_living_process_is_respected(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envctl.stack.state.ORPHAN_WAIT_S", 0.1)
    path = write_lock(bench, os.getpid(), datetime.now(UTC))
    with pytest.raises(ResourceError, match=f"a Pulumi engine \\(process {os.getpid()}\\) is working on shop-main-1"):
        bench.state.settle_locks(lambda _: None)
    assert path.exists()


def test_two_commands_never_work_on_one_environment_at_the_same_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with lock.hold(bench.ground.cache / "envs", "e", "up"):
        assert lock.is_held(bench.ground.cache / "envs", "e")
        with (
            pytest.raises(ResourceError, match=f"envctl up \\(process {os.getpid()}\\) is working on e"),
            lock.hold(bench.ground.cache / "envs", "e", "down", wait_s=0.1, progress=said.append),
        ):
            pass
    assert said == [f"waits for envctl up (process {os.getpid()})"]
    assert not lock.is_held(bench.ground.cache / "envs", "e")


@pytest.mark.parametrize("broken", ["{0}.json", "{0}.json.attrs"])
def test_a_state_that_was_half_written_when_its_engine_was_killed_is_mended(bench: Bench, broken: str) -> None:
    bench.up()
    stacks = bench.state.checkpoint.parent
    file = stacks / broken.format(bench.plan.env_id)
    file.write_bytes(file.read_bytes()[:20])
    assert_usable_after(bench, "plan-2")
    assert_nothing_was_made_twice(bench)


def test_a_state_that_was_missing_when_its_engine_was_killed_is_found_and_removed(bench: Bench) -> None:
    bench.up()
    bench.state.checkpoint.unlink()
    assert bench.state.resources(), "the one before it still says what there is"
    tear_down(bench.plan.env_id, substrates=bench.ground)
    assert not bench.state.leftovers()


def test_a_state_that_was_interrupted_before_there_was_anything_in_it_is_found_and_removed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envctl.stack.state._publish", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        bench.state.ensure()
    assert bench.state.root.exists()
    tear_down(bench.plan.env_id, project=bench.plan.project, substrates=bench.ground)
    assert not bench.state.root.exists()
