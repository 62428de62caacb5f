from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import permutations

import pytest

from envctl.consistency import PROPERTIES
from envctl.model.history import History, Operation

HISTORIES = 10_000
LIST, REGISTER = "append-list", "register"


def said(*acts: str, key="x"):
    """Operations out of `p write 1`, `p append 1`, `p read [1, 2]`, `p read 1`, `p cas 1 2`, `p write 1 ?` (unknown) and `p write 1 !` (failed), one after the other."""
    operations = []
    for n, act in enumerate(acts):
        process, f, *values = act.split(maxsplit=2)
        text = values[0]
        outcome = {"?": "info", "!": "fail"}.get(text[-1], "ok")
        value = _value(text.rstrip(" ?!"), f)
        told = value if outcome == "ok" and f == "read" else None
        operations.append(Operation(n, process, f, key, None if f == "read" else value, told, outcome, 2 * n, 2 * n + 1 if outcome != "info" else None))
    return operations


def _value(text, f):
    if text.startswith("["):
        return [int(each) for each in text[1:-1].split(",") if each.strip()]
    values = [None if each == "null" else int(each) for each in text.split()]
    return values if f == "cas" else values[0]


def judge(model, *operations):
    asked = PROPERTIES["session"]
    assert not any(map(asked.models[model], operations))
    (finding,) = asked.judge(History(operations), model, 1)
    return finding


@pytest.mark.parametrize(("model", "acts", "broken"), [
    (LIST, ("a append 1", "a read []"), "read-your-writes"),
    (LIST, ("b append 2", "a append 1", "a read [2]"), "read-your-writes"),
    (LIST, ("b append 1", "b append 2", "a read [1, 2]", "a read [1]"), "monotonic-reads"),
    (LIST, ("a append 1", "a append 2", "b read [2]"), "monotonic-writes"),
    (LIST, ("a append 1", "a append 2", "b read [2, 1]"), "monotonic-writes"),
    (LIST, ("b append 1", "a read [1]", "a append 2", "c read [2]"), "writes-follow-reads"),
    (LIST, ("b append 1", "a read [1]", "a append 2", "c read [2, 1]"), "writes-follow-reads"),
    (REGISTER, ("a write 1", "a read null"), "read-your-writes"),
    (REGISTER, ("a read 1", "a read 2", "a read 1"), "monotonic-reads"),
    (REGISTER, ("b write 1", "a read 1", "a read null"), "monotonic-reads"),
    (REGISTER, ("a read 1", "a read 2", "b read 2", "b read 1"), "monotonic-reads"),
    (REGISTER, ("a write 1", "a write 2", "b read 2", "b read 1"), "monotonic-reads or monotonic-writes"),
    (REGISTER, ("a write 1", "a write 2", "a read 1"), "read-your-writes or monotonic-writes"),
    (REGISTER, ("b write 1", "a read 1", "a write 2", "c read 2", "c read 1"), "monotonic-reads or writes-follow-reads"),
    (REGISTER, ("b write 1", "a cas 1 2", "c read 2", "c read 1"), "monotonic-reads or writes-follow-reads"),
])
def test_a_broken_guarantee_is_named(model, acts, broken):
    finding = judge(model, *said(*acts))
    assert (finding.outcome, finding.stats["breaches"]) == ("fail", {broken: 1})
    assert finding.evidence[0].summary.startswith(f"{broken}: ")


@pytest.mark.parametrize(("model", "acts"), [
    (LIST, ("a append 1", "b read []", "b read [1]", "a read [1]")),
    (LIST, ("a append 1 ?", "b append 2", "b read [2]", "b read [2, 1]")),
    (LIST, ("a append 1 ?", "a read []", "a read []")),  # whoever got no answer can't rely on it
    (LIST, ("a append 1 !", "a read []", "a read []")),
    (LIST, ("b append 1", "b append 2", "a read [1, 2]", "c read [1]")),  # another process may be behind
    (REGISTER, ("a write 1", "b write 2", "a read 2", "b read 2")),
    (REGISTER, ("a write 1", "b write 2", "a read 1", "b read 2")),  # written at the same time, as far as they know
    (REGISTER, ("a write 1 ?", "a read null", "a read 1")),
    (REGISTER, ("a cas 1 2 !", "a read null", "a read null")),
])
def test_what_no_guarantee_forbids_passes(model, acts):
    assert judge(model, *said(*acts)).outcome == "pass"


@pytest.mark.parametrize(("model", "acts", "reason"), [
    (LIST, ("a append 1", "b append 2", "a read [1, 2]", "b read [2, 1]"), "neither of which is the beginning of the other"),
    (LIST, ("a append 1", "a append 1", "a read [1]"), "an element was appended twice"),
    (LIST, ("a append 1", "a read [1, 1]"), "an element was read twice"),
    (REGISTER, ("a write 1", "b write 1", "a read 1"), "a value was written twice"),
    (REGISTER, ("a write null", "a read null"), "is what was there first"),
])
def test_what_does_not_tell_is_inconclusive(model, acts, reason):
    finding = judge(model, *said(*acts))
    assert finding.outcome == "inconclusive"
    assert reason in finding.title


def test_keys_are_judged_each_alone():
    assert judge(REGISTER, *said("a write 1"), *said("a read null", "a read null", key="y")).outcome == "pass"
    assert judge(REGISTER, *said("a write 1", "b write 1", "a read 1"), *said("a write 1", "a read null", key="y")).outcome == "fail"


def test_the_micro_operations_of_transactions_are_operations_of_their_process():
    def txn(process, *told, outcome="ok"):
        return Operation(0, process, "txn", None, [[f, k, None if f == "r" else v] for f, k, v in told], list(told), outcome, 0, 1)

    assert judge("list-append", txn("a", ["append", "x", 1]), txn("a", ["r", "x", []])).stats["breaches"] == {"read-your-writes": 1}
    assert judge("list-append", txn("a", ["append", "x", 1], outcome="fail"), txn("a", ["r", "x", []], ["r", "x", []])).outcome == "pass"
    assert judge("rw-register", txn("a", ["w", "x", 1], ["r", "x", 1]), txn("a", ["r", "x", None])).outcome == "fail"


def test_what_is_long_or_steers_a_terminal_is_told_otherwise():
    long = "v" * 1_000
    operations = [Operation(0, "a\nb", "write", "k\x1b", long, None, "ok", 0, 1), Operation(1, "a\nb", "read", "k\x1b", None, None, "ok", 2, 3)]
    (_, told) = judge(REGISTER, *operations).evidence[0].summary.splitlines()
    assert told == f'  process "a\\nb" wrote "{"v" * 29} … {"v" * 29}" (operation 0), then read null (operation 1)'
    assert judge(REGISTER, *said("a write 1", "a read null", key=None)).evidence[0].summary.startswith("read-your-writes: the values of the only object have")


def test_the_evidence_tells_who_did_what():
    list_finding = judge(LIST, *said("b append 1", "a read [1]", "a append 2", "c read [2]"))
    assert list_finding.evidence[0].summary == (
        "writes-follow-reads: process a read [1] of x (operation 1) and then appended 2 (operation 2); process c read [2] (operation 3)")
    finding = judge(REGISTER, *said("a read 1", "a read 2", "b read 2", "b read 1"))
    assert finding.evidence[0].summary.splitlines() == [
        "monotonic-reads: the values of x have no order",
        "  process a read 1 (operation 0), then read 2 (operation 1)",
        "  process b read 2 (operation 2), then read 1 (operation 3)"]
    assert finding.evidence[0].ids == ("0", "1", "2", "3")


@pytest.mark.parametrize("model", [LIST, REGISTER])
def test_sessions_are_judged_as_by_trying_everything(model):
    """Fail exactly where the definitions say so: of lists every pair of operations, of registers every order of the values."""
    rng, seen = random.Random(22), Counter()
    for _ in range(HISTORIES):
        operations = _invented(rng, model)
        outcome = judge(model, *operations).outcome
        assert (outcome == "fail") == (not (_lists_hold(operations) if model == LIST else _registers_hold(operations))), operations
        seen[outcome] += 1
    assert min(seen["pass"], seen["fail"]) > HISTORIES // 5, seen


def _invented(rng, model):
    """What processes do with replicas that get writes late: each reads from one replica, mostly the same one, and sometimes from none."""
    log, ends, found = [], {}, []
    lag = rng.choice([0, 1, 2])
    for n in range(rng.randint(5, 10)):
        process = rng.randrange(2)
        if rng.random() < 0.5:
            outcome = rng.choices(("ok", "info", "fail"), (8, 1, 1))[0]
            found.append(Operation(n, process, "append" if model == LIST else "write", "x", n, None, outcome, 2 * n, None if outcome == "info" else 2 * n + 1))
            if outcome == "ok" or (outcome == "info" and rng.random() < 0.5):
                log.insert(len(log) - rng.randint(0, min(len(log), rng.choice([0, lag]))), n)
            continue
        end = max(ends.get(process, 0) if rng.random() < 0.5 else 0, len(log) - rng.randint(0, lag))
        ends[process] = end
        told = log[:end] if model == LIST else (log[:end] or [None])[-1]
        found.append(Operation(n, process, "read", "x", None, told, "ok", 2 * n, 2 * n + 1))
    return found


def _pairs(operations):
    """Operations of one process that took effect, each with all later ones; those of unknown outcome only as the later one."""
    live = [op for op in operations if op.outcome != "fail"]
    return [(a, b) for at, a in enumerate(live) for b in live[at + 1:] if a.process == b.process and a.outcome == "ok"]


def _lists_hold(operations):
    reads = [op.told for op in operations if op.f == "read"]

    def before(first, second):
        return all(second not in read or (first in read and read.index(first) < read.index(second)) for read in reads)

    def holds(a, b):
        if b.f == "read":
            return set(a.told if a.f == "read" else [a.asked]) <= set(b.told)
        return all(before(each, b.asked) for each in (a.told if a.f == "read" else [a.asked]))

    return all(holds(a, b) for a, b in _pairs(operations))


def _registers_hold(operations):
    values = {op.told if op.f == "read" else op.asked for op in operations if op.outcome != "fail"} - {None}
    pairs = [tuple(op.told if op.f == "read" else op.asked for op in pair) for pair in _pairs(operations)]
    return any(_ordered((None, *order), pairs) for order in permutations(values))


def _ordered(order, pairs):
    places = {value: at for at, value in enumerate(order)}
    return all(places[first] <= places[second] for first, second in pairs)


def test_what_one_replica_did_is_never_blamed():
    rng = random.Random(23)
    for _ in range(2_000):
        value, operations = 0, []
        for n in range(rng.randint(2, 12)):
            wrote = rng.random() < 0.5
            value = n + 1 if wrote else value
            operations.append(Operation(n, rng.randrange(3), "write" if wrote else "read", "x", value if wrote else None, None if wrote else value or None,
                                        "ok", 2 * n, 2 * n + 1))
        assert judge(REGISTER, *operations).outcome != "fail"
        assert judge(REGISTER, *[replace(op, process=0) for op in operations]).outcome != "fail"
