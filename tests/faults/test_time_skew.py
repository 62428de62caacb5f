"""Wall clocks that are wrong in living processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from envctl.errors import CapabilityError, UsageError
from envctl.faults.base import World
from envctl.faults.programs.vdso import Clock, Skew
from envctl.faults.time_skew import TimeSkew
from envctl.substrates.base import Reach
from envctl.waiting import until

pytestmark = pytest.mark.cell

TELLS = """
import os, threading, time
print("up", flush=True)
while os.read(0, 1):
    begun, up = time.monotonic(), float(open("/proc/uptime").read().split()[0])
    time.sleep(0.2); threading.Event().wait(0.2); (lock := threading.Lock()).acquire(); lock.acquire(timeout=0.2)
    print(time.time(), time.monotonic() - begun, float(open("/proc/uptime").read().split()[0]) - up, flush=True)
"""


STUCK = """
import sys, time
from envctl.faults.programs.vdso import Clock, Skew
def places(clock):
    print("held", flush=True)
    time.sleep(600)
Clock._places = places
Clock(int(sys.argv[1])).skew(Skew(time.time_ns(), 10**12, 0.0, time.time_ns() + 10**12))
"""
OLD = """
import os, struct
head = struct.pack("<4s5B7x2H5I6H", b"\\x7fELF", 1, 1, 1, 0, 0, 2, 3, 1, 0x8048054, 52, 0, 0, 52, 32, 1, 0, 0, 0)
part = struct.pack("<8I", 1, 0, 0x8048000, 0x8048000, 93, 93, 5, 4096)
with open("/tmp/old-program", "wb", opener=lambda path, flags: os.open(path, flags, 0o755)) as file:
    file.write(head + part + bytes.fromhex("b81d000000cd80ebf7"))  # it waits for a signal, again and again
os.execv("/tmp/old-program", ["old-program"])
"""


@contextmanager
def telling(reach: Reach, node: str) -> Iterator[Callable[[], tuple[float, float, float]]]:
    """Asks one process that lives in a node: how far its clock is from ours, how long three waits of 0.2 s took for it, and for us."""
    stdin, tell = os.pipe()
    said, stdout = os.pipe()
    process = reach.popen(node, ["python3", "-c", TELLS], stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL)
    os.close(stdin)
    os.close(stdout)
    with os.fdopen(said) as lines:
        assert lines.readline() == "up\n"

        def ask() -> tuple[float, float, float]:
            os.write(tell, b"?")
            clock, waited, really = map(float, lines.readline().split())
            return clock - time.time(), waited, really

        yield ask
        os.close(tell)
        process.wait(10)


def test_a_process_that_was_there_before_goes_by_the_wrong_clock_and_waits_as_long_as_ever(world: Callable[..., World], reach: Reach) -> None:
    fault = TimeSkew.build({"target": "server-0", "jump": "+1h"}, world())
    with telling(reach, "server-0") as ask:
        assert abs(ask()[0]) < 1
        fault.apply(60)
        off, waited, really = ask()
        assert abs(off - 3600) < 1
        assert 0.59 < waited < 5
        assert abs(waited - really) < 1
        fault.heal()
        assert abs(ask()[0]) < 1


def test_a_clock_that_drifts_gains_more_and_more_and_is_right_again_in_the_end(world: Callable[..., World], reach: Reach) -> None:
    fault = TimeSkew.build({"target": "server-0", "drift": 3}, world())
    fault.apply(60)
    with telling(reach, "server-0") as ask:
        assert until(lambda: ask()[0] > 1, 20)
        effect = fault.verify()
        assert effect.shown, effect
        before = ask()[0]
        assert until(lambda: ask()[0] > before + 1, 20)
        fault.heal()
        assert abs(ask()[0]) < 1


def test_the_clock_is_right_after_the_lease_even_where_nobody_is_left_to_set_it(world: Callable[..., World], reach: Reach) -> None:
    fault = TimeSkew.build({"target": "server-0", "jump": "-1d"}, world())
    fault.apply(6)
    with telling(reach, "server-0") as ask:
        assert until(lambda: ask()[0] < -86000, 5)
        fault._skewers["server-0"].signal(signal.SIGKILL)
        assert until(lambda: abs(ask()[0]) < 1, 20)
        fault.heal()
        assert fault.absent().shown


def test_a_process_lives_on_when_whoever_skews_it_is_killed_while_it_stands(world: Callable[..., World], reach: Reach) -> None:
    main = reach.node("server-0").pid
    assert main is not None
    said, stdout = os.pipe()
    skewer = reach.popen(None, [*reach.own, "-c", STUCK, str(main)], stdout=stdout)
    os.close(stdout)
    with os.fdopen(said) as lines:
        assert lines.readline() == "held\n"
    assert state(reach, main) in "tT"
    skewer.signal(signal.SIGKILL)
    skewer.wait(10)
    assert until(lambda: state(reach, main) == "S", 10)
    fault = TimeSkew.build({"target": "server-0", "jump": "+1h"}, world())
    fault.heal()
    assert fault.absent().shown


def test_who_was_stopped_by_somebody_else_stays_so_and_is_skewed_all_the_same(world: Callable[..., World], reach: Reach) -> None:
    fault = TimeSkew.build({"target": "server-0", "jump": "+1h"}, world())
    reach.pause("server-0", 60)
    main = reach.node("server-0").pid
    assert main is not None
    fault.apply(60)
    assert fault._look(main)["skewed"]
    assert reach.is_paused("server-0")
    fault.heal()
    assert not fault._look(main)["skewed"]
    assert reach.is_paused("server-0")
    reach.resume("server-0")
    assert fault.absent().shown


def state(reach: Reach, pid: int) -> str:
    said, stdout = os.pipe()
    process = reach.popen(None, ["cat", f"/proc/{pid}/stat"], stdout=stdout)
    os.close(stdout)
    with os.fdopen(said) as lines:
        found = lines.read().rpartition(")")[2].split()[0]
    process.wait(10)
    return found


def test_a_32_bit_program_is_refused_by_name_and_one_that_begins_later_is_missed_alone(world: Callable[..., World], reach: Reach) -> None:
    fault = TimeSkew.build({"target": "server-0", "jump": "+1h"}, world())
    fault.apply(60)
    old = reach.popen("server-0", ["python3", "-c", OLD], stdin=subprocess.DEVNULL)
    main = reach.node("server-0").pid
    assert main is not None
    assert until(lambda: fault._look(main)["strange"], 20)
    fault.apply(60)
    effect = fault.verify()
    assert not effect.shown
    assert effect.detail["processes"] > 0
    assert "1 processes were missed (the process" in effect.summary
    assert "(old-program) can't be skewed)" in effect.summary
    with pytest.raises(CapabilityError, match=r"\(old-program\) in server-0 is no ordinary 64-bit program"):
        fault.probe()
    old.signal(signal.SIGKILL)
    old.wait(10)
    assert until(lambda: not fault._look(main)["strange"], 10)
    assert fault.verify().shown
    fault.heal()
    assert fault.absent().shown


def test_who_waits_by_the_wall_clock_is_refused_by_name(world: Callable[..., World], reach: Reach) -> None:
    maps = "import mmap, time; f = open('/tmp/librdkafka.so.1', 'w+b'); f.truncate(4096); m = mmap.mmap(f.fileno(), 4096); time.sleep(60)"
    process = reach.popen("server-1", ["python3", "-c", maps], stdin=subprocess.DEVNULL)
    fault = TimeSkew.build({"target": "server", "jump": "-90s"}, world())

    def is_refused() -> bool:
        try:
            fault.probe()
        except CapabilityError as error:
            return "server-1 uses librdkafka" in error.message
        return False

    assert until(is_refused, 20)
    process.signal(signal.SIGKILL)
    process.wait(10)
    assert fault.probe().summary == "server-0 (zone a), server-1 (zone b) -90 s"


POLLS = """
import sys, time
from confluent_kafka import Consumer
consumer = Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "log_level": 0})
print("up", flush=True)
for _ in sys.stdin:
    begun, used = time.monotonic(), time.process_time()
    consumer.poll(0.3)
    print(time.time(), time.monotonic() - begun, time.process_time() - used, flush=True)
"""


@pytest.mark.parametrize("offset_s", [-90, 90])
def test_librdkafka_waits_by_the_machines_clock_in_a_process_that_goes_by_a_wrong_one(offset_s: int) -> None:
    with subprocess.Popen([sys.executable, "-c", POLLS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        clock, calls = Clock(process.pid), process.stdin

        def ask() -> tuple[float, float, float]:
            calls.write("?\n")
            said, waited, used = map(float, process.stdout.readline().split())
            return said - time.time(), waited, used

        assert abs(ask()[0]) < 1
        assert not clock.waits_by_it()
        clock.skew(Skew(0, offset_s * 10**9, 0, time.time_ns() + 600 * 10**9))
        off, waited, used = ask()
        assert abs(off - offset_s) < 1
        assert 0.2 < waited < 10
        assert used < 0.2  # it waits, and does not ask again and again whether the time has come
        clock.right()
        off, waited, _ = ask()
        assert abs(off) < 1
        assert waited > 0.2
        assert not clock._spared()
        process.stdin.close()


@pytest.mark.parametrize("jump", ["50ms", "0s"])
def test_what_would_show_nothing_is_refused(world: Callable[..., World], jump: str) -> None:
    with pytest.raises(UsageError, match="shows nothing"):
        TimeSkew.build({"target": "server", "jump": jump}, world()).probe()
