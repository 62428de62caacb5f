"""Being told to end, and when it is heard."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from envctl.waiting import unheard


def test_an_interrupt_is_heard_when_it_may_be() -> None:
    reached = []
    with unheard() as hear:
        signal.raise_signal(signal.SIGINT)
        reached.append("begun")
        with pytest.raises(KeyboardInterrupt):
            hear()
        hear()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert reached == ["begun"]


def test_an_interrupt_is_heard_at_the_end_at_the_latest() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), unheard():
        signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == (signal.default_int_handler, before)


TAKES_BACK = """
import signal
from contextlib import ExitStack
from envctl.waiting import end_when_told

def take_back():
    print("begun", flush=True)
    input()
    print("done", flush=True)

end_when_told(143)
with ExitStack() as undo:
    undo.callback(take_back)
    print("up", flush=True)
    signal.pause()
"""


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGHUP), (signal.SIGHUP, signal.SIGTERM)])
def test_what_is_taken_back_is_taken_back_to_its_end_whatever_else_is_told_meanwhile(first: signal.Signals, second: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", TAKES_BACK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        process.send_signal(first)
        assert process.stdout.readline() == "begun\n"
        process.send_signal(second)
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stdout.readline() == "done\n"
        assert process.wait(20) == 143
