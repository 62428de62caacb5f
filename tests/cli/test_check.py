"""`envctl check` on history files."""

from __future__ import annotations

import json

import pytest

from envctl.cli.main import main

GOOD = ("0 invoke write 1", "0 ok write 1", "1 invoke read", "1 ok read 1")
STALE = (*GOOD, "0 invoke write 2", "0 ok write 2", "1 invoke read", "1 ok read 1")
LIST = ("0 invoke append 1", "0 ok append", "1 invoke read", "1 ok read [1]")


@pytest.fixture
def history(tmp_path):
    """Writes lines such as `0 ok read 1` as a history and returns its path."""

    def write(*lines):
        path = tmp_path / "history.jsonl"
        texts = []
        for line in lines:
            process, kind, f, *value = line.split(maxsplit=3)
            texts.append(json.dumps({"process": int(process), "type": kind, "f": f, "key": "x", "value": json.loads(value[0]) if value else None}))
        path.write_text("\n".join(texts) + "\n")
        return path

    return write


def checked(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["check", *map(str, arguments)])
    return ended.value.code


def test_a_right_history_exits_0_and_says_what_was_checked(history, capsys):
    assert checked(history(*GOOD), "--check", "linearizable") == 0
    assert capsys.readouterr().out == "PASS    linearizable: 2 operations on 1 keys are linearizable (register)\n"


def test_a_wrong_one_exits_5_and_shows_where(history, capsys):
    assert checked(history(*STALE), "--check", "linearizable") == 5
    assert capsys.readouterr().out.splitlines() == [
        "FAIL    linearizable: 1 of 1 keys can't be linearized (register)",
        '          key "x": read → 1 by 1 (lines 7–8) has no place',
        "          possible before it: 2",
        "          under way meanwhile: nothing",
    ]


def test_one_that_the_budget_leaves_open_exits_7(history, capsys):
    assert checked(history(*GOOD), "--check", "linearizable", "--budget", 1) == 7
    assert capsys.readouterr().out.startswith("INCONCLUSIVE linearizable: 1 of 1 keys would take more than 1 states")


def test_another_model_is_taken_by_name(history, capsys):
    assert checked(history(*LIST), "--check", "linearizable", "--model", "append-list") == 0
    assert capsys.readouterr().out.endswith("(append-list)\n")


def test_json_is_the_versioned_verdict_and_nothing_else(history, capsys):
    assert checked(history(*STALE), "--check", "linearizable", "--output", "json") == 5
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["format"], verdict["outcome"]) == ("verdict/v1", "fail")
    evidence, = verdict["findings"][0]["evidence"]
    assert (evidence["detail"]["key"], evidence["detail"]["prefix"], evidence["detail"]["states"]) == ("x", 8, ["2"])


def test_what_a_history_holds_can_not_steer_the_terminal(history, capsys):
    assert checked(history("0 invoke read", '0 ok read "\\u001b[2J"'), "--check", "linearizable") == 5
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "words"), [
    (("--check", "linearisable"), "no check is called 'linearisable'\nhint: did you mean 'linearizable'?"),
    (("--check", "linearizable", "--model", "registre"), "no model is called 'registre'\nhint: did you mean 'register'?"),
    (("--check", "linearizable", "--model", "set"), "1: f: found 'write'; allowed for a set: add, read"),
    (("--check", "linearizable", "--budget", "0"), "0 is not in the range"),
    ((), "Missing option '--check'"),
])
def test_what_can_not_be_checked_exits_2_and_says_why(history, capsys, arguments, words):
    assert checked(history(*GOOD), *arguments) == 2
    assert words in capsys.readouterr().err


def test_a_file_that_is_wrong_exits_2_with_every_problem(history, capsys):
    assert checked(history("0 invoke cas 1", "1 ok read", "0 fail cas"), "--check", "linearizable") == 2
    err = capsys.readouterr().err
    assert "2 problems found" in err
    assert "history.jsonl:1: value: found 1, allowed for 'cas': [old, new]" in err
    assert "history.jsonl:2: process: 1 has nothing to complete" in err


def test_a_file_that_is_not_there_exits_2(tmp_path, capsys):
    assert checked(tmp_path / "none.jsonl", "--check", "linearizable") == 2
    assert "none.jsonl" in capsys.readouterr().err
