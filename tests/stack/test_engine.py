"""How the engine is called."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from envctl.errors import CancelledError
from envctl.stack.engine import call
from envctl.waiting import until

ENGINE = """#!/bin/sh
trap 'echo told > "$PLACE/told"; exit 1' INT
echo up > "$PLACE/up"
while :; do sleep 0.05; done
"""


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
    state: Any = SimpleNamespace(stack="s", config=tmp_path / "s.yaml")
    provider: Any = SimpleNamespace(tally=SimpleNamespace(failures=[]))
    with pytest.raises(CancelledError):
        call(engine, state, [], provider, variables={"PATH": "/usr/bin:/bin", "PLACE": str(tmp_path)}, cwd=tmp_path)
    assert (tmp_path / "told").exists()
