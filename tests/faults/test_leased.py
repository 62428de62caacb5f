"""Processes beside the nodes that say nothing, or do not end."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from envctl.errors import DeadlineError, ResourceError
from envctl.faults import leased
from envctl.faults.leased import Leased, asked


class Process:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.poll = process, process.poll

    def wait(self, timeout_s: float) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise DeadlineError("it lives") from error

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


class Machine:
    """A reach beside whose nodes nothing but one program ever runs."""

    own = (sys.executable, "-c", "import time; time.sleep(600)")

    def __init__(self) -> None:
        self.begun: list[subprocess.Popen[bytes]] = []

    def popen(self, _: object, argv: Any, **streams: Any) -> Process:
        self.begun.append(subprocess.Popen(argv, **streams))
        return Process(self.begun[-1])


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leased, "ASKED_S", 0.3)
    monkeypatch.setattr(leased, "BEGUN_S", 0.3)


def test_one_that_never_says_that_it_acts_is_given_up_and_killed() -> None:
    machine: Any = Machine()
    there = Leased(machine, "envctl.faults.programs.skewer", 1)
    with pytest.raises(ResourceError, match=r"^envctl\.faults\.programs\.skewer does not answer"):
        there.begun()
    with pytest.raises(ResourceError, match="does not answer"):
        there.renew(8)
    with pytest.raises(ResourceError, match="does not end"):
        there.end()
    assert machine.begun[0].wait(10)


def test_one_that_is_asked_and_does_not_end_is_given_up_and_killed() -> None:
    machine: Any = Machine()
    with pytest.raises(ResourceError, match=r"^envctl\.faults\.programs\.skewer does not end"):
        asked(machine, "envctl.faults.programs.skewer", 1)
    assert machine.begun[0].wait(10)
