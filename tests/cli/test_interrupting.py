"""Ctrl-C at any instant of a command's first moments: it ends quietly, with the exit code of whatever is cancelled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from envctl import __main__ as entry
from envctl.errors import Exit
from envctl.waiting import until

ROOT = Path(__file__).parents[2]
TELLS_WHEN_IT_ANSWERS = """
import signal
from envctl.__main__ import main
real = signal.signal
def told(*given):
    signal.signal = real
    real(*given)
    print("answers", flush=True)
signal.signal = told
main()
"""


def interrupted(argv: list[str], after_ms: int, *, once_it_answers: bool) -> tuple[int, str]:
    """How a command ends, and what it says, that gets SIGINT as bash sends it: to all of its process group."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = subprocess.Popen(
        [sys.executable, *argv], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    assert command.stdout is not None
    if once_it_answers:
        assert command.stdout.readline() == "answers\n"
    if not until(lambda: command.poll() is not None, after_ms / 1000, poll_s=0.005):
        os.killpg(command.pid, signal.SIGINT)
    said = command.communicate(timeout=60)[1]
    return command.returncode, said


@pytest.mark.parametrize("after_ms", range(0, 201, 10))
def test_an_interrupt_is_answered_from_the_first_line_on(after_ms: int) -> None:
    status, said = interrupted(["-c", TELLS_WHEN_IT_ANSWERS, "plan", "--full"], after_ms, once_it_answers=True)
    assert (status, said) in ((8, "\ncancelled\n"), (0, ""))


def test_an_interrupt_of_the_making_of_a_class_is_one() -> None:
    program = (
        "import envctl.cli.main\nfrom envctl.__main__ import main\n"
        "class Field:\n def __set_name__(self, *_):\n  raise KeyboardInterrupt\n"
        "envctl.cli.main.main = lambda: type('Made', (), {'field': Field()})\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (8, "\ncancelled\n")


@pytest.mark.parametrize("after_ms", range(0, 201, 20))
def test_only_the_start_of_python_itself_may_trace_an_interrupt(after_ms: int) -> None:
    status, said = interrupted(["-m", "envctl", "plan", "--full"], after_ms, once_it_answers=False)
    assert status in (8, 0, -signal.SIGINT, 1)
    assert "cancelled" in said or status != 8
    assert "envctl/cli" not in said


def test_an_interrupt_that_python_could_only_print_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        entry._again(SimpleNamespace(exc_type=KeyboardInterrupt))  # type: ignore[arg-type]
        assert until(lambda: bool(came), 5)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_exit_code_of_an_early_end_is_that_of_a_cancelled_command() -> None:
    assert Exit.CANCELLED == entry.CANCELLED


def test_a_reader_that_has_gone_is_no_failure_of_envctl() -> None:
    read, write = os.pipe()
    os.close(read)
    unread = subprocess.run([sys.executable, "-m", "envctl", "schema", "topology"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (unread.returncode, unread.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_command_without_an_output_does_its_work() -> None:
    unheard = subprocess.run(["sh", "-c", 'exec "$0" -m envctl schema topology >&-', sys.executable], cwd=ROOT, stderr=subprocess.PIPE, check=False)
    assert (unheard.returncode, unheard.stderr) == (0, b"")
