"""What a cell promises about its nodes: life, death, readiness, names, positions, ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from envctl.errors import CapabilityError, DeadlineError, NoEnvironmentError, ResourceError
from envctl.model.environment import Mount
from envctl.model.topology import Probe, Resources
from envctl.substrates.embedded import Embedded

pytestmark = pytest.mark.cell

WEB = ("python3", "-m", "http.server", "8080", "--directory", "/data")


def get(address: str, path: str = "/") -> bytes:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
        return answer.read()


def test_prepared_data_becomes_the_nodes_own_and_survives_a_restart_but_not_a_new_digest(cells, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("prepared")
    reach, realiser = cells.make()
    spec = cells.node("web-0", *WEB, ready=Probe("tcp", 8080), data=tmp_path)
    before = realiser.start_node(spec, ready_timeout_s=20)
    assert reach.run("web-0", ["sh", "-c", "cat /data/index.html; echo more >> /data/index.html"]).stdout == "prepared"
    reach.signal("web-0", signal.SIGKILL)
    reach.wait_ready("web-0", 20)
    assert reach.node("web-0").starts == 2
    assert reach.run("web-0", ["cat", "/data/index.html"]).stdout == "preparedmore\n"
    assert reach.node("web-0").address == before.address
    after = realiser.start_node(cells.node("web-0", *WEB, ready=Probe("tcp", 8080), data=tmp_path, digest="2"), ready_timeout_s=20)
    assert (after.digest, after.address, after.starts) == ("2", before.address, 1)
    assert reach.run("web-0", ["cat", "/data/index.html"]).stdout == "prepared"
    assert (tmp_path / "index.html").read_text() == "prepared"


def test_names_resolve_to_nodes_and_components_and_nothing_else(cells) -> None:
    reach, realiser = cells.make()
    for name in ("pay-0", "pay-1"):
        realiser.start_node(cells.node(name, "sleep", "100"), ready_timeout_s=10)

    def resolve(name: str) -> set[str]:
        done = reach.run("pay-0", ["getent", "ahosts", name])
        return {line.split()[0] for line in done.stdout.splitlines()}

    assert resolve("pay-0") == {"198.18.1.1"}
    assert resolve("PAY-1") == {"198.18.1.2"}
    assert resolve("pay") == {"198.18.1.1", "198.18.1.2"}
    assert resolve("elsewhere") == set()
    reach.helper("keeper", "http.server", "4319")
    assert resolve("keeper") == set()
    beside = subprocess.PIPE
    read, write = os.pipe()
    assert reach.popen(None, ["getent", "hosts", "pay-1"], stdout=write).wait(10) == 0, beside
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read().split() == ["198.18.1.2", "pay-1"]
    realiser.stop_node("pay-1")
    realiser.stop_node("pay-1")
    assert resolve("pay") == {"198.18.1.1"}


def test_signals_reach_the_main_process_with_ordinary_dispositions(cells) -> None:
    reach, realiser = cells.make()
    realiser.start_node(cells.node("a-0", "sleep", "100"), ready_timeout_s=10)
    cells.until(lambda: reach.node("a-0").pid, "its process is there")
    reach.signal("a-0", signal.SIGTERM)  # a PID 1 without a handler would ignore it
    cells.until(lambda: reach.node("a-0").starts == 2, "it was started again")
    assert reach.node("a-0").exit_status == 128 + signal.SIGTERM


def test_a_crashing_node_backs_off_and_the_deadline_names_condition_and_last_lines(cells) -> None:
    reach, realiser = cells.make()
    spec = cells.node("bad-0", "sh", "-c", "echo no database here; exit 3", ready=Probe("http", 8080, "/ready"))
    with pytest.raises(DeadlineError) as caught:
        realiser.start_node(spec, ready_timeout_s=5)
    assert "HTTP GET /ready on port 8080" in caught.value.message
    assert "no database here" in caught.value.message
    assert "exit status 3" in caught.value.message
    assert 2 <= reach.node("bad-0").starts <= 8


def test_a_node_that_can_not_be_started_says_why_and_can_be_started_later(cells, tmp_path: Path) -> None:
    reach, realiser = cells.make()
    missing = tmp_path / "build"
    spec = cells.node("a-0", "cat", "/build/x", one_shot=True, mounts=(Mount(missing, "/build"),))
    with pytest.raises(ResourceError, match=r"build.*does not exist"):
        realiser.start_node(spec, ready_timeout_s=10)
    missing.mkdir()
    (missing / "x").write_text("built")
    realiser.start_node(spec, ready_timeout_s=10)
    assert list(reach.log("a-0")) == ["built"]


@pytest.mark.parametrize("probe", [
    Probe("log", target="^listening on [0-9]+$"), Probe("exec", command=("test", "-e", "/tmp/up")), Probe("tcp", 8080),
    Probe("tcp", 8080, healthy_for_s=0.3),
], ids=["log", "exec", "tcp", "healthy for"])
def test_every_kind_of_probe_waits_for_its_condition(cells, probe: Probe) -> None:
    reach, realiser = cells.make()
    script = "sleep 0.3; touch /tmp/up; echo listening on 8080; exec python3 -m http.server 8080"
    realiser.start_node(cells.node("a-0", "sh", "-c", script, ready=probe), ready_timeout_s=20)
    assert reach.run("a-0", ["test", "-e", "/tmp/up"]).status == 0


def test_a_grpc_probe_asks_the_standard_health_service(cells, tmp_path: Path) -> None:
    reach, _ = cells.make()
    script = tmp_path / "server.py"
    script.write_text(
        "import grpc, sys, time\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "begun = time.monotonic()\n"
        "def check(request, context):\n"
        "    assert request == b'\\n\\x05fraud', request\n"
        "    return b'\\x08\\x01' if time.monotonic() > begun + 0.5 else b'\\x08\\x02'\n"
        "handler = grpc.unary_unary_rpc_method_handler(check)\n"
        "service = grpc.method_handlers_generic_handler('grpc.health.v1.Health', {'Check': handler})\n"
        "server = grpc.server(ThreadPoolExecutor(1)); server.add_generic_rpc_handlers((service,))\n"
        "server.add_insecure_port('198.18.0.1:5000'); server.start(); server.wait_for_termination()\n"
    )
    reach.start(cells.node("fraud", sys.executable, str(script), kind="helper", ready=Probe("grpc", 5000, "fraud")), 30)
    assert reach.node("fraud").state == "ready"


def test_commands_have_exit_codes_streams_and_time_outs(cells) -> None:
    reach, realiser = cells.make()
    realiser.start_node(cells.node("a-0", "sleep", "100", env={"GREETING": "hello"}), ready_timeout_s=10)
    done = reach.run("a-0", ["sh", "-c", 'cat; echo "$GREETING $MORE"; echo oops >&2; exit 7'], stdin="in\n", env={"MORE": "world"})
    assert (done.status, done.stdout, done.stderr) == (7, "in\nhello world\n", "oops\n")
    assert reach.run("a-0", ["sh", "-c", "kill -9 $$"]).status == 137
    with pytest.raises(DeadlineError, match="did not end within"):
        reach.run("a-0", ["sleep", "33"], timeout_s=0.2)
    cells.until(lambda: "sleep 33" not in reach.run("a-0", ["ps", "ax"]).stdout, "the command was killed")
    with pytest.raises(ResourceError, match="No such file"):
        reach.run("a-0", ["no-such-command"])
    with pytest.raises(ResourceError, match="no node 'b-0'"):
        reach.run("b-0", ["true"])


def test_a_helper_talks_through_pipes_gets_signals_and_can_use_reach_from_inside(cells) -> None:
    reach, realiser = cells.make()
    realiser.start_node(cells.node("a-0", "sleep", "100"), ready_timeout_s=10)
    read, write = os.pipe()
    code = (
        "import sys, pathlib; from envctl.substrates.embedded import Embedded\n"
        "print(Embedded.attach(pathlib.Path(sys.argv[1])).run('a-0', ['hostname']).stdout, flush=True)\nimport time; time.sleep(60)"
    )
    process = reach.popen(None, [sys.executable, "-c", code, str(reach.directory)], stdin=subprocess.DEVNULL, stdout=write)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.readline() == "a-0\n"
        assert process.poll() is None
        process.signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM


def test_a_rule_of_the_position_netns_loses_packets_at_the_receiver_and_ends_by_itself(cells, nft) -> None:
    reach, realiser = cells.make()
    for name in ("a-0", "b-0"):
        realiser.start_node(cells.node(name, "sleep", "300"), ready_timeout_s=10)
    rules = (
        "table ip t { set peers { type ipv4_addr; flags timeout; elements = { 198.18.1.1 timeout 20s } }\n"
        "chain in { type filter hook input priority 0; ip saddr @peers numgen random mod 100 < 30 counter drop\n}\n}"
    )
    done = reach.run("b-0", [str(nft.programs["nft"]), "-f", "-"], where="netns", env=dict(nft.env), stdin=rules)
    assert done.status == 0, done.stderr
    assert 600 < received(reach) < 800
    cells.until(lambda: received(reach) == 1000, "the element has timed out", within_s=60)
    refused = reach.run("b-0", ["ip", "link", "set", "eth0", "down"])
    assert refused.status != 0, "a node itself has no right to its interface"


def received(reach) -> int:
    """How many of 1,000 datagrams from a-0 arrive at b-0."""
    count = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 9000)); s.settimeout(5); n = 0\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4000000); print('up', flush=True)\n"
        "try:\n while s.recv(9) != b'end': n += 1; s.settimeout(2)\nexcept TimeoutError: pass\nprint(n)"
    )
    sends = (
        "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); to = socket.gethostbyname('b-0'), 9000\n"
        "for i in range(1000):\n s.sendto(b'x', to)\n if i % 10 == 0: time.sleep(0.01)\n"
    )
    read, write = os.pipe()
    counter = reach.popen("b-0", ["python3", "-c", count], stdin=subprocess.DEVNULL, stdout=write)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.readline() == "up\n"
        assert reach.run("a-0", ["python3", "-c", sends]).status == 0
        number = int(pipe.readline())
    counter.wait(5)
    return number


def test_the_position_netns_changes_rules_of_one_node_and_they_outlive_its_process(cells) -> None:
    reach, realiser = cells.make()
    for name in ("a-0", "b-0"):
        realiser.start_node(cells.node(name, *WEB, ready=Probe("tcp", 8080)), ready_timeout_s=20)
    reaches = ["python3", "-c", "import socket,sys; socket.create_connection((sys.argv[1], 8080), 0.5)"]
    assert reach.run("a-0", [*reaches, "b-0"]).status == 0
    assert reach.run("b-0", ["ip", "route", "add", "blackhole", "198.18.1.1/32"], where="netns").status == 0
    assert reach.run("a-0", [*reaches, "b-0"]).status != 0
    assert reach.run("b-0", [*reaches, "b-0"]).status == 0
    reach.signal("b-0", signal.SIGKILL)
    cells.until(lambda: reach.node("b-0").starts == 2, "it is started again")
    reach.wait_ready("b-0", 20)
    assert reach.run("a-0", [*reaches, "b-0"]).status != 0
    assert reach.run("b-0", ["ip", "route", "del", "blackhole", "198.18.1.1/32"], where="netns").status == 0
    assert reach.run("a-0", [*reaches, "b-0"]).status == 0


def test_a_published_port_has_one_address_and_follows_the_node(cells, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("x" * 3_000_000)
    reach, realiser = cells.make()
    realiser.start_node(cells.node("web-0", *WEB, ready=Probe("tcp", 8080), data=tmp_path), ready_timeout_s=20)
    address = reach.publish("web.http", "web-0", 8080)
    assert Embedded.attach(reach.directory).publish("web.http", "web-0", 8080) == address
    assert reach.environment().endpoints == {"web.http": address}
    assert len(get(address)) == 3_000_000
    realiser.stop_node("web-0")
    with pytest.raises(OSError):
        get(address)


def test_two_environments_of_the_same_names_live_side_by_side(cells) -> None:
    pairs = [cells.make(), cells.make()]
    for number, (_, realiser) in enumerate(pairs):
        realiser.start_node(cells.node("a-0", "sh", "-c", f"echo {number} > /data/n; exec sleep 100"), ready_timeout_s=10)
    assert [reach.node("a-0").address for reach, _ in pairs] == ["198.18.1.1"] * 2
    assert [reach.run("a-0", ["cat", "/data/n"]).stdout for reach, _ in pairs] == ["0\n", "1\n"]
    pairs[0][1].end_environment()
    assert pairs[1][0].node("a-0").state == "ready"


def test_concurrent_creation_makes_one_cell_and_later_ones_adopt_it(cells) -> None:
    realiser = Embedded.realiser(cells.envs / "same")
    cells.made.append(realiser)
    with ThreadPoolExecutor(4) as pool:
        for made in [pool.submit(realiser.create_environment, "same", ttl_s=60, labels={"n": "1"}) for _ in range(4)]:
            made.result()
    found = [item for item in Embedded.environments() if item.directory == realiser.directory]
    assert len(found) == 1
    realiser.create_environment("same", ttl_s=90, labels={"n": "2"})
    assert found == [item for item in Embedded.environments() if item.directory == realiser.directory]
    assert dict(realiser.reach.environment().labels) == {"n": "2"}


def test_a_machine_that_forbids_namespaces_is_told_so(cells) -> None:
    code = (
        "import sys, pathlib; from envctl.substrates.embedded import Embedded\n"
        "from envctl.errors import CapabilityError\n"
        "try: Embedded.realiser(pathlib.Path(sys.argv[1])).create_environment('x', ttl_s=9, labels={})\n"
        "except CapabilityError as error: print(error.message, error.hint)"
    )
    script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    argv = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", sys.executable, "-c", code, str(cells.envs / "x")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert "the cell of x could not be made" in done.stdout, done
    assert "envctl doctor" in done.stdout
    assert not (cells.envs / "x").exists()
    assert CapabilityError.exit_code == 4


def test_a_full_log_is_rotated_and_nothing_of_the_newest_is_lost(cells) -> None:
    reach, realiser = cells.make()
    loud = "import os; written = os.write(1, b'x' * 18_000_000); assert written == 18_000_000"  # all at once: never rotated half-way
    script = f'python3 -c "{loud}"; sleep 5; echo end; exec sleep 100'
    realiser.start_node(cells.node("loud-0", "sh", "-c", script, ready=Probe("log", target="end$")), ready_timeout_s=30)
    older, newer = reach.directory / "logs" / "loud-0.log.1", reach.directory / "logs" / "loud-0.log"
    assert older.stat().st_size == 18_000_000
    assert newer.read_text() == "end\n"
    assert [len(line) for line in reach.log("loud-0")] == [18_000_000, 3]
    assert list(reach.log("loud-0", tail=1)) == ["end"]


def test_nobody_is_asked_after_the_end(cells) -> None:
    reach, realiser = cells.make()
    realiser.end_environment()
    realiser.end_environment()
    with pytest.raises(NoEnvironmentError, match="there is no living environment"):
        reach.environment()
    realiser.stop_node("a-0")
    assert time.time() > 0
    assert not reach.directory.exists()


def test_a_node_is_limited_in_processes_and_scratch_space(cells) -> None:
    reach, realiser = cells.make()
    realiser.start_node(cells.node("a-0", "sleep", "300"), ready_timeout_s=10)
    for command in (["cat", "/proc/1/limits"], ["cat", "/proc/self/limits"]):
        limits = reach.run("a-0", command).stdout
        assert [line.split()[2:4] for line in limits.splitlines() if line.startswith("Max processes")] == [["4096", "4096"]]
    sizes = reach.run("a-0", ["df", "--output=size", "--block-size=1M", "/tmp", "/dev/shm"]).stdout
    assert sizes.split()[1:] == ["1024", "1024"]


def test_status_tells_whose_limits_are_not_enforced(cells) -> None:
    reach, realiser = cells.make()
    realiser.start_node(cells.node("a-0", "sleep", "300"), ready_timeout_s=10)
    assert reach.notes() == ()
    realiser.start_node(cells.node("b-0", "sleep", "300", resources=Resources(cpus=0.5)), ready_timeout_s=10)
    (note,) = reach.notes()
    assert "`resources:` of b-0" in note
    assert "not enforced" in note


def test_data_that_can_not_be_copied_leaves_the_old_node_as_it_was_and_says_why(cells, tmp_path: Path) -> None:
    reach, realiser = cells.make()
    realiser.start_node(cells.node("a-0", "sleep", "300"), ready_timeout_s=10)
    with pytest.raises(ResourceError, match=r"data of a-0 could not be copied[^$]*missing.*No such file"):
        realiser.start_node(cells.node("a-0", "sleep", "300", data=tmp_path / "missing", digest="2"), ready_timeout_s=10)
    assert (reach.node("a-0").state, reach.node("a-0").digest, reach.node("a-0").starts) == ("ready", "1", 1)
    (tmp_path / "missing").mkdir()
    assert realiser.start_node(cells.node("a-0", "sleep", "300", data=tmp_path / "missing", digest="2"), ready_timeout_s=10).digest == "2"


def test_a_cell_that_dies_while_a_command_is_asked_for_is_an_environment_that_has_ended(cells) -> None:
    reach, realiser = cells.make()
    (reach.directory / "cell.sock").unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:  # takes the request, and goes
        listener.bind(str(reach.directory / "cell.sock"))
        listener.listen()

        def take_and_go() -> None:
            peer, _ = listener.accept()
            peer.recv(1)
            peer.close()

        taker = threading.Thread(target=take_and_go)
        taker.start()
        with pytest.raises(NoEnvironmentError, match="ended in the middle of `spawn`"):
            reach.popen(None, ["true"])
        taker.join()
    realiser.end_environment()


def test_a_paused_node_stands_still_until_it_is_resumed_or_the_lease_has_run_out(cells) -> None:
    reach, realiser = cells.make()
    script = "while :; do date +%s%N > /data/now; sleep 0.05 & wait; done"
    realiser.start_node(cells.node("a-0", "sh", "-c", script), ready_timeout_s=10)
    now = reach.directory / "nodes" / "a-0" / "data" / "now"

    def goes_on() -> bool:
        before = now.read_text()
        time.sleep(0.4)
        return now.read_text() != before

    cells.until(now.exists, "it writes")
    reach.pause("a-0", 60)
    assert (reach.node("a-0").state, goes_on()) == ("paused", False)
    reach.resume("a-0")
    reach.resume("a-0")
    assert reach.node("a-0").state == "ready"
    cells.until(goes_on, "it goes on")
    reach.pause("a-0", 0.2)
    cells.until(lambda: reach.node("a-0").state == "ready", "the lease has run out")
    cells.until(goes_on, "it goes on")
    reach.pause("a-0", 60)
    reach.signal("a-0", signal.SIGKILL)
    cells.until(lambda: (reach.node("a-0").state, reach.node("a-0").starts) == ("ready", 2), "what is paused can be killed")
    cells.until(goes_on, "it goes on")


def test_a_restart_ends_a_node_in_good_order_and_starts_it_at_once_with_its_data(cells) -> None:
    reach, realiser = cells.make()
    script = "echo start >> /data/log; trap 'echo end >> /data/log; exit 0' TERM; while :; do sleep 0.05; done"
    realiser.start_node(cells.node("a-0", "sh", "-c", script), ready_timeout_s=10)
    cells.until(lambda: reach.run("a-0", ["cat", "/data/log"]).stdout == "start\n", "it has begun")
    reach.restart("a-0")
    cells.until(lambda: reach.node("a-0").starts == 2, "it is started again")
    cells.until(lambda: reach.run("a-0", ["cat", "/data/log"]).stdout == "start\nend\nstart\n", "it ended in good order")
    realiser.start_node(cells.node("job-0", "true", one_shot=True), ready_timeout_s=10)
    with pytest.raises(ResourceError, match="job-0 is exited: there is nothing to restart"):
        reach.restart("job-0")
    with pytest.raises(ResourceError, match="job-0 is exited: there is nothing to pause"):
        reach.pause("job-0", 1)


def test_a_node_may_have_its_data_on_a_disk_of_its_own_which_it_keeps_over_restarts(cells, tmp_path: Path) -> None:
    reach, realiser = cells.make()
    given = tmp_path / "given"
    given.mkdir()
    (given / "a").write_text("x" * 100_000)
    spec = cells.node("a-0", "sleep", "300", data=given, disk_bytes=1 << 20)
    realiser.start_node(spec, ready_timeout_s=20)
    assert reach.run("a-0", ["sh", "-c", "wc -c < /data/a; echo kept > /data/b; df --output=size /data | tail -1 | tr -d ' '"]).stdout == "100000\n1024\n"
    assert "No space left" in reach.run("a-0", ["sh", "-c", "head -c 2000000 /dev/zero > /data/c; rm /data/c"]).stderr
    reach.signal("a-0", signal.SIGKILL)
    cells.until(lambda: reach.node("a-0").starts == 2 and reach.node("a-0").pid, "it is started again")
    assert reach.run("a-0", ["cat", "/data/b"]).stdout == "kept\n"
    realiser.start_node(replace(spec, digest="2"), ready_timeout_s=20)
    assert reach.run("a-0", ["ls", "/data"]).stdout == "a\n"
    with pytest.raises(ResourceError, match="does not fit into 8,192 bytes"):
        realiser.start_node(replace(spec, digest="3", disk_bytes=8192), ready_timeout_s=20)
    realiser.start_node(replace(spec, digest="4", disk_bytes=0), ready_timeout_s=20)
    assert reach.run("a-0", ["ls", "/data"]).stdout == "a\n"
