from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from consistency.transactions import invented, judge, loose, names, serial, spoilt, txn

from envctl.cli.main import main
from envctl.consistency import PROPERTIES
from envctl.model.history import Operation

APPEND, REGISTER = "list-append", "rw-register"
HISTORIES = 10_000
PLANTED = {  # name → model, and the transactions, one after the other unless they say otherwise
    "garbage-read": (
        (APPEND, txn(0, "append x 1"), txn(1, "r x [1, 7]")),
        (REGISTER, txn(0, "w x 1"), txn(1, "r x 7"))),
    "duplicate-elements": ((APPEND, txn(0, "append x 1"), txn(1, "r x [1, 1]")),),
    "incompatible-order": (
        (APPEND, txn(0, "append x 1"), txn(1, "append x 2"), txn(2, "r x [1, 2]"), txn(3, "r x [2]")),
        (APPEND, txn(0, "append x 1", "append x 2"), txn(1, "r x [2, 1]")),
        (APPEND, txn(0, "append x 1", "append x 2"), txn(1, "r x [2]"))),
    "internal": (
        (APPEND, txn(0, "append x 6", "r x []")),  # Kingsbury and Alvaro (2020) found it in FaunaDB
        (APPEND, txn(0, "append x 1"), txn(1, "r x [1]", "append x 2", "r x [1]")),
        (APPEND, txn(0, "append x 1"), txn(1, "r x []", "r x [1]")),
        (APPEND, txn(0, "r x [1]", "append x 1")),
        (APPEND, txn(0, "r x [1]", "append x 1", "append x 2"), txn(1, "append x 3")),
        (REGISTER, txn(0, "w x 1"), txn(1, "r x 1", "r x null")),
        (REGISTER, txn(0, "w x 1"), txn(1, "w x 2", "r x 1")),
        (REGISTER, txn(0, "r x 1", "w x 1"))),
    "G0": (
        (APPEND, txn(0, "append x 1", "append y 1"), txn(1, "append x 2", "append y 2"), txn(2, "r x [1, 2]", "r y [2, 1]")),
        (REGISTER, txn(0, "r x null", "w x 1", "w y 1"), txn(1, "r y null", "w y 2", "w x 2"))),
    "G1a": (
        (APPEND, txn(0, "append x 1", outcome="fail"), txn(1, "append x 2"), txn(2, "r x [1]")),
        (REGISTER, txn(0, "w x 1", outcome="fail"), txn(1, "r x 1"))),
    "dirty-update": (
        (APPEND, txn(0, "append x 1", outcome="fail"), txn(1, "append x 2"), txn(2, "r x [1, 2]")),
        (REGISTER, txn(0, "w x 1", outcome="fail"), txn(1, "r x 1", "w x 2"))),
    "G1b": (
        (APPEND, txn(0, "append x 1", "append x 2"), txn(1, "r x [1]")),
        (REGISTER, txn(0, "w x 1", "w x 2"), txn(1, "r x 1"))),
    "G1c": (
        (APPEND, txn(0, "append x 1", "r y [1]"), txn(1, "append y 1", "r x [1]")),
        (REGISTER, txn(0, "w x 1", "r y 1"), txn(1, "w y 1", "r x 1"))),
    "G-single": (
        (APPEND, txn(0, "append x 1", "append y 1"), txn(1, "r x []", "r y [1]")),  # read skew: A5A of Berenson et al. (1995)
        (REGISTER, txn(0, "w x 1", "w y 1"), txn(1, "r x null", "r y 1")),
        (APPEND, txn(0, "r x []", "append x 1"), txn(1, "r x []", "append x 2"), txn(2, "r x [1, 2]")),  # lost update: P4 of Berenson et al.
        (APPEND, txn(0, "append x 1"), txn(1, "r x [1]", "append x 2"), txn(2, "r x [1]", "append x 3")),  # the same, and nobody read on
        (REGISTER, txn(0, "w x 1"), txn(1, "r x 1", "w x 2"), txn(2, "r x 1", "w x 3")),
        (REGISTER, txn(0, "r x null", "w x 2"), txn(1, "r x null", "w x 3")),
        # Kingsbury and Alvaro (2020) found these in TiDB and in Dgraph
        (APPEND, txn(9, "append x 2"), txn(8, "append x 1"), txn(0, "r x [2, 1]", "append y 5", "append x 4"), txn(1, "append x 5"), txn(2, "r x [2, 1, 5, 4]")),
        (REGISTER, txn(0, "r x 10", "r y null"), txn(1, "w y 10"), txn(2, "w x 10", "r y 10"))),
    "G2-item": (
        (APPEND, txn(0, "r x []", "append y 1"), txn(1, "r y []", "append x 1")),  # write skew: A5B of Berenson et al.
        (APPEND, txn(0, "r x []", "append y 1"), txn(1, "r y []", "append x 1"), txn(2, "r x [1]", "r y [1]")),
        (REGISTER, txn(0, "r x null", "w y 1"), txn(1, "r y null", "w x 1")),
        # long fork, which parallel snapshot isolation allows: Sovran, Power, Aguilera and Li (2011)
        (APPEND, txn(0, "append x 1"), txn(1, "append y 1"), txn(2, "r x [1]", "r y []"), txn(3, "r x []", "r y [1]")),
        (REGISTER, txn(0, "w x 1"), txn(1, "w y 1"), txn(2, "r x 1", "r y null"), txn(3, "r x null", "r y 1"))),
}
LATE = {  # of strict serializability
    "G0-realtime": ((APPEND, txn(0, "append x 1"), txn(1, "append x 2"), txn(2, "r x [2, 1]")),),
    "G1c-realtime": (
        (APPEND, txn(0, "r x [1]"), txn(1, "append x 1")),
        (REGISTER, txn(0, "r x 1"), txn(1, "w x 1")),
        (REGISTER, txn(0, "w x 1"), txn(1, "w x 2"), txn(2, "r x 2"), txn(3, "w x 3"), txn(4, "r x 4"), txn(5, "w x 4")),
        # what was read in the end must have been written after 1, by what had been read before 1 was written
        (REGISTER, txn(0, "w x 2", "w y 1", began=0, ended=5), txn(1, "r y 1", "w x 1", began=1, ended=6), txn(2, "r x 2", began=7, ended=8))),
    "G-single-realtime": (
        (APPEND, txn(0, "append x 1"), txn(1, "r x []")),
        (REGISTER, txn(0, "w x 1"), txn(1, "r x null")),
        (REGISTER, txn(0, "w x 1"), txn(1, "w x 2"), txn(2, "r x 1")),
        # nobody knows which of two concurrent writes was first, but nothing returns
        (REGISTER, txn(0, "w x 1", began=0, ended=9), txn(1, "w x 2", began=1, ended=8), txn(2, "r x 1", began=10, ended=11),
         txn(3, "r x 2", began=12, ended=13), txn(4, "r x 1", began=14, ended=15))),
    "G2-item-realtime": (
        (APPEND, txn(0, "r x [1]", "r y []", began=0, ended=10), txn(1, "append x 1", began=1, ended=11), txn(2, "append y 1", began=2, ended=3),
         txn(3, "r x []", began=4, ended=5)),),
}


@pytest.mark.parametrize(("name", "planted"), [(name, each) for name, cases in PLANTED.items() for each in cases])
def test_a_planted_anomaly_is_found_by_its_name(name, planted):
    model, *operations = planted
    finding = judge("serializable", model, *operations)
    assert finding.outcome == "fail"
    assert name in names(finding)
    assert any(each.summary.startswith(f"{name}: ") for each in finding.evidence)
    assert not serial(operations, "append" if model == APPEND else "w", strict=False)


@pytest.mark.parametrize(("name", "planted"), [(name, each) for name, cases in LATE.items() for each in cases])
def test_only_strict_serializability_looks_at_the_time(name, planted):
    model, *operations = planted
    operations.sort(key=lambda op: op.began)
    assert judge("serializable", model, *operations).outcome != "fail"
    assert names(judge("strict-serializable", model, *operations)) == {name}


def test_a_cycle_is_told_step_by_step():
    finding = judge("serializable", APPEND, txn(0, "append x 1", "append y 1"), txn(4, "r x []", "r y [1]"))
    assert finding.title == "2 transactions are not serializable: 1 G-single"
    (evidence,) = finding.evidence
    assert evidence.summary.splitlines() == [
        "G-single: T4 → T0 → T4",
        "  rw: T4 read [] of x and not the later 1, which T0 wrote",
        "  wr: T0 wrote 1 to y, which T4 read"]
    assert evidence.ids == ("4", "0")
    assert [each["dependency"] for each in evidence.detail["cycle"]] == ["rw", "wr"]


def test_what_time_says_is_told_with_the_transactions_that_say_it():
    finding = judge("strict-serializable", REGISTER, txn(0, "w x 1"), txn(1, "w x 2"), txn(2, "r x 1"))
    assert finding.evidence[0].summary.splitlines() == [
        "G-single-realtime: T2 → T1 → T2",
        "  rw: T2 read 1 of x and not the later 2, which T1 wrote (T0 had ended with 1 before T1 began, which found or wrote 2)",
        "  rt: T1 had ended before T2 began"]


def test_time_is_told_in_one_step_however_much_lies_between():
    between = [txn(1, "append y 1"), *(txn(n, f"append k{n} 1") for n in range(2, 49)), txn(49, "r y [1]")]
    finding = judge("strict-serializable", APPEND, txn(0, "append x 1"), *between, txn(50, "r x []"))
    assert finding.evidence[0].ids == ("50", "0")


def test_the_smallest_cycle_of_a_component_is_shown():
    ring = [txn(n, f"append k{n} 1", f"r k{(n + 1) % 9} [1]", *(["append c 1"] if n == 6 else ["r c [1]"] if n == 8 else [])) for n in range(9)]
    apart = [txn(9, "append a 1", "r b [1]"), txn(10, "append b 1", "r a [1]")]
    finding = judge("serializable", APPEND, *ring, *apart)
    assert sorted(each.ids for each in finding.evidence) == [("6", "8", "7"), ("9", "10")]


def test_every_name_is_among_the_evidence_before_any_comes_twice():
    garbage = [txn(n, f"r g{n} [7]") for n in range(1, 20)]
    finding = judge("serializable", APPEND, *garbage, txn(30, "append x 1", "r y [1]"), txn(31, "append y 1", "r x [1]"))
    assert [each.detail["anomaly"] for each in finding.evidence][:3] == ["garbage-read", "G1c", "garbage-read"]
    assert (len(finding.evidence), finding.total, finding.stats["anomalies"]) == (10, 20, {"garbage-read": 19, "G1c": 1})


@pytest.mark.parametrize(("model", "operations"), [
    (APPEND, (txn(0, "append x 1"), txn(1, "append x 2"))),
    (APPEND, (txn(0, "r x []"), txn(1, "append x 2", outcome="fail"))),
    (APPEND, (txn(0, "r x []", outcome="info"), txn(1, "append x 2"))),
])
def test_a_pass_says_that_there_was_nothing_to_compare(model, operations):
    finding = judge("serializable", model, *operations)
    assert finding.outcome == "pass"
    assert "nothing to compare" in finding.title


def test_a_pass_says_how_many_versions_show_their_order():
    finding = judge("serializable", REGISTER, txn(0, "w x 1"), txn(1, "w x 2"), txn(2, "r x 1"))
    assert finding.outcome == "pass"
    assert finding.title.endswith("the order of 0 of 1 pairs of versions shows")


@pytest.mark.parametrize(("model", "operations", "reason"), [
    (APPEND, (txn(0, "append x 1", "r y []"), txn(1, "append x 1", "append y 1")), "1 keys could not be judged, such as x: 1 was appended twice"),
    (REGISTER, (txn(0, "w x 1"), txn(1, "w x 1"), txn(2, "r x 1")), "1 was written twice"),
    (REGISTER, (txn(0, "w x null"), txn(1, "r x null")), "null was written twice, or is what was there first"),
])
def test_a_history_whose_values_are_not_unique_is_inconclusive(model, operations, reason):
    finding = judge("serializable", model, *operations)
    assert finding.outcome == "inconclusive"
    assert reason in finding.title


def test_an_ambiguous_key_hides_nothing_of_the_others():
    finding = judge("serializable", APPEND, txn(0, "append x 1"), txn(1, "append x 1"), txn(2, "append y 1"), txn(3, "r y [2]", "r x [1]"))
    assert (finding.outcome, names(finding)) == ("fail", {"garbage-read"})


def test_what_was_read_of_an_unknown_transaction_took_effect():
    seen = [txn(0, "append x 1", "append y 1", outcome="info"), txn(1, "r x [1]", "r y [1]")]
    assert judge("serializable", APPEND, *seen).outcome == "pass"
    torn = [txn(0, "append x 1", "append y 1", outcome="info"), txn(1, "r x [1]", "r y []")]
    assert names(judge("serializable", APPEND, *torn)) == {"G-single"}


def test_an_unknown_transaction_may_take_effect_after_all_others_or_never():
    unknown = txn(0, "append x 1", outcome="info")
    assert judge("strict-serializable", APPEND, unknown, txn(1, "append x 2"), txn(2, "r x [2]"), txn(3, "r x [2, 1]")).outcome == "pass"
    assert judge("strict-serializable", APPEND, unknown, txn(1, "append x 2"), txn(2, "r x [2]"), txn(3, "r x [2]")).outcome == "pass"


def test_values_are_those_of_json():
    assert judge("serializable", APPEND, txn(0, "append x 1"), *_told([["r", "x", [1.0]]])).outcome == "pass"
    assert names(judge("serializable", APPEND, txn(0, "append x 1"), *_told([["r", "x", [True]]]))) == {"garbage-read"}
    assert judge("serializable", APPEND, *_told([["append", "x", None]], [["r", "x", [None]]])).outcome == "pass"
    skewed = _told([["append", "x", None], ["append", "y", 1]], [["r", "x", []], ["r", "y", [1]]], [["r", "x", [None]]])
    assert names(judge("serializable", APPEND, *skewed)) == {"G-single"}
    mapping = [["append", "x", {"a": 1, "b": [2]}]]
    assert judge("serializable", APPEND, *_told(mapping, [["r", "x", [{"b": [2], "a": 1}]]])).outcome == "pass"


def _told(*transactions):
    return [Operation(n, n, "txn", None, [[f, key, None if f == "r" else value] for f, key, value in steps], steps, "ok", 2 * n, 2 * n + 1)
            for n, steps in enumerate(transactions, 1)]


@pytest.mark.parametrize(("changes", "place", "field"), [
    ({"f": "read"}, 0, "f"),
    ({"asked": None}, 0, "value"),
    ({"asked": [["r", "x"]]}, 0, "value"),
    ({"asked": [["w", "x", 1]]}, 0, "value"),
    ({"told": None}, 1, "value"),
    ({"told": [["append", "x", 2]]}, 1, "value"),
    ({"told": []}, 1, "value"),
    ({"told": [["append", "x", 1], ["r", "x", 1]], "asked": [["append", "x", 1], ["r", "x", None]]}, 1, "value"),
])
def test_what_is_no_transaction_is_named_with_its_place(changes, place, field):
    found = PROPERTIES["serializable"].models[APPEND](replace(txn(0, "append x 1"), **changes))
    assert found
    assert found[:2] == (place, field)


@pytest.mark.parametrize("strict", [False, True], ids=["serializable", "strict-serializable"])
def test_list_append_is_judged_as_by_trying_all_orders(strict):
    """Equal to the oracle in every history: reads of whole lists leave nothing to guess, and what nobody read must come last."""
    check, seen = "strict-serializable" if strict else "serializable", Counter()
    for operations in _histories("append"):
        outcome = judge(check, APPEND, *operations).outcome
        assert (outcome == "fail") == (not serial(operations, "append", strict=strict)), operations
        seen[outcome] += 1
    assert min(seen["pass"], seen["fail"]) > HISTORIES // 5


@pytest.mark.parametrize("strict", [False, True], ids=["serializable", "strict-serializable"])
def test_rw_register_never_raises_a_false_alarm(strict):
    """`fail` is always right; of what is wrong, only what no certainty contradicts may be missed, which here is little."""
    check, seen, wrong = "strict-serializable" if strict else "serializable", Counter(), 0
    for operations in _histories("w"):
        outcome, right = judge(check, REGISTER, *operations).outcome, serial(operations, "w", strict=strict)
        assert not (outcome == "fail" and right), operations
        seen[outcome] += 1
        wrong += not right
    assert min(seen["pass"], seen["fail"]) > HISTORIES // 6
    assert seen["fail"] > 0.95 * wrong


def _histories(write):
    """Half of a serial store and half without any order; some of each with one thing changed."""
    rng = random.Random(20)
    for _ in range(HISTORIES):
        operations = invented(rng, write) if rng.random() < 0.5 else loose(rng, write)
        yield spoilt(rng, operations, write) if rng.random() < 0.4 else operations


@pytest.mark.parametrize("strict", [False, True], ids=["serializable", "strict-serializable"])
@pytest.mark.parametrize(("model", "write"), [(APPEND, "append"), (REGISTER, "w")])
def test_what_a_serial_store_did_is_never_blamed(model, write, strict):
    rng = random.Random(21)
    for _ in range(2_000):
        operations = invented(rng, write)
        assert judge("strict-serializable" if strict else "serializable", model, *operations).outcome != "fail", operations


LINES = """\
{"process": 0, "type": "invoke", "f": "txn", "value": [["append", "x", 1], ["append", "y", 1]]}
{"process": 0, "type": "ok", "f": "txn", "value": [["append", "x", 1], ["append", "y", 1]]}
{"process": 1, "type": "invoke", "f": "txn", "value": [["r", "x", null], ["r", "y", null]]}
{"process": 1, "type": "ok", "f": "txn", "value": [["r", "x", X], ["r", "y", [1]]]}
"""


@pytest.mark.parametrize(("read", "code", "said"), [
    ("[1]", 0, "PASS    serializable: 2 transactions with 2 reads and 2 writes are serializable"),
    ("null", 5, "G-single: T3 → T1 → T3"),
    ("7", 2, 'h.jsonl:4: value: found [["r", "x", 7], ["r", "y", [1]]], allowed: reads that return a list'),
])
def test_a_file_is_judged_by_the_command(tmp_path, capsys, read, code, said):
    file = tmp_path / "h.jsonl"
    file.write_text(LINES.replace("X", read))
    with pytest.raises(SystemExit) as ended:
        main(["check", str(file), "--check", "serializable", "--model", APPEND])
    assert ended.value.code == code
    captured = capsys.readouterr()
    assert said in captured.out + captured.err
