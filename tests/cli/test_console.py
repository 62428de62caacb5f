"""Progress and errors hold nothing that a service could have put there to steer the terminal or the CI system."""

from __future__ import annotations

import io
import os

import pytest

from envctl.cli.console import Console
from envctl.cli.main import explain
from envctl.errors import ResourceError

HOSTILE = "\x1b[2J\u202e\n::stop-commands::x"
SHOWN = r"\x1b[2J\u202e\n::stop-commands::x"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 0


def test_a_step_s_texts_and_notes_are_one_inert_line_each() -> None:
    out = io.StringIO()
    console = Console(out)
    with console.step("run") as line:
        line.note(HOSTILE)
        line.done(HOSTILE)
    console.above("::error::no")
    note, done, above = out.getvalue().splitlines()
    assert note == SHOWN
    assert SHOWN in done
    assert above == r"\x3a:error::no"


def test_a_terminal_sees_only_envctl_s_own_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((80, 24)))
    out = Screen()
    with Console(out).step("run") as line:
        line.update(HOSTILE)
        line.note(f"✘ {HOSTILE}")
    assert "\x1b[2J" not in out.getvalue()
    assert "\u202e" not in out.getvalue()
    assert "\x1b[31m✘" in out.getvalue()


def test_an_error_keeps_its_lines_and_each_is_inert(capsys: pytest.CaptureFixture[str]) -> None:
    explain(ResourceError("web-0 did not start\n  \x1b[31mboom\n::error::no", hint="look\x07"))
    assert capsys.readouterr().err.splitlines() == ["error: web-0 did not start", r"  \x1b[31mboom", r"\x3a:error::no", r"hint: look\x07"]
