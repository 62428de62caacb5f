"""A newcomer's first minutes: an empty repository, `envctl init`, a run, a change."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.cell, pytest.mark.engines, pytest.mark.slow]


def envctl(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "envctl", *arguments]
    return subprocess.run(argv, cwd=root, text=True, capture_output=True, timeout=240, check=False)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "mine"
    root.mkdir()
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=root, check=True)
    return root


def started(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_empty_repository_gets_a_system_whose_scenario_passes(repository: Path) -> None:
    assert envctl(repository, "init").returncode == 0
    done = envctl(repository, "ci", "--scenario", "hello")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in done.stdout
    assert envctl(repository, "down").returncode == 6


def test_a_change_of_one_service_replaces_only_that_service(repository: Path) -> None:
    envctl(repository, "init")
    try:
        first = started(envctl(repository, "up", "--full", "--output", "json"))
        source = next((repository / "stacks" / "hello" / "app").rglob("*.py"))
        source.write_text(source.read_text() + "\n# a change\n")
        second = started(envctl(repository, "up", "--full", "--output", "json"))
        third = started(envctl(repository, "up", "--full", "--output", "json"))
    finally:
        gone = envctl(repository, "down")
    assert len(first["started"]) > 1
    assert len(second["started"]) == 1
    assert not second["unchanged"]
    assert third["unchanged"]
    assert gone.returncode == 0, gone.stderr
