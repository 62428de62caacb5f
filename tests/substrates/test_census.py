"""The end of an environment, by whatever way, leaves nothing; and what lives is found without any file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from envctl import lease
from envctl.errors import LeakError, NoEnvironmentError
from envctl.model.topology import Probe
from envctl.stack.operations import tear_down
from envctl.substrates.embedded import Embedded, census
from envctl.substrates.embedded.identity import MARKER

pytestmark = pytest.mark.cell


def busy(cells, **more):
    """An environment with everything that could be left behind."""
    reach, realiser = cells.make(**more)
    realiser.start_node(cells.node("a-0", "sh", "-c", "sleep 300 & exec sleep 301"), ready_timeout_s=10)
    realiser.start_node(cells.node("b-0", "python3", "-m", "http.server", "80", ready=Probe("tcp", 80)), ready_timeout_s=20)
    reach.publish("b.http", "b-0", 80)
    reach.popen(None, ["sh", "-c", "(setsid sleep 302 &) ; exec sleep 303"], stdin=subprocess.DEVNULL)
    return reach, realiser


def cell_pid(directory: Path) -> int:
    (pid,) = census.cells(directory)
    return pid


def test_the_census_of_a_living_environment_lists_every_kind_and_of_an_ended_one_nothing(cells) -> None:
    reach, realiser = busy(cells)
    for argv in ("sleep 300", "sleep 301", "http.server 80", "sleep 302", "sleep 303", "envctl-cell"):  # some are just being executed
        cells.until(lambda argv=argv: any(argv in line for line in Embedded.census(reach.directory)), argv)
    kinds = {line.split()[0] for line in Embedded.census(reach.directory)}
    assert kinds == {"process", "namespace", "listening", "directory"}
    realiser.end_environment()
    assert Embedded.census(reach.directory) == ()


@pytest.mark.parametrize("bears", ["elsewhere", "here", "nothing"])
def test_a_namespace_whose_number_was_used_again_by_another_environment_is_not_this_ones(tmp_path: Path, bears: str) -> None:
    directory = tmp_path / "envs" / "lost"
    directory.mkdir(parents=True)
    mark = {"elsewhere": {"ENVCTL_CELL": str(tmp_path / "other")}, "here": {"ENVCTL_CELL": str(directory)}, "nothing": {}}[bears]
    argv = ["unshare", "--user", "--pid", "--mount", "--fork", "--kill-child", "sh", "-c", "echo up; read end"]
    with subprocess.Popen(argv, env={"PATH": os.environ["PATH"], **mark}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "up\n"
        (child,) = Path(f"/proc/{other.pid}/task/{other.pid}/children").read_text().split()
        (directory / "cell.json").write_text(json.dumps({"namespaces": dict(census._own_spaces(Path("/proc") / child))}))
        found = [line for line in census.left(directory) if line.startswith(f"process {child}:")]
        other.communicate("end\n", timeout=60)
    assert len(found) == (bears != "elsewhere")


def test_killing_the_first_process_leaves_no_process(cells) -> None:
    reach, _ = busy(cells)
    os.kill(cell_pid(reach.directory), signal.SIGKILL)
    cells.until(lambda: Embedded.census(reach.directory) == (f"directory {reach.directory}",), "only files")
    assert [item.alive for item in Embedded.environments() if item.directory == reach.directory] == [False]


def test_the_lease_ends_the_environment_without_anybody(cells) -> None:
    reach, _ = busy(cells)
    reach.renew(1.0)
    cells.until(lambda: Embedded.census(reach.directory) == (), "the lease has ended it", within_s=15)


def test_use_prolongs_a_lease_and_looking_does_not(cells) -> None:
    reach, realiser = cells.make()
    realiser.start_node(cells.node("a-0", "sleep", "300"), ready_timeout_s=10)
    reach.renew(2.5)
    first = reach.environment().expires_at
    cells.until(lambda: reach.run("a-0", ["sleep", "0.5"]).status == 0 and reach.environment().expires_at > first + 3, "it is prolonged", 30)

    def looked_at() -> bool:
        reach.environment()
        return False

    with pytest.raises(Exception, match=r"no living environment|ended in the middle"):
        cells.until(looked_at, "it ends", 15)


def test_a_lost_directory_does_not_hide_a_living_environment(cells) -> None:
    reach, realiser = busy(cells)
    shutil.rmtree(reach.directory)
    assert [item.id for item in Embedded.environments() if item.directory == reach.directory] == [reach.directory.name]
    realiser.end_environment()
    assert Embedded.census(reach.directory) == ()


def test_a_dead_environments_directory_is_replaced_by_the_next(cells) -> None:
    reach, realiser = busy(cells)
    os.kill(cell_pid(reach.directory), signal.SIGKILL)
    realiser.create_environment(reach.directory.name, ttl_s=60, labels={})
    assert reach.environment().nodes == ()


@pytest.mark.parametrize("after_s", [0.02, 0.08, 0.12, 0.16, 0.2, 0.3])
def test_a_maker_killed_at_any_instant_leaves_nothing_that_the_next_does_not_adopt_or_remove(cells, after_s: float) -> None:
    realiser = Embedded.realiser(cells.envs / "half")
    cells.made.append(realiser)
    code = (
        "import sys, pathlib; from envctl.substrates.embedded import Embedded; r = Embedded.realiser(pathlib.Path(sys.argv[1]))\n"
        "print('go', flush=True); r.create_environment('half', ttl_s=60, labels={})"
    )
    maker = subprocess.Popen([sys.executable, "-c", code, str(realiser.directory)], stdout=subprocess.PIPE)
    assert maker.stdout
    maker.stdout.readline()
    try:
        maker.wait(after_s)
    except subprocess.TimeoutExpired:
        maker.kill()
    maker.wait()
    maker.stdout.close()
    realiser.create_environment("half", ttl_s=60, labels={"adopted": "yes"})
    assert len(census.cells(realiser.directory)) == 1
    assert realiser.reach.environment().labels == {"adopted": "yes"}


@pytest.fixture
def decoy(cells, tmp_path: Path) -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Starts processes that only bear the arguments of a cell."""
    started: list[subprocess.Popen[bytes]] = []

    def start(directory: Path, env_id: str = "evil") -> subprocess.Popen[bytes]:
        directory.mkdir(parents=True)
        (directory / "precious").write_text("content")
        argv = [sys.executable, "-I", "-S", "-c", "import time; print(flush=True); time.sleep(300)", MARKER, env_id, str(directory)]
        started.append(process := subprocess.Popen(argv, stdout=subprocess.PIPE))
        assert process.stdout
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("place", ["documents", "documents/evil", "envs/other"])
def test_arguments_of_a_cell_make_no_environment_of_a_directory_elsewhere(decoy, tmp_path: Path, place: str) -> None:
    process = decoy(tmp_path / place)
    assert "evil" not in [item.id for item in Embedded.environments()]
    assert "evil" not in [item.env_id for item in lease.garbage(None)]
    assert lease.whereabouts("evil") is None
    assert process.poll() is None
    assert (tmp_path / place / "precious").read_text() == "content"


def test_a_process_of_somebody_else_is_no_cell(decoy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = decoy(tmp_path / "envs" / "evil")
    assert "evil" in [item.id for item in Embedded.environments()]
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "evil" not in [item.id for item in Embedded.environments()]
    with pytest.raises(NoEnvironmentError):
        tear_down("evil", directory=tmp_path / "envs" / "evil")
    with pytest.raises(LeakError):  # somebody else's directory is in the way: it is told, and not touched
        Embedded.realiser(tmp_path / "envs" / "evil").end_environment()
    assert process.poll() is None
    assert (tmp_path / "envs" / "evil" / "precious").read_text() == "content"


def test_environments_of_one_id_in_two_caches_are_two(cells, tmp_path: Path) -> None:
    ours, _ = cells.make()
    other = Embedded.realiser(tmp_path / "envs" / ours.directory.name)
    other.create_environment(ours.directory.name, ttl_s=60, labels={})
    try:
        assert {ours.directory, other.directory} <= {item.directory for item in Embedded.environments()}
        tear_down(ours.directory.name)
        assert [item.directory for item in Embedded.environments() if item.id == ours.directory.name] == [other.directory]
        assert lease.whereabouts(ours.directory.name) == other.directory
        tear_down(ours.directory.name, directory=other.directory)
        assert Embedded.census(other.directory) == ()
        assert lease.whereabouts(ours.directory.name) is None
    finally:
        other.end_environment()


def test_a_link_among_the_environments_is_not_followed(cells, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    cells.envs.mkdir(parents=True)
    (cells.envs / "evil").symlink_to(tmp_path)
    try:
        assert "evil" not in [item.id for item in Embedded.environments()]
        with pytest.raises(NoEnvironmentError):
            tear_down("evil")
        assert (tmp_path / "precious").exists()
    finally:
        (cells.envs / "evil").unlink()
