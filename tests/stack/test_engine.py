"""How the engine is called."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from envctl.errors import CancelledError
from envctl.stack.engine import call
from envctl.waiting import unheard, until

DEAF = """#!/bin/sh
trap '' INT
echo $$ > "$PLACE/pid"
kill -INT $PPID
while :; do sleep 0.05; done
"""

ENGINE = """#!/bin/sh
trap 'echo told > "$PLACE/told"; exit 1' INT
echo up > "$PLACE/up"
while :; do sleep 0.05; done
"""


def called(engine: Path) -> None:
    state: Any = SimpleNamespace(stack="s", config=engine.parent / "s.yaml")
    provider: Any = SimpleNamespace(tally=SimpleNamespace(failures=[]))
    with unheard() as hear:
        call(engine, state, [], provider, variables={"PATH": "/usr/bin:/bin", "PLACE": str(engine.parent)}, cwd=engine.parent, hear=hear)


def test_an_interrupt_that_comes_while_the_engine_is_being_started_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, started = tmp_path / "engine", subprocess.Popen
    engine.write_text(ENGINE)
    engine.chmod(0o755)

    def interrupted(*words: Any, **options: Any) -> subprocess.Popen[str]:
        process = started(*words, **options)
        assert until((tmp_path / "up").exists, 30)
        signal.raise_signal(signal.SIGINT)
        return process

    monkeypatch.setattr("envctl.stack.engine.subprocess.Popen", interrupted)
    with pytest.raises(CancelledError):
        called(engine)
    assert (tmp_path / "told").exists()


def test_an_engine_that_does_not_end_when_it_is_told_to_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envctl.stack.engine.CANCEL_S", 0.5)
    engine = tmp_path / "engine"
    engine.write_text(DEAF)
    engine.chmod(0o755)
    with pytest.raises(CancelledError):
        called(engine)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_program_that_nobody_waits_for_any_more_keeps_no_process_from_ending() -> None:
    waits = "import threading; from envctl.stack.engine import Threads; Threads().submit(threading.Event().wait); print(Threads().submit(max, 1, 2).result(30))"
    done = subprocess.run([sys.executable, "-c", waits], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "2\n"
