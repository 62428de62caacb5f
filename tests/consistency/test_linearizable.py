"""Linearizability: known examples, planted anomalies, what a failure tells, what the budget leaves open."""

from __future__ import annotations

from random import Random

import pytest
from consistency import oracle

from envctl.consistency import PROPERTIES
from envctl.model.history import History, Operation

BUDGET = 100_000


def history(*lines):
    """Lines such as `0 write 1`, `0 ok`, `1 read`, `1 ok 2`, `2 info`: process, then what it invokes or how that ends; of the key `x`, or of `x:read`."""
    begun, found = {}, []
    for place, (process, word, *rest) in enumerate((line if isinstance(line, tuple) else line.split() for line in lines), 1):
        value = eval(" ".join(rest)) if rest else None
        if word not in ("ok", "fail", "info"):
            key, f = word.split(":") if ":" in word else ("x", word)
            begun[process] = (place, key, f, value)
        else:
            began, key, f, asked = begun.pop(process)
            found.append(Operation(began, process, f, key, asked, value, word, began, None if word == "info" else place))
    found += [Operation(began, process, f, key, asked, None, "info", began, None) for process, (began, key, f, asked) in begun.items()]
    return History(sorted(found, key=lambda each: each.began))


def judged(model, *lines, budget=BUDGET):
    finding, = PROPERTIES["linearizable"].judge(history(*lines), model, budget)
    return finding


# --- examples of the literature ---------------------------------------------------------------------------------------


def test_reads_that_overlap_a_write_may_see_it_or_not_but_never_go_back():
    """The new-old inversion, which atomic registers exclude (Lamport, On interprocess communication, 1986) and Herlihy and Wing's definition with them."""
    begin = ("A write 0", "A ok", "B write 1")
    assert judged("register", *begin, "C read", "C ok 1", "B ok", "A read", "A ok 1").outcome == "pass"
    assert judged("register", *begin, "C read", "C ok 0", "A read", "A ok 1", "B ok").outcome == "pass"
    assert judged("register", *begin, "C read", "C ok 1", "A read", "A ok 0", "B ok").outcome == "fail"


def test_a_pending_write_is_completed_or_taken_away():
    """Herlihy and Wing's definition: some responses may be added, what then still lacks one is left out."""
    assert judged("register", "0 write 0", "0 ok", "1 write 1", "2 read", "2 ok 0", "2 read", "2 ok 1").outcome == "pass"
    assert judged("register", "0 write 0", "0 ok", "1 write 1", "2 read", "2 ok 0", "2 read", "2 ok 0").outcome == "pass"
    assert judged("register", "0 write 0", "0 ok", "1 write 1", "2 read", "2 ok 1", "2 read", "2 ok 0").outcome == "fail"


def test_a_write_that_crashed_may_have_happened():
    """Of the documentation of Knossos."""
    assert judged("register", "0 read", "1 write 3", "1 info", "0 ok 3").outcome == "pass"


def test_a_write_that_failed_can_not_be_read():
    """The minimal failing case of the documentation of Knossos, from RethinkDB."""
    lines = ("0 write 0", "0 ok", "1 read", "2 write 4", "1 ok 3", "2 ok", "3 read", "3 ok 4")
    found = judged("register", *lines)
    assert found.outcome == "fail"
    detail = found.evidence[0].detail
    assert (detail["operation"]["index"], detail["prefix"], detail["states"]) == (3, 5, ("0", "4"))
    assert judged("register", "4 write 3", "4 fail", *lines).outcome == "fail"
    assert judged("register", "4 write 3", "4 info", *lines).outcome == "pass"


def test_two_objects_that_are_linearizable_are_so_together():
    """Locality, Herlihy and Wing's theorem 1: nothing but each object's own order counts."""
    assert judged("register", "0 x:write 1", "1 y:write 1", "0 ok", "1 ok", "0 y:read", "0 ok 1", "1 x:read", "1 ok 1").outcome == "pass"
    found = judged("register", "0 x:write 1", "1 y:write 1", "0 ok", "1 ok", "0 y:read", "0 ok None", "1 x:read", "1 ok 1")
    assert (found.outcome, found.total, found.evidence[0].detail["key"]) == ("fail", 1, "y")


# --- planted anomalies ------------------------------------------------------------------------------------------------

ANOMALIES = {
    "stale read": ("register", ("0 write 1", "0 ok", "0 write 2", "0 ok", "1 read", "1 ok 1"), 6),
    "lost update": ("register", ("0 write 1", "0 ok", "1 cas [1, 2]", "2 cas [1, 3]", "1 ok", "2 ok"), 6),
    "value out of nowhere": ("register", ("0 write 1", "0 ok", "1 read", "1 ok 7"), 4),
    "true for one": ("register", ("0 write 1", "0 ok", "1 read", "1 ok True"), 4),
    "unknown write used twice": ("register", ("0 write 1", "0 info", "1 read", "1 ok 1", "2 write 2", "2 ok", "1 read", "1 ok 1", "2 write 3", "2 ok", "1 read", "1 ok 1"), 8),
    "read before it was asked for": ("register", ("1 read", "1 ok 1", "0 write 1", "0 ok"), 2),
    "lost increment": ("counter", ("0 add 1", "1 add 1", "0 ok", "1 ok", "0 read", "0 ok 1"), 6),
    "increment counted twice": ("counter", ("0 add 1", "0 info", "1 read", "1 ok 2"), 4),
    "falling counter": ("counter", ("0 add 2", "1 read", "1 ok 2", "2 read", "2 ok 0", "0 ok"), 5),
    "lost element": ("set", ("0 add 1", "0 ok", "0 add 2", "0 ok", "1 read", "1 ok [2]"), 6),
    "element that came back": ("set", ("0 add 1", "1 read", "1 ok [1]", "1 read", "1 ok []", "0 ok"), 5),
    "element twice": ("set", ("0 add 1", "0 ok", "1 read", "1 ok [1, 1]"), 4),
    "two orders": ("append-list", ("0 append 1", "1 append 2", "0 ok", "1 ok", "2 read", "2 ok [1, 2]", "2 read", "2 ok [2, 1]"), 8),
    "append against time": ("append-list", ("0 append 1", "0 ok", "0 append 2", "0 ok", "1 read", "1 ok [2, 1]"), 6),
    "append twice": ("append-list", ("0 append 1", "0 info", "1 read", "1 ok [1, 1]"), 4),
}


@pytest.mark.parametrize("name", ANOMALIES)
def test_a_planted_anomaly_fails_at_its_place(name):
    model, lines, place = ANOMALIES[name]
    found = judged(model, *lines)
    assert (found.outcome, found.evidence[0].detail["prefix"]) == ("fail", place)
    assert judged(model, *lines[:place - 1]).outcome != "fail"


RIGHT = {
    "unknown write over another one": ("register", ("1 write 4", "0 write 5", "0 info", "2 cas [5, 7]", "2 ok", "2 read", "2 ok 7", "1 ok", "2 read", "2 ok 7")),
    "unknown write of what is known": ("register", ("0 write 1", "0 info", "1 write 1", "2 read", "2 ok 1", "1 ok", "3 write 2", "3 ok", "2 read", "2 ok 1")),
    "chain of unknown ones": ("register", ("0 cas [2, 3]", "0 info", "1 cas [1, 2]", "1 info", "2 write 1", "2 info", "3 read", "3 ok 3")),
    "write that nobody sees": ("register", ("0 write 1", "1 write 2", "2 write 3", "0 ok", "3 read", "3 ok 3", "1 ok", "3 read", "3 ok 3", "2 ok")),
    "as many unknown ones as are needed": ("register", ("0 write 1", "0 info", "1 write 1", "1 info", "2 read", "2 ok 1", "3 write 2", "3 ok", "2 read", "2 ok 1")),
    "unknown one much later": ("counter", ("0 add 5", "0 info", "1 add 1", "1 ok", "2 read", "2 ok 1", "2 read", "2 ok 6")),
    "unknown append between known ones": ("append-list", ("0 append 1", "0 info", "1 append 2", "2 append 3", "1 ok", "2 ok", "3 read", "3 ok [3, 1, 2]")),
    "same element by two": ("set", ("0 add 1", "0 ok", "1 add 1", "2 read", "2 ok [1]", "1 ok", "2 read", "2 ok [1]")),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_only_looks_like_an_anomaly_passes(name):
    model, lines = RIGHT[name]
    assert judged(model, *lines).outcome == "pass"


@pytest.mark.parametrize("model", oracle.INITIAL)
def test_one_key_with_an_anomaly_is_found_among_many_without(model):
    _, lines, _ = next(each for each in ANOMALIES.values() if each[0] == model)
    rng, found = Random(model), []
    for key in range(50):
        operations = oracle.acted(rng, model, 40)
        found += [Operation(each.index, f"{key}.{each.process}", each.f, key, each.asked, each.told, each.outcome, each.began, each.ended) for each in operations]
    good = History(found)
    assert PROPERTIES["linearizable"].judge(good, model, BUDGET)[0].outcome == "pass"
    finding, = PROPERTIES["linearizable"].judge(History([*found, *history(*lines).operations]), model, BUDGET)
    assert (finding.outcome, finding.total, finding.evidence[0].detail["key"]) == ("fail", 1, "x")
    assert finding.title.startswith("1 of 51 keys can't be linearized")


# --- what it says -----------------------------------------------------------------------------------------------------


def test_a_failure_tells_the_operation_what_was_possible_and_what_was_under_way():
    found = judged("register", "0 write 1", "0 ok", "3 cas [1, 2]", "1 read", "2 write 4", "1 ok 3", "2 ok", "1 read", "1 ok 4")
    evidence, = found.evidence
    assert evidence.summary.splitlines() == [
        'key "x": read → 3 by 1 (lines 4–6) has no place',
        "possible before it: 1, 2, 4",
        "under way meanwhile: cas [1, 2] by 3 (line 3, unknown), write 4 by 2 (lines 5–7)",
    ]
    assert evidence.ids == ("4",)
    assert [each["f"] for each in evidence.detail["concurrent"]] == ["cas", "write"]
    assert (found.check, found.id, found.total, found.stats["failed"], found.stats["unknown"]) == ("linearizable", "linearizable", 1, 1, 1)


def test_what_would_take_too_many_states_is_inconclusive_and_no_failure():
    operations = oracle.acted(Random(1), "register", 60, clients=5, unknown=0.4)
    finding, = PROPERTIES["linearizable"].judge(History(operations), "register", 20)
    assert finding.outcome == "inconclusive"
    assert finding.title == "1 of 1 keys would take more than 20 states each to be told (register)"
    assert PROPERTIES["linearizable"].judge(History(operations), "register", BUDGET)[0].outcome == "pass"


def test_a_key_that_fails_is_one_whatever_the_budget_leaves_open_of_others():
    operations = list(oracle.acted(Random(1), "register", 60, clients=5, unknown=0.4))
    finding, = PROPERTIES["linearizable"].judge(History([*history(*ANOMALIES["stale read"][1]).operations, *operations]), "register", 20)
    assert (finding.outcome, finding.total, finding.stats["inconclusive"]) == ("fail", 1, 1)


def test_a_pass_says_that_nothing_was_told_of_any_state():
    found = judged("register", "0 write 1", "0 ok", "1 read", "1 info")
    assert found.outcome == "pass"
    assert found.title.endswith("nothing was told of any state, so every order of them is right")


def test_a_right_history_passes_and_says_what_it_was():
    found = judged("append-list", "0 append 1", "1 y:append 2", "0 ok", "1 ok", "2 read", "2 ok [1]")
    assert (found.outcome, found.title) == ("pass", "3 operations on 2 keys are linearizable (append-list)")


def test_five_hundred_unknown_additions_do_not_make_a_set_hard():
    """What a partition leaves behind: each unknown one may have taken effect or not, and each read pins down those it saw."""
    lines = []
    for n in range(500):
        lines += [(f"w{n}", "add", str(n)), (f"w{n}", "info")]
        lines += [("r", "read"), ("r", "ok", str(list(range(0, n + 1, 3))))] if n % 50 == 49 else []
    assert judged("set", *lines).outcome == "pass"
    assert judged("set", *lines, ("r", "read"), ("r", "ok", "[1]")).outcome == "fail"
