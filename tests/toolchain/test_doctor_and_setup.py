from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from envctl.cli.doctor import doctor
from envctl.cli.setup import setup
from envctl.errors import ResourceError
from envctl.toolchain import examination, find
from envctl.toolchain.examination import Fact, can_run
from envctl.toolchain.lookup import PROGRAMS


def test_a_note_does_not_stop_environments_and_a_lack_does() -> None:
    assert can_run((Fact("limits", "note", "none"), Fact("system", "ok", "fine")))
    assert not can_run((Fact("limits", "note", "none"), Fact("pulumi", "missing", "none")))


@pytest.mark.cell
def test_doctor_finds_everything_on_a_machine_that_was_set_up() -> None:
    result = CliRunner().invoke(doctor, ["--output", "json"])
    answer = json.loads(result.stdout)
    facts = {fact["topic"]: fact for fact in answer["facts"]}
    assert (answer["can_run"], result.exit_code) == (True, 0), [fact for fact in answer["facts"] if fact["state"] == "missing"]
    assert set(PROGRAMS) <= set(facts)
    assert facts["redis"]["found"].startswith(find("redis").version)
    assert " by HTB" in facts["shaping"]["found"]


@pytest.mark.parametrize(("answers", "state", "found"), [
    (('{"netem": true, "htb": true}', "queue"), "ok", "latency by netem, reorder and corrupt by a queue of netfilter (queue), bandwidth by HTB"),
    (('{"netem": false, "htb": true}', "NFQUEUE"), "ok", "latency by a queue of netfilter (NFQUEUE), reorder and corrupt by "),
    (('{"netem": true, "htb": false}', "None"), "note", "latency by netem, no reorder and corrupt, no bandwidth"),
    (("", ""), "note", "no latency, no reorder and corrupt, no bandwidth"),
])
def test_doctor_says_by_which_means_links_can_be_shaped(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[str, str], state: str, found: str,
) -> None:
    said = iter(answers)
    monkeypatch.setattr(examination, "answer", lambda _command: (next(said), ""))
    fact = examination._shaping()
    assert (fact.state, fact.found[: len(found)]) == (state, found)
    assert bool(fact.step) == (state == "note")


def test_doctor_names_each_missing_tool_and_what_to_do(bare: Path) -> None:
    result = CliRunner().invoke(doctor, ["--output", "json"])
    facts = {fact["topic"]: fact for fact in json.loads(result.stdout)["facts"]}
    assert result.exit_code == 4
    for name in ("pulumi", "redis", "kafka", "java"):
        assert facts[name]["state"] == "missing"
        assert facts[name]["step"]
    assert "package manager" in facts["redis"]["step"]  # there is no apt-get on this PATH


def test_doctor_without_util_linux_says_so_and_prints_the_step(bare: Path) -> None:
    result = CliRunner().invoke(doctor)
    assert result.exit_code == 4
    assert "✗ namespaces    the program `unshare` is missing\n" in result.stdout
    assert "→ install the package `util-linux`\n" in result.stdout
    assert result.stdout.endswith("environments can run here: not yet, see namespaces, " + ", ".join(_missing(result.stdout)) + "\n")


def _missing(text: str) -> list[str]:
    marked = [line.split()[1] for line in text.splitlines() if line.startswith("✗")]
    return [topic for topic in marked if topic != "namespaces"]


def test_setup_says_in_plain_lines_what_is_ready(keep: Callable[..., Path]) -> None:
    keep("kafka", "4.1.1")
    result = CliRunner().invoke(setup, ["kafka", "kafka@4"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.count("4.1.1 ready (cache") == 2


def test_setup_of_what_cannot_be_got_is_an_error_with_the_reason(bare: Path) -> None:
    result = CliRunner().invoke(setup, ["redis"])
    assert isinstance(result.exception, ResourceError)
    assert "apt-get is not on this machine" in result.exception.message
    assert "redis     failed" in result.stderr
