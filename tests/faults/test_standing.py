"""A process that is held for a moment, whatever else befalls it meanwhile."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from envctl.faults.programs.standing import while_standing
from envctl.waiting import until

LIVES = """
import os, signal, threading, time
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"x"))
threading.Thread(target=lambda: [time.sleep(0.001) for _ in iter(int, 1)], daemon=True).start()
os.write(1, b"x")
while True: time.sleep(0.001)
"""


@pytest.fixture  # a child of ours is told by its number only: whoever asks `Popen` whether it lives takes its being held for its end
def living() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", LIVES], stdout=subprocess.PIPE)
    assert says(process)
    yield process
    process.kill()
    process.wait()
    assert process.stdout
    process.stdout.close()


def says(process: subprocess.Popen[bytes]) -> bool:
    assert process.stdout
    return bool(select.select([process.stdout], [], [], 20)[0] and os.read(process.stdout.fileno(), 1))


def states(pid: int) -> set[str]:
    return {(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()}


def test_it_stands_with_all_its_threads_goes_on_and_misses_no_signal(living: subprocess.Popen[bytes]) -> None:
    over, held = threading.Event(), 0

    def hold() -> None:
        nonlocal held
        while not over.is_set():
            held += while_standing(living.pid, lambda: states(living.pid) == {"t"}, 20)

    holding = threading.Thread(target=hold)
    holding.start()
    try:
        for number in range(100):
            os.kill(living.pid, signal.SIGUSR1)
            assert says(living)
            assert until(lambda number=number: held > number or not holding.is_alive(), 20)  # type: ignore[misc]
            assert holding.is_alive()
    finally:
        over.set()
        holding.join()
    assert until(lambda: "t" not in states(living.pid), 20)


@pytest.mark.parametrize("before", [signal.SIGSTOP, signal.SIGCONT])
@pytest.mark.parametrize("meanwhile", [signal.SIGSTOP, signal.SIGCONT])
def test_whoever_stops_it_or_lets_it_go_on_meanwhile_has_his_way_afterwards(
    living: subprocess.Popen[bytes], before: signal.Signals, meanwhile: signal.Signals,
) -> None:
    def tell() -> bool:
        os.kill(living.pid, meanwhile)
        return states(living.pid) == {"t"}

    os.kill(living.pid, before)
    assert until(lambda: (states(living.pid) == {"T"}) is (before is signal.SIGSTOP), 20)
    assert while_standing(living.pid, tell, 20)
    assert until(lambda: (states(living.pid) == {"T"}) is (meanwhile is signal.SIGSTOP), 20)


def test_one_that_is_killed_meanwhile_dies(living: subprocess.Popen[bytes]) -> None:
    while_standing(living.pid, lambda: os.kill(living.pid, signal.SIGKILL) is None, 20)
    assert living.wait(20) == -signal.SIGKILL
