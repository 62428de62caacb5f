"""`envctl faults`, and the table that the documentation has from it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from envctl import plugins
from envctl.cli.faults import faults

TABLE = Path(__file__).parents[2] / "docs" / "fault-kinds.md"


def said(*arguments: str) -> str:
    done = CliRunner().invoke(faults, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_the_documentation_has_the_table_that_the_code_gives() -> None:
    assert TABLE.read_text(encoding="utf-8") == said("--output", "markdown"), "envctl faults --output markdown > docs/fault-kinds.md"


def test_each_kind_says_how_it_acts_and_what_proves_it_and_where_it_works() -> None:
    found = {kind["name"]: kind for kind in json.loads(said("--output", "json"))["faults"]}
    assert found.keys() == set(plugins.names("envctl.faults"))
    for name, kind in found.items():
        assert kind["mechanism"], name
        assert kind["proof"], name
        assert kind["lacks"].keys() == set(plugins.names("envctl.substrates")), name
        needed = getattr(plugins.load("envctl.faults", name), "powers", frozenset())
        assert set(kind["lacks"]["embedded"]) == needed - plugins.load("envctl.substrates", "embedded").powers
