"""A hostile node reads, writes and signals nothing outside, whoever runs envctl."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

import envctl

HERE = Path(__file__).parent
NOBODY = 65534

pytestmark = pytest.mark.cell


def assert_harmless(outcome: dict[str, object]) -> None:
    assert outcome.get("able") == ["data", "tmp", "usr", "port 80"], outcome
    assert outcome["managed"] == []
    assert outcome["outside_lives"] is True
    assert outcome["secret"] == "secret"
    assert (outcome["victim_starts"], outcome["victim_state"]) == (1, "ready")


def test_a_hostile_node_reads_writes_and_signals_nothing_outside(tmp_path: Path) -> None:
    assert_harmless(runpy.run_path(str(HERE / "hostile_drive.py"))["drive"](tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="the test above ran as an ordinary user already")
def test_a_hostile_node_is_as_harmless_when_an_ordinary_user_runs_envctl(tmp_path_factory: pytest.TempPathFactory) -> None:
    python = shutil.which("python3", path="/usr/bin")
    assert python, "an ordinary user needs an interpreter that is readable: install python3"
    place = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    try:
        shutil.copytree(Path(envctl.__file__).parent, place / "envctl", ignore=shutil.ignore_patterns("__pycache__"))
        for script in HERE.glob("hostile*.py"):
            shutil.copy(script, place)
        (place / "work").mkdir()
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(place)], check=True)
        done = subprocess.run(
            ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", python, "hostile_drive.py", str(place / "work")],
            cwd=place, env={"HOME": str(place), "PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=120, check=False,
        )
        assert done.returncode == 0, done.stderr
        assert_harmless(json.loads(done.stdout))
    finally:
        shutil.rmtree(place)
