"""Which scenarios `envctl ci` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from envctl.cli.ci import _files
from envctl.errors import UsageError
from envctl.spec import load_project

PROJECT = load_project(Path(__file__).parents[1] / "spec/system")


def names(asked: tuple[str, ...] = (), suite: str = "pr") -> list[str]:
    return [file.stem for file in _files(PROJECT, asked, suite)]


def test_a_suite_repeats_its_scenarios_as_the_project_says() -> None:
    assert names(suite="nightly") == ["rush"] * 3


def test_a_scenario_that_is_named_runs_once_whatever_the_suite_says() -> None:
    assert names(("rush",), suite="nightly") == ["rush"]


def test_a_suite_nobody_belongs_to_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="no scenario belongs to the suite 'weekly'"):
        names(suite="weekly")
