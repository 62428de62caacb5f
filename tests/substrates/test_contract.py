"""The specification of the door: what every substrate promises, asked of each with real engines."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from grounds import Ground

from envctl.errors import CapabilityError, DeadlineError, NoEnvironmentError, ResourceError
from envctl.model.topology import Probe

WEB = ("python3", "-m", "http.server", "8080", "--directory", "/tmp")
SLEEP = ("sleep", "300")


def get(address: str, path: str = "/") -> bytes:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
        return answer.read()


def test_a_node_is_ready_when_its_probe_holds_and_is_adopted_the_second_time(ground: Ground) -> None:
    reach, realiser = ground.make()
    spec = ground.node("web-0", *WEB, ready=Probe("http", 8080), ports={"http": 8080})
    first = realiser.start_node(spec, ready_timeout_s=60)
    second = realiser.start_node(spec, ready_timeout_s=60)
    assert (first.name, first.component, first.state, first.starts, dict(first.ports)) == ("web-0", "web", "ready", 1, {"http": 8080})
    assert (second.pid, second.starts, second.address) == (first.pid, 1, first.address)
    assert [node.name for node in reach.environment().nodes] == ["web-0"]


def test_another_digest_replaces_a_node_and_what_it_wrote(ground: Ground) -> None:
    reach, realiser = ground.make()
    before = realiser.start_node(ground.node("a-0", *SLEEP), ready_timeout_s=60)
    assert reach.run("a-0", ["sh", "-c", "echo x > /tmp/x"]).status == 0
    after = realiser.start_node(ground.node("a-0", *SLEEP, digest="2"), ready_timeout_s=60)
    assert (after.digest, after.starts) == ("2", 1)
    assert after.address == before.address or "addresses" not in ground.substrate.powers
    assert reach.run("a-0", ["cat", "/tmp/x"]).status != 0


def test_names_resolve_to_nodes_and_components(ground: Ground) -> None:
    reach, realiser = ground.make()
    nodes = [realiser.start_node(ground.node(f"pay-{index}", *SLEEP), ready_timeout_s=60) for index in range(2)]

    def resolve(name: str) -> set[str]:
        done = reach.run("pay-0", ["getent", "ahostsv4", name])
        return {line.split()[0] for line in done.stdout.splitlines()}

    assert resolve("pay-1") == {nodes[1].address}
    assert resolve("pay") == {node.address for node in nodes}
    read, write = os.pipe()
    lookup = "import socket; print(socket.gethostbyname('pay-1'))"
    assert reach.popen(None, [*reach.own, "-c", lookup], stdout=write).wait(30) == 0
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read().strip() == nodes[1].address


def test_commands_have_exit_codes_streams_and_time_outs(ground: Ground) -> None:
    reach, realiser = ground.make()
    realiser.start_node(ground.node("a-0", *SLEEP, env={"GREETING": "hello"}), ready_timeout_s=60)
    done = reach.run("a-0", ["sh", "-c", 'cat; echo "$GREETING $MORE"; echo oops >&2; exit 7'], stdin="in\n", env={"MORE": "world"})
    assert (done.status, done.stdout, done.stderr) == (7, "in\nhello world\n", "oops\n")
    assert reach.run("a-0", ["sh", "-c", "kill -9 $$"]).status == 137
    with pytest.raises(DeadlineError, match="did not end within"):
        reach.run("a-0", ["sleep", "33"], timeout_s=0.5)
    running = "import pathlib, sys; sys.exit(any(p.read_bytes() == b'sleep\\x0033\\x00' for p in pathlib.Path('/proc').glob('[0-9]*/cmdline')))"
    ground.until(lambda: reach.run("a-0", ["python3", "-c", running]).status == 0, "the command was killed")
    with pytest.raises(ResourceError):
        reach.run("a-0", ["no-such-command"])
    with pytest.raises(ResourceError, match="no node 'b-0'"):
        reach.run("b-0", ["true"])


def test_a_command_that_was_started_gets_signals_and_tells_how_it_ended(ground: Ground) -> None:
    reach, realiser = ground.make()
    realiser.start_node(ground.node("a-0", *SLEEP), ready_timeout_s=60)
    for node in ("a-0", None):
        process = reach.popen(node, ["sleep", "44"], stdin=subprocess.DEVNULL)
        assert process.poll() is None
        with pytest.raises(DeadlineError):
            process.wait(0.2)
        process.signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        assert process.poll() == 128 + signal.SIGTERM


ON_A_TERMINAL = """
import os, select, signal, time
def size(*_): os.write(1, b"size %d %d\\n" % (*reversed(os.get_terminal_size(0)),))  # print is not for handlers of signals
signal.signal(signal.SIGWINCH, size)
size()
os.close(os.open("/dev/tty", os.O_RDWR))
while not select.select([0], [], [], 0.1)[0]: pass  # a signal that comes just before a read that blocks would be heard after it
print(input()[::-1])
while True: time.sleep(1)
"""


def test_a_command_that_is_given_a_terminal_knows_its_size_and_hears_ctrl_c(ground: Ground) -> None:
    reach, realiser = ground.make()
    realiser.start_node(ground.node("a-0", *SLEEP), ready_timeout_s=60)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (33, 111))
    process = reach.popen("a-0", ["python3", "-c", ON_A_TERMINAL], env={"TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""

    def heard(words: bytes) -> bool:
        nonlocal said
        if select.select([ours], [], [], 0.2)[0]:
            said += os.read(ours, 4096)
        return words in said

    ground.until(lambda: heard(b"size 33 111"), "it knows how large its terminal is")
    termios.tcsetwinsize(ours, (44, 55))
    ground.until(lambda: heard(b"size 44 55"), "it is told of another size")
    os.write(ours, b"wrod\x7f\x7fow\r")
    ground.until(lambda: heard(b"worw\r\n"), "its terminal edits lines")
    assert said.count(b"wrod") == 1, "and echoes what is typed once"
    os.write(ours, b"\x03")
    assert process.wait(30) == 128 + signal.SIGINT
    os.close(ours)


@pytest.mark.parametrize("job", ["", "seed"])
def test_standard_input_beside_the_nodes_ends_when_whoever_holds_it_ends(ground: Ground, job: str) -> None:
    reach, _ = ground.make()
    lifeline, ours = os.pipe()
    read, write = os.pipe()
    code = "import os; print('up', flush=True); print(os.read(0, 9)); print(os.read(0, 9))"
    process = reach.popen(None, [*reach.own, "-c", code], stdin=lifeline, stdout=write, job=job)
    os.close(lifeline)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.readline() == "up\n"
        os.write(ours, b"c")
        assert pipe.readline() == "b'c'\n"
        os.close(ours)
        assert pipe.readline() == "b''\n"
    assert process.wait(30) == 0


def test_a_killed_node_stays_down_while_held_and_comes_back_when_released(ground: Ground) -> None:
    reach, realiser = ground.make()
    realiser.start_node(ground.node("a-0", *SLEEP), ready_timeout_s=60)
    reach.hold("a-0", 60)
    reach.signal("a-0", signal.SIGKILL)
    ground.until(lambda: reach.node("a-0").state == "held", "it is held")
    held = reach.node("a-0")
    assert (held.exit_status, held.pid, held.starts) == (137, None, 1)
    with pytest.raises(ResourceError, match="a-0 is held"):
        reach.run("a-0", ["true"])
    reach.release("a-0")
    reach.release("a-0")
    reach.wait_ready("a-0", 60)
    assert reach.node("a-0").starts == 2


def test_a_hold_ends_with_its_lease_when_nobody_renews_it(ground: Ground) -> None:
    reach, realiser = ground.make()
    realiser.start_node(ground.node("a-0", *SLEEP), ready_timeout_s=60)
    reach.hold("a-0", 0.3)
    reach.hold("a-0", 8)
    reach.signal("a-0", signal.SIGKILL)
    ground.until(lambda: reach.node("a-0").state == "held", "it is held")
    ground.until(lambda: reach.node("a-0").starts == 2, "the lease has ended", within_s=60)


def test_a_node_that_ends_is_started_again_at_the_same_address(ground: Ground) -> None:
    reach, realiser = ground.make()
    before = realiser.start_node(ground.node("web-0", *WEB, ready=Probe("tcp", 8080)), ready_timeout_s=60)
    reach.signal("web-0", signal.SIGTERM)
    ground.until(lambda: reach.node("web-0").starts == 2, "it is started again")
    reach.wait_ready("web-0", 60)
    after = reach.node("web-0")
    assert (after.state, after.address, after.exit_status) == ("ready", before.address, 128 + signal.SIGTERM)
    assert after.pid != before.pid


def test_a_restart_ends_a_node_in_good_order(ground: Ground) -> None:
    reach, realiser = ground.make()
    script = "trap 'echo ended; exit 0' TERM; echo begun; while :; do sleep 0.05; done"
    realiser.start_node(ground.node("a-0", "sh", "-c", script, ready=Probe("log", target="begun")), ready_timeout_s=60)
    reach.restart("a-0")
    ground.until(lambda: list(reach.log("a-0")) == ["begun", "ended", "begun"], "it ended in good order and was started again")


def test_a_paused_node_stands_still_until_it_is_resumed_or_the_lease_has_run_out(ground: Ground) -> None:
    reach, realiser = ground.make()
    script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"
    realiser.start_node(ground.node("a-0", "sh", "-c", script, ready=Probe("log", target="3")), ready_timeout_s=60)

    def goes_on() -> bool:
        before = list(reach.log("a-0"))[-1]
        time.sleep(1)
        return list(reach.log("a-0"))[-1] != before

    ground.until(goes_on, "it goes on")
    reach.pause("a-0", 60)
    ground.until(lambda: not goes_on(), "what had been written has come")
    assert (reach.node("a-0").state, reach.is_paused("a-0"), goes_on()) == ("paused", True, False)
    reach.resume("a-0")
    reach.resume("a-0")
    assert (reach.node("a-0").state, reach.is_paused("a-0")) == ("ready", False)
    ground.until(goes_on, "it goes on")
    reach.pause("a-0", 0.3)
    ground.until(lambda: reach.node("a-0").state == "ready", "the lease has run out")
    ground.until(goes_on, "it goes on")


def test_a_limited_node_uses_less_in_all_its_lives_until_it_is_unlimited_or_the_lease_has_run_out(ground: Ground) -> None:
    reach, realiser = ground.make()
    realiser.start_node(ground.node("busy-0", "python3", "-c", "while True: pass"), ready_timeout_s=60)

    def cpus() -> float:
        before, begun = sum(cpu for cpu, _ in reach.usage()["busy-0"].values()), time.monotonic()
        time.sleep(2)
        return (sum(cpu for cpu, _ in reach.usage()["busy-0"].values()) - before) / (time.monotonic() - begun)

    reach.limit("busy-0", 60, cpus=0.1)
    assert cpus() < 0.2
    reach.signal("busy-0", signal.SIGKILL)
    ground.until(lambda: reach.node("busy-0").starts == 2, "it is started again")
    reach.wait_ready("busy-0", 60)
    assert cpus() < 0.25
    reach.unlimit("busy-0")
    reach.unlimit("busy-0")
    ground.until(lambda: cpus() > 0.35, "it is unlimited", within_s=30)
    reach.limit("busy-0", 60, cpus=0.1)
    reach.limit("busy-0", 8, cpus=0.1)
    assert cpus() < 0.2
    ground.until(lambda: cpus() > 0.35, "the lease has run out", within_s=30)
    if "limits" not in ground.substrate.powers:
        with pytest.raises(CapabilityError, match="can't be limited"):
            reach.limit("busy-0", 60, memory_bytes=64 << 20)
        return
    hungry = ("python3", "-c", "b'x' * (200 << 20)")
    reach.limit("busy-0", 60, memory_bytes=64 << 20)
    assert reach.run("busy-0", hungry).status == 137
    reach.unlimit("busy-0")
    ground.until(lambda: reach.node("busy-0").pid and reach.run("busy-0", hungry).status == 0, "it has its memory again")


def test_the_position_netns_loses_packets_at_the_receiver_and_the_kernel_heals_it(ground: Ground) -> None:
    reach, realiser = ground.make()
    for name in ("a-0", "b-0"):
        realiser.start_node(ground.node(name, *SLEEP), ready_timeout_s=60)
    rules = (
        f"table ip t {{ set peers {{ type ipv4_addr; flags timeout; elements = {{ {reach.node('a-0').address} timeout 20s }} }}\n"
        "chain arriving { type filter hook input priority 0; ip saddr @peers numgen random mod 100 < 30 counter drop\n}\n}"
    )
    done = reach.run("b-0", [*ground.nft, "-f", "-"], where="netns", env=ground.nft_env, stdin=rules)
    assert done.status == 0, done.stderr
    assert 600 < arrived(ground, "a-0", "b-0") < 800
    ground.until(lambda: arrived(ground, "a-0", "b-0") == 1000, "the element has timed out", within_s=60)
    assert reach.run("b-0", ["python3", "-c", "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"]).status != 0, "a node has no such right"


def arrived(ground: Ground, source: str, target: str) -> int:
    """How many of 1,000 datagrams arrive."""
    reach = ground.reach
    count = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 9000)); s.settimeout(10); n = 0\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4000000); print('up', flush=True)\n"
        "try:\n while s.recv(9) != b'end': n += 1; s.settimeout(2)\nexcept TimeoutError: pass\nprint(n)"
    )
    sends = (
        "import socket, sys, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); to = socket.gethostbyname(sys.argv[1]), 9000\n"
        "for i in range(1000):\n s.sendto(b'x', to)\n if i % 10 == 0: time.sleep(0.01)\n"
    )
    read, write = os.pipe()
    counter = reach.popen(target, ["python3", "-c", count], stdin=subprocess.DEVNULL, stdout=write)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.readline() == "up\n"
        assert reach.run(source, ["python3", "-c", sends, target]).status == 0
        number = int(pipe.readline())
    counter.wait(10)
    return number


def test_a_node_that_was_restarted_can_be_entered_again(ground: Ground) -> None:
    reach, realiser = ground.make()
    realiser.start_node(ground.node("a-0", *SLEEP), ready_timeout_s=60)
    tables = [*ground.nft, "list", "tables"]
    assert reach.run("a-0", tables, where="netns", env=ground.nft_env).status == 0
    reach.signal("a-0", signal.SIGKILL)
    ground.until(lambda: reach.node("a-0").starts == 2, "it is started again")
    reach.wait_ready("a-0", 60)
    assert reach.run("a-0", tables, where="netns", env=ground.nft_env).status == 0
    inside = reach.run("a-0", ["cat", "/proc/net/route"]).stdout
    assert reach.run("a-0", ["cat", "/proc/net/route"], where="netns").stdout == inside


def test_a_log_is_told_from_its_end_and_followed_over_restarts_to_the_end_of_the_environment(ground: Ground) -> None:
    reach, realiser = ground.make()
    script = "for i in 1 2 3 4 5; do echo line $i; done; sleep 2; echo more; exec sleep 300"
    realiser.start_node(ground.node("a-0", "sh", "-c", script, ready=Probe("log", target="line 5")), ready_timeout_s=60)
    assert list(reach.log("a-0", tail=2))[:2] in (["line 4", "line 5"], ["line 5", "more"])
    followed: list[str] = []

    def follow() -> None:
        followed.extend(reach.log("a-0", follow=True))

    follower = threading.Thread(target=follow)
    follower.start()
    ground.until(lambda: list(reach.log("a-0"))[-1] == "more", "it goes on")
    reach.signal("a-0", signal.SIGKILL)
    ground.until(lambda: list(reach.log("a-0")).count("more") == 2, "it is started again")
    realiser.end_environment()
    follower.join(30)
    assert not follower.is_alive()
    assert followed == [*(f"line {number}" for number in range(1, 6)), "more"] * 2


def test_a_job_is_ready_when_it_exits_0_and_an_error_otherwise(ground: Ground) -> None:
    _, realiser = ground.make()
    done = realiser.start_node(ground.node("job-0", "true", one_shot=True), ready_timeout_s=60)
    assert (done.state, done.exit_status, done.starts) == ("exited", 0, 1)
    assert realiser.start_node(ground.node("job-0", "true", one_shot=True), ready_timeout_s=60).starts == 1
    with pytest.raises(ResourceError, match=r"exit status 4.*\n.*\n  it broke"):
        realiser.start_node(ground.node("job-1", "sh", "-c", "echo it broke; exit 4", one_shot=True), ready_timeout_s=60)


def test_a_job_that_failed_runs_again_when_it_is_asked_for_again(ground: Ground) -> None:
    reach, realiser = ground.make()
    spec = ground.node("job-0", "sh", "-c", "echo once more; exit 4", one_shot=True)
    for _ in range(2):
        with pytest.raises(ResourceError, match="exit status 4"):
            realiser.start_node(spec, ready_timeout_s=60)
    assert reach.node("job-0").starts == 1, "it is another one"


def test_the_deadline_names_the_unmet_condition_and_the_last_lines(ground: Ground) -> None:
    _, realiser = ground.make()
    spec = ground.node("bad-0", "sh", "-c", "echo no database here; exit 3", ready=Probe("http", 8080, "/ready"))
    with pytest.raises(DeadlineError) as caught:
        realiser.start_node(spec, ready_timeout_s=8)
    assert "HTTP GET /ready on port 8080" in caught.value.message
    assert "no database here" in caught.value.message
    assert "exit status 3" in caught.value.message


def test_what_is_shown_is_there_under_the_same_path_and_what_is_written_comes_back(ground: Ground, tmp_path: Path) -> None:
    reach, _ = ground.make()
    run = tmp_path / "run"
    (run / "inputs").mkdir(parents=True)
    (run / "inputs" / "a").write_text("given")
    reach.show(run)
    code = (
        "import pathlib, sys, time; here = pathlib.Path(sys.argv[1]); print((here / 'inputs/a').read_text())\n"
        "(here / 'big').write_bytes(b'x' * 9_000_000)\nwith (here / 'events').open('w') as f:\n"
        " for i in range(20): print(i, file=f, flush=True); time.sleep(0.05)\n"
        "(here / 'half').write_text('a'); (here / 'half').rename(here / 'whole')"
    )
    read, write = os.pipe()
    with reach.mirrored(run):
        process = reach.popen(None, [*reach.own, "-c", code, str(run)], stdout=write, job="run")
        os.close(write)
        ground.until(lambda: (run / "events").exists() and "3\n" in (run / "events").read_text(), "it comes back meanwhile", within_s=30)
        assert process.wait(60) == 0
    with os.fdopen(read) as pipe:
        assert pipe.read() == "given\n"
    assert (run / "events").read_text().split() == [str(number) for number in range(20)]
    assert ((run / "big").stat().st_size, (run / "whole").read_text()) == (9_000_000, "a")
    reach.fetch(run / "inputs", tmp_path / "copy")
    assert (tmp_path / "copy" / "a").read_text() == "given"
    reach.fetch(run, tmp_path / "too large", most=1000)
    assert not (tmp_path / "too large").exists()
    with pytest.raises(FileNotFoundError):
        reach.fetch(run / "nothing", tmp_path / "nothing")


def test_notes_are_kept_whole_as_long_as_the_environment_lives(ground: Ground) -> None:
    reach, realiser = ground.make()
    notebook = ground.substrate.notebook(reach.environment().directory)
    assert notebook.read("memo") is None
    notebook.write("memo", "ä" * 100_000)
    assert notebook.read("memo") == "ä" * 100_000
    notebook.write("memo", None)
    notebook.write("memo", None)
    assert notebook.read("memo") is None
    realiser.end_environment()
    assert notebook.read("memo") is None
    with pytest.raises(NoEnvironmentError):
        notebook.write("memo", "x")


def test_a_helper_is_restarted_made_once_and_no_node(ground: Ground) -> None:
    reach, _ = ground.make()
    for _ in range(2):
        reach.helper("telemetry", "http.server", "4318", "--bind", reach.address, ready=Probe("tcp", 4318))
    assert (reach.node("telemetry").starts, reach.environment().nodes) == (1, ())
    reach.signal("telemetry", signal.SIGKILL)
    ground.until(lambda: reach.node("telemetry").starts == 2, "it is started again")
    reach.wait_ready("telemetry", 60)


def test_a_node_reaches_what_is_beside_it_by_the_substrates_name(ground: Ground) -> None:
    reach, realiser = ground.make()
    reach.helper("telemetry", "http.server", "4318", "--bind", reach.address, ready=Probe("tcp", 4318))
    realiser.start_node(ground.node("a-0", *SLEEP), ready_timeout_s=60)
    code = f"import urllib.request; print(urllib.request.urlopen('http://{ground.substrate.beside}:4318/', timeout=5).status)"
    assert reach.run("a-0", ["python3", "-c", code]).stdout == "200\n"


def test_a_published_port_has_one_address_and_follows_the_node(ground: Ground) -> None:
    reach, realiser = ground.make()
    realiser.start_node(ground.node("web-0", *WEB, ready=Probe("tcp", 8080)), ready_timeout_s=60)
    address = reach.publish("web.http", "web-0", 8080)
    assert address.startswith("127.0.0.1:")
    assert ground.substrate.attach(reach.environment().directory).publish("web.http", "web-0", 8080) == address
    assert reach.environment().endpoints == {"web.http": address}
    assert b"Directory listing" in get(address)
    reach.signal("web-0", signal.SIGKILL)
    ground.until(lambda: reach.node("web-0").starts == 2, "it is started again")
    reach.wait_ready("web-0", 60)
    assert b"Directory listing" in get(address)
    realiser.stop_node("web-0")
    with pytest.raises(OSError):
        get(address)


def test_what_nodes_use_is_told(ground: Ground) -> None:
    reach, realiser = ground.make()
    burn = "import os\nif os.fork() == 0:\n    while True: pass\nos.wait()"
    realiser.start_node(ground.node("busy-0", "python3", "-c", burn), ready_timeout_s=60)
    realiser.start_node(ground.node("idle-0", *SLEEP), ready_timeout_s=60)

    def seconds(name: str) -> float:
        return sum(cpu for cpu, _ in reach.usage()[name].values())

    ground.until(lambda: seconds("busy-0") > 0.5, "its child's work is counted", within_s=30)
    assert seconds("idle-0") < 0.5
    assert sum(size for _, size in reach.usage()["busy-0"].values()) > 2_000_000


def test_an_environment_is_found_by_what_is_alive_and_its_end_leaves_nothing(ground: Ground) -> None:
    reach, realiser = ground.make(labels={"stack": "shop", "plan_digest": "p"})
    realiser.start_node(ground.node("a-0", *SLEEP, volumes=("/kept",)), ready_timeout_s=60)
    directory = reach.environment().directory
    assert [found.alive for found in ground.substrate.environments() if found.directory == directory] == [True]
    assert (reach.environment().stack, reach.environment().plan_digest) == ("shop", "p")
    assert ground.substrate.census(directory)
    realiser.end_environment()
    realiser.end_environment()
    assert ground.substrate.census(directory) == ()
    assert [found for found in ground.substrate.environments() if found.directory == directory] == []
    with pytest.raises(NoEnvironmentError):
        reach.environment()
    realiser.stop_node("a-0")


def test_an_environment_ends_itself_when_its_lease_has_run_out(ground: Ground) -> None:
    reach, realiser = ground.make(ttl_s=120)
    realiser.start_node(ground.node("a-0", *SLEEP), ready_timeout_s=60)
    assert reach.renew(3) < time.time() + 4
    ground.until(lambda: ground.substrate.census(reach.directory) == (), "it is gone", within_s=60)  # looking is no use


def test_creating_it_again_adopts_it(ground: Ground) -> None:
    reach, realiser = ground.make(labels={"n": "1"})
    realiser.start_node(ground.node("a-0", *SLEEP), ready_timeout_s=60)
    realiser.create_environment(reach.environment().id, ttl_s=90, labels={"n": "2"})
    assert [node.name for node in reach.environment().nodes] == ["a-0"]
    assert dict(reach.environment().labels) == {"n": "2"}


def test_two_environments_of_the_same_names_live_side_by_side(ground: Ground) -> None:
    pairs = [ground.make(), ground.make()]
    for number, (_, realiser) in enumerate(pairs):
        realiser.start_node(ground.node("a-0", "sh", "-c", f"echo {number} > /tmp/n; exec sleep 300"), ready_timeout_s=60)
    ground.until(lambda: [reach.run("a-0", ["cat", "/tmp/n"]).stdout for reach, _ in pairs] == ["0\n", "1\n"], "both are there")
    pairs[0][1].end_environment()
    assert pairs[1][0].node("a-0").state == "ready"
