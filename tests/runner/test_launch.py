"""What is told of a runner that left no events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from envctl.errors import Exit
from envctl.runner.launch import why
from envctl.substrates.base import LOST


@pytest.mark.parametrize(("status", "said"), [
    (LOST, "the connection to the run was lost before its first event"), (137, "the runner was killed before its first event (status 137)"), (3, "the runner ended with status 3"),
])
def test_a_runner_that_left_nothing_is_told_by_its_status(tmp_path: Path, status: int, said: str) -> None:
    (tmp_path / "runner.log").write_text("its last words\n")
    assert why(tmp_path, status).message == f"{said}\nits last words"


def test_the_error_that_a_runner_left_goes_before_its_status(tmp_path: Path) -> None:
    (tmp_path / "error.json").write_text(json.dumps({"message": "the database is away", "hint": "", "exit_code": 3}))
    error = why(tmp_path, LOST)
    assert (error.message, error.exit_code) == ("the database is away", Exit(3))
