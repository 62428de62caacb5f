"""The second census can fail: it sees each kind of thing that could be left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_census import leftovers, processes, take, unreaped
from chaos_site import until

HIDE = """
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.execve(sys.argv[1], ["innocent", "60"], {})
"""


@pytest.fixture
def hidden(tmp_path: Path, adopting: None) -> Iterator[list[str]]:
    """A daemon that bears no mark: no name, no environment, no parent of ours, started in another directory."""
    before = take(tmp_path, [tmp_path])
    subprocess.run([sys.executable, "-c", HIDE, "/bin/sleep"], cwd="/", check=True)
    assert until(lambda: any(each.title == "innocent 60" for each in processes().values()), 10)
    yield leftovers(before, take(tmp_path, [tmp_path]))
    for each in processes().values():
        if each.title == "innocent 60" and each.parent == os.getpid():
            os.kill(each.pid, signal.SIGKILL)
            os.waitpid(each.pid, 0)


def test_a_daemon_without_any_mark_is_seen(hidden: list[str]) -> None:
    assert [line.partition(": ")[2] for line in hidden] == ["innocent 60"]


def test_a_process_that_speaks_of_our_directory_is_seen_with_its_socket(tmp_path: Path) -> None:
    before = take(tmp_path, [tmp_path])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        with subprocess.Popen(["sleep", "60"], cwd=tmp_path, pass_fds=[number]) as process:
            left = leftovers(before, take(tmp_path, [tmp_path]))
            process.kill()
        port = listener.getsockname()[1]
    assert sorted(line.split()[0] for line in left) == ["process", "socket"]
    assert any(line.endswith(f"port {port}") for line in left)
    assert leftovers(before, take(tmp_path, [tmp_path])) == []


@pytest.mark.cell
def test_a_namespace_is_seen(tmp_path: Path) -> None:
    before = take(tmp_path, [tmp_path])
    with subprocess.Popen(["unshare", "--user", "--net", "sleep", "60"], cwd=tmp_path) as process:
        assert until(lambda: len(leftovers(before, take(tmp_path, [tmp_path]))) == 3, 10)
        left = leftovers(before, take(tmp_path, [tmp_path]))
        process.kill()
    assert [line.split(":[")[0] for line in left[1:]] == ["namespace net", "namespace user"]


def test_files_that_came_went_and_changed_are_seen(tmp_path: Path) -> None:
    for name in ("gone", "changed", "same"):
        (tmp_path / name).write_text("before")
    before = take(tmp_path, [tmp_path])
    (tmp_path / "gone").unlink()
    (tmp_path / "changed").write_text("longer than before")
    (tmp_path / "new").mkdir()
    left = leftovers(before, take(tmp_path, [tmp_path]))
    assert left == [f"file {tmp_path / 'new'} (-1 bytes)", f"file {tmp_path / 'gone'} is gone", f"file {tmp_path / 'changed'} has changed"]


def test_the_dead_that_nobody_has_reaped_are_told_apart(tmp_path: Path) -> None:
    before = take(tmp_path, [tmp_path])
    process = subprocess.Popen(["true"])
    assert until(lambda: any(each.pid == process.pid and each.state == "Z" for each in processes().values()), 10)
    after = take(tmp_path, [tmp_path])
    process.wait()
    assert leftovers(before, after) == []
    assert len(unreaped(before, after)) == 1
