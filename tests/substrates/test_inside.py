"""What the agent of a node does to containers, tried on one that is made of its parts: namespaces, a control group, a plain process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
from cluster import groups

from envctl.errors import CapabilityError, ResourceError
from envctl.substrates.keeper import streams
from envctl.substrates.keeper.wire import Lines, Peer
from envctl.substrates.kubernetes import agent, enter, inside
from envctl.waiting import until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(60)]  # needs root, as the cluster does
SPACES = ("--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup")
AS_A_USER = "setpriv --reuid 1234 --regid 1235 --groups 1235,77 --bounding-set -all --inh-caps -all --ambient-caps -all --no-new-privs"
MAKE = "hostname inside; echo 500 > /proc/self/oom_score_adj; mount -t tmpfs tmpfs /mnt; echo here > /mnt/file; cd /mnt; ulimit -n 555; exec "
SLEEP = "exec sleep 300"


def versions() -> dict[str, Path]:
    """Where control groups of each version are mounted here."""
    both = {"v1": Path("/sys/fs/cgroup"), "v2": Path("/sys/fs/cgroup/unified")}
    one = {"v2": Path("/sys/fs/cgroup")}
    return both if (both["v2"] / "cgroup.procs").exists() else one if (one["v2"] / "cgroup.procs").exists() else {"v1": both["v1"]}


@dataclass(frozen=True, slots=True)
class Container:
    id: str
    places: list[Path]  # its control groups
    unshare: subprocess.Popen[bytes]
    main: int

    def status(self) -> int:
        """The exit status of its main process."""
        return self.unshare.wait(10)

    def live(self) -> list[int]:
        return inside._members(inside.group(self.id))


@pytest.fixture(params=versions())
def contain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Container]]:
    """Makes containers of a shell script, in control groups of each version that is here; they are gone afterwards."""
    made: list[Container] = []
    monkeypatch.setattr(inside, "_GROUPS", versions()[request.param])
    monkeypatch.setattr(inside, "_NODE", Path("/proc/self"))
    unified = request.param == "v2" and "v1" in versions()

    def make(script: str = SLEEP, spaces: tuple[str, ...] = SPACES, env: Mapping[str, str] | None = None) -> Container:
        name = secrets.token_hex(32)
        group = f"cri-containerd-{name}.scope"
        places = [versions()["v2"] / group] if unified else [place / group for place in groups.hierarchies()]
        groups.make(group) if not unified else places[0].mkdir()
        unshare = subprocess.Popen(
            ["unshare", *spaces, "sh", "-c", 'sh -c "$0"; exit $?', f"read begin; {script}"],  # the outer one is outside, and tells how it ended
            stdin=subprocess.PIPE, env={"PATH": os.environ["PATH"], **(env or {})},
        )
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
        assert until(lambda: bool(children.read_text()), 10)
        container = Container(name, places, unshare, int(children.read_text()))
        made.append(container)
        for place in places:
            (place / "cgroup.procs").write_text(str(container.main))
        assert unshare.stdin
        unshare.stdin.write(b"\n")
        unshare.stdin.close()
        return container

    yield make
    for container in made:
        with contextlib.suppress(ResourceError):
            inside.resume(container.id)
            inside.kill_all(inside.group(container.id))
        container.unshare.kill()
        container.unshare.wait()
        assert until(lambda: all(map(removed, container.places)), 10)  # noqa: B023 - it is called here


def removed(place: Path) -> bool:
    for below, _, _ in os.walk(place, topdown=False):
        with contextlib.suppress(OSError):
            Path(below).rmdir()
    return not place.exists()


@dataclass(frozen=True, slots=True)
class Done:
    status: int
    out: str
    err: str


class Command:
    """A command by the agent's own way of serving it."""

    def __init__(self, container: Container, *argv: str, where: str = "node", env: Mapping[str, str] | None = None, stdin: str | None = "") -> None:
        ours, its = socket.socketpair()
        its.setblocking(False)
        Thread(target=asyncio.run, args=(self._serve(Peer(its), container.id, argv, env or {}, where),)).start()
        self.lines = Lines(ours)
        self.out, self._err, self._in = os.pipe(), os.pipe(), os.pipe()
        self.process = streams.Streamed(self.lines, self._in[0], self.out[1], self._err[1])
        for descriptor in (self.out[1], self._err[1], self._in[0]):
            os.close(descriptor)
        if stdin is not None:
            self.give(stdin.encode(), end=True)

    @staticmethod
    async def _serve(peer: Peer, container: str, argv: tuple[str, ...], env: Mapping[str, str], where: str) -> None:
        with contextlib.closing(peer):
            command, group = inside.entry(container, argv, env, where)  # type: ignore[arg-type]
            await peer.tell(await streams.serve(peer, command, {}, partial(agent.tell, group)))
        await asyncio.gather(asyncio.to_thread(inside.remove, group), *agent._tasks)

    def give(self, data: bytes, *, end: bool = False) -> None:
        os.write(self._in[1], data)
        if end:
            os.close(self._in[1])

    def line(self) -> str:
        """The next line it says."""
        said = b""
        while not said.endswith(b"\n"):
            char = os.read(self.out[0], 1)
            assert char, said
            said += char
        return said.decode()

    def end(self) -> Done:
        texts = []
        for descriptor in (self.out[0], self._err[0]):
            with os.fdopen(descriptor) as file:
                texts.append(file.read())
        return Done(self.process.wait(20), *texts)


def run(container: Container, *argv: str, where: str = "node", env: Mapping[str, str] | None = None, stdin: str = "") -> Done:
    return Command(container, *argv, where=where, env=env, stdin=stdin).end()


def ready(container: Container, command: str) -> None:
    """It has become that command."""
    assert until(lambda: Path(f"/proc/{container.main}/cmdline").read_bytes().startswith(command.encode()), 10)


def test_a_command_is_what_a_process_of_the_container_is(contain):
    one = contain(f"{MAKE} {AS_A_USER} sleep 300", env={"GREETING": "hello"})
    ready(one, "sleep")
    script = "cat; cat file; hostname; echo $GREETING $MORE; id -u; id -g; id -G; ulimit -n; pwd; cat /proc/self/oom_score_adj; echo oops >&2; exit 7"
    done = run(one, "sh", "-c", script, env={"MORE": "world"}, stdin="in\n")
    assert done.err == "oops\n"
    assert done.out.split("\n") == ["in", "here", "inside", "hello world", "1234", "1235", "1235 77", "555", "/mnt", "500", ""]
    assert (done.status, done.err) == (7, "oops\n")
    for kind in ("mnt", "uts", "ipc", "net", "pid", "cgroup"):
        assert run(one, "readlink", f"/proc/self/ns/{kind}").out.strip() != str(Path(f"/proc/self/ns/{kind}").readlink())
    assert run(one, "sh", "-c", "echo 1234 > /proc/1/oom_score_adj").status != 0
    told = Path(f"/proc/{one.main}/status").read_text()
    own = run(one, "cat", "/proc/self/status").out
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"):
        assert field(own, name) == field(told, name)


def field(status: str, name: str) -> str:
    (found,) = (line.partition(":")[2].strip() for line in status.splitlines() if line.startswith(f"{name}:"))
    return found


def test_root_in_a_container_has_no_capability_that_the_container_lacks(contain):
    one = contain("exec setpriv --bounding-set -sys_admin,-net_admin,-sys_ptrace --inh-caps -all sleep 300")
    ready(one, "sleep")
    told, own = Path(f"/proc/{one.main}/status").read_text(), run(one, "cat", "/proc/self/status").out
    assert int(field(own, "CapEff"), 16) & (1 << 21 | 1 << 12 | 1 << 19) == 0
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert field(own, name) == field(told, name)
    assert run(one, "mount", "-t", "tmpfs", "tmpfs", "/mnt").status != 0


def test_a_command_counts_and_freezes_with_the_container(contain):
    one = contain()
    counting = Command(one, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done")
    assert counting.line() == "1\n"
    (own,) = inside.group(one.id).glob("envctl-*/")
    members = inside._members(own)
    assert set(members) < set(one.live())
    for path in one.places:
        assert set(members) & set(inside._members(path)), f"it is in {path}"
    os.set_blocking(counting.out[0], False)
    for _ in range(2):
        inside.pause(one.id)
    assert until(lambda: not until(lambda: bool(available(counting.out[0])), 0.5), 5), "what had been written has come, and no more comes"
    for _ in range(2):
        inside.resume(one.id)
    assert until(lambda: bool(available(counting.out[0])), 10)
    counting.process.signal(signal.SIGKILL)
    assert counting.process.wait(10) == 137


def available(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return b""


def test_a_command_finds_nothing_open_but_its_own_three(contain):
    done = run(contain(), "sh", "-c", "for each in /proc/self/fd/*; do readlink $each; done")
    assert [line.partition(":")[0] for line in done.out.splitlines()][:3] == ["pipe"] * 3
    assert len(done.out.splitlines()) <= 4, "readlink reads no directory; the shell's own may have been open"


def test_a_command_that_cannot_be_executed_says_so(contain):
    one = contain("mount -t tmpfs tmpfs /mnt; echo > /mnt/file; cd /mnt; exec sleep 300")
    ready(one, "sleep")
    assert run(one, "no-such-command") == Done(127, "", f"{enter.CANNOT} no-such-command: No such file or directory\n")
    assert run(one, "/mnt/file") == Done(126, "", f"{enter.CANNOT} /mnt/file: Permission denied\n")
    assert run(one, "sh", "-c", "kill -9 $$").status == 137
    assert run(one, "sh", "-c", "kill $$").status == 143


def test_the_input_of_a_command_ends_when_its_giver_ends_it(contain):
    reader = Command(contain(), "sh", "-c", "head -c 3; cat; echo end", stdin=None)
    reader.give(b"abc\n")
    assert reader.line() == "abc\n"
    reader.give(b"x" * 3_000_000 + b"\n", end=True)
    done = reader.end()
    assert (done.status, len(done.out), done.out[-5:]) == (0, 3_000_005, "\nend\n")


def test_a_signal_reaches_a_command_and_what_it_started(contain):
    one = contain()
    for where in ("node", "netns"):
        tree = Command(one, "sh", "-c", "trap 'echo ended; exit 9' TERM; sleep 301 & echo begun; wait; wait", where=where)
        assert tree.line() == "begun\n"
        assert until(lambda: any(map(is_asleep, inside._all())), 10), "a shell's child catches signals until it has become its command"
        tree.process.signal(signal.SIGTERM)
        assert tree.end() == Done(9, "ended\n", "")
        early = Command(one, "sleep", "302", where=where)
        early.process.signal(signal.SIGTERM)
        assert early.end().status == 143
    assert until(lambda: one.live() == [one.main], 5)


def is_asleep(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00301\x00"
    return False


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.environ.clear()
        print("begun", flush=True)
        os.closerange(0, 3)
time.sleep(303)
"""


@pytest.mark.parametrize("how", ["signal", "gone"])
def test_a_killed_command_and_one_whose_client_goes_leave_nothing(contain, how):
    one = contain()
    for where in ("node", "netns"):
        tree = Command(one, "python3", "-c", DAEMON, where=where)
        assert tree.line() == "begun\n"
        assert len(groups_of_commands()) == 1
        tree.process.signal(signal.SIGKILL) if how == "signal" else tree.lines.sock.shutdown(socket.SHUT_RDWR)
        assert tree.process.wait(10) == 137
        assert until(lambda: not groups_of_commands(), 10)
        assert one.live() == [one.main]


def groups_of_commands() -> set[Path]:
    """Everywhere: of containers, and of this process."""
    return {place for tree in {*inside._GROUPS.glob("*/"), inside._GROUPS} for place in (*tree.glob("envctl-*/"), *tree.glob("*/envctl-*/"))
            if len(place.name) == len("envctl-") + 32}


def test_a_command_ends_with_the_process_that_runs_it(contain):
    one = contain()
    sleeping = Command(one, "sh", "-c", "echo begun; exec sleep 304")
    assert sleeping.line() == "begun\n"
    os.kill(sleeping.process.pid, signal.SIGKILL)
    assert sleeping.process.wait(10) == 137
    assert until(lambda: one.live() == [one.main], 10)


def test_what_a_killed_agent_left_is_ended_by_the_next(contain):
    one = contain()
    command, _ = inside.entry(one.id, ["python3", "-c", DAEMON], {}, "node")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        process.kill()
    inside.pause(one.id)
    assert len(one.live()) > 1
    inside.recover(one.id)
    assert one.live() == [one.main]
    assert not groups_of_commands()
    assert run(one, "echo", "it goes on").out == "it goes on\n"


def test_a_command_in_the_network_has_the_right_over_it_and_no_other(contain, tmp_path):
    one = contain("exec setpriv --bounding-set -all --inh-caps -all sleep 300")
    ready(one, "sleep")
    secret = tmp_path / "secret"
    secret.write_text("s")
    secret.chmod(0o600)
    assert run(one, "ip", "link", "set", "lo", "mtu", "1234", where="netns") == Done(0, "", "")
    assert " mtu 1234 " in run(one, "ip", "link", "show", "lo").out
    assert run(one, "ip", "link", "set", "lo", "mtu", "1235").status != 0
    assert run(one, "cat", "/proc/net/route", where="netns").out == run(one, "cat", "/proc/net/route").out
    refused = (f"cat {secret}", "echo x > /proc/sys/kernel/core_pattern", "ls /sys/fs/cgroup/*", "mount -t tmpfs x /mnt", "chown 0 /tmp")
    for script in refused:
        assert run(one, "sh", "-c", script, where="netns").status != 0, script
    seen = run(one, "sh", "-c", "id -u; echo /proc/[0-9]*; grep -E 'CapBnd|CapEff|NoNew' /proc/self/status", where="netns").out.split()
    assert seen[0] == "65534"
    assert len([each for each in seen if each.startswith("/proc/")]) <= 3
    assert seen[-6:] == ["CapEff:", "0000000000003000", "CapBnd:", "0000000000003000", "NoNewPrivs:", "1"]


def test_the_nodes_own_network_is_not_entered(contain):
    one = contain(spaces=("--pid",))
    with pytest.raises(ResourceError, match="the node's own network"):
        inside.entry(one.id, ["true"], {}, "netns")


@pytest.mark.parametrize("spaces", [SPACES, ("--mount",)])
def test_sigkill_ends_all_of_a_container_and_its_status_is_137(contain, spaces):
    one = contain("trap '' TERM; (setsid sleep 305 &); (setsid sleep 306 &); sleep 307; true", spaces)
    assert until(lambda: len(one.live()) == 4, 10)
    assert inside.main_of(one.id) == one.main
    inside.pause(one.id)
    inside.signal(one.id, signal.SIGKILL)
    assert one.status() == 137
    assert until(lambda: not inside._members(one.places[0]), 5)
    with pytest.raises(ResourceError, match="nothing runs"):
        inside.signal(one.id, signal.SIGTERM)


def test_other_signals_go_to_the_main_process_alone(contain):
    one = contain("trap 'echo > /mnt/caught' USR1; mount -t tmpfs tmpfs /mnt; while :; do sleep 0.05; done")
    assert until(lambda: run(one, "sh", "-c", "grep -q /mnt /proc/mounts").status == 0, 10)
    inside.signal(one.id, signal.SIGUSR1)
    assert until(lambda: run(one, "cat", "/mnt/caught").status == 0, 10)


def test_where_nothing_can_be_frozen_processes_are_stopped(contain, monkeypatch):
    monkeypatch.setattr(inside, "_freeze", lambda *_args, **_more: False)
    one = contain("sh -c 'while :; do :; done' & while :; do sleep 0.001; done")
    assert until(lambda: len(one.live()) >= 3, 10)
    inside.pause(one.id)
    before = inside.usage(one.id)
    assert all(inside._stat(pid)[0] in "TD" for pid in one.live())
    inside.resume(one.id)
    assert until(lambda: sum(cpu for cpu, _ in inside.usage(one.id).values()) > sum(cpu for cpu, _ in before.values()) + 0.2, 10)


def test_usage_is_told_of_each_process(contain):
    one = contain("python3 -c 'x = b\"x\" * 20_000_000\nwhile True: pass'; true")
    assert until(lambda: len(one.live()) == 2, 10)
    assert until(lambda: sum(cpu for cpu, _ in inside.usage(one.id).values()) > 0.3, 20)
    found = inside.usage(one.id)
    assert set(found) == set(map(str, one.live()))
    assert sum(size for _, size in found.values()) > 20_000_000


def test_containers_are_told_apart_and_unknown_ones_are_refused(contain):
    one, other = contain(), contain()
    assert (inside.processes(one.id), inside.processes(other.id)) == ([one.main], [other.main])
    for name in (one.id[:20], secrets.token_hex(32), "", "."):
        with pytest.raises(ResourceError, match="nothing runs"):
            inside.processes(name)


def test_a_limited_container_has_less_and_then_what_it_had(contain):
    container = contain()
    files = [place / name for place in container.places for name in (*inside._CPU, *inside._MEMORY) if (place / name).exists()]
    had = [file.read_text() for file in files]
    if len(files) < 2:  # control groups of version 2 are here, what limits is with version 1
        with pytest.raises(CapabilityError, match="no control groups that limit"):
            inside.limit(container.id, 0.5, None)
        return
    for undo in (lambda: inside.limit(container.id, None, None), lambda: inside.recover(container.id)):
        inside.limit(container.id, 0.25, 64 << 20)
        inside.limit(container.id, 0.5, 32 << 20)
        assert {file.name: file.read_text().split()[0] for file in files} in (
            {"cpu.cfs_quota_us": "50000", "memory.limit_in_bytes": str(32 << 20)}, {"cpu.max": "50000", "memory.max": str(32 << 20)},
        )
        undo()
        inside.unlimit(container.id)
        assert [file.read_text() for file in files] == had
    inside.unlimit("0" * 64)


def test_for_how_long_a_quota_keeps_a_container_from_running_is_told(contain):
    container = contain("while :; do :; done")
    assert inside.throttled(container.id) == 0
    if not any((place / name).exists() for place in container.places for name in inside._CPU):
        return  # control groups of version 2 are here, what limits is with version 1
    inside.limit(container.id, 0.05, None)
    assert until(lambda: inside.throttled(container.id) > 0.2, 20)
    assert inside.throttled(container.id) < 60, "seconds, whichever unit the kernel counts in"


def test_no_limit_is_wider_than_the_one_that_was_there(tmp_path):
    for name, before, period in (("cpu.max", "20000 100000", 100_000), ("memory.max", "1000", None)):
        file = tmp_path / name
        file.write_text(before)
        assert period is None or inside._period(file) == period
        for wanted, now in ((10**9, before.split()[0]), (10, "10"), (None, before.split()[0])):
            inside._bind(file, wanted)
            assert file.read_text() == now
        assert os.listxattr(file) == []
