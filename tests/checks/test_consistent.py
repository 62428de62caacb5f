"""Consistency of replayed operations: an anomaly planted in a good history is found, with its operations, fault and traces."""

from __future__ import annotations

import random

import pytest

from envctl import plugins
from envctl.consistency import PROPERTIES
from envctl.model.event import Op
from envctl.model.history import History, Operation

S = 1_000_000_000
REGISTER = {"get": {"f": "read", "key": "request.name", "value": "response.value"},
            "put": {"f": "write", "key": "request.name", "value": "request.value"},
            "swap": {"f": "cas", "key": "request.name", "value": ["request.old", "request.new"]}}
LISTS = {"move": {"f": "txn", "value": [["r", "request.from", "response.list"], ["append", "request.to", "request.id"]]}}


class Told:
    """Operations of clients, written one after the other."""

    def __init__(self, history):
        self.history, self.number = history, 0

    def op(self, f, start, end, *, request, response=None, type="ok", process="c1"):
        self.number += 1
        common = {"op": self.number, "process": process, "f": f, "key": process, "trace_id": f"{self.number:032x}"}
        self.history.write(Op(at_ns=round(start * S), type="invoke", value={"body": request}, due_ns=round(start * S), **common))
        if end is not None:
            self.history.write(Op(at_ns=round(end * S), type=type, value={"status": 200, "body": response or {}}, **common))

    def put(self, start, end, value, **more):
        self.op("put", start, end, request={"name": "x", "value": value}, **more)

    def get(self, start, end, value, **more):
        self.op("get", start, end, request={"name": "x"}, response={"value": value}, **more)

    def move(self, start, source, seen, target, id, **more):
        self.op("move", start, start + 0.1, request={"from": source, "to": target, "id": id}, response={"list": seen}, **more)


@pytest.fixture
def told(history):
    return Told(history)


def judge(name, told, **params):
    return plugins.load("envctl.checks", name).judge("its-id", params, told.history.record())


def test_a_register_that_is_one_passes(told):
    told.put(1, 2, 1)
    told.put(2.5, 4, 2, process="c2")
    told.get(3, 3.5, 1, process="c3")
    told.get(5, 6, 2, process="c3")
    found = judge("linearizable", told, operations=REGISTER)
    assert (found.id, found.outcome, found.title) == ("its-id", "pass", "4 operations on 1 keys are linearizable (register)")


def test_a_stale_read_is_named_with_its_operation_fault_and_trace(told):
    told.put(1, 2, 1)
    told.put(3, 4, 2)
    told.get(5, 6, 1, process="c2")
    told.history.fault("standby", 4.5, 7)
    found = judge("linearizable", told, operations=REGISTER)
    assert found.outcome == "fail"
    (evidence,) = found.evidence
    assert "read → 1 by c2 (get #3, 5.00 s – 6.00 s) has no place" in evidence.summary
    assert evidence.summary.endswith("; under standby (4.50 s)  trace 00000000000000000000000000000003")
    assert (evidence.ids, evidence.faults, evidence.traces) == (("3",), ("standby",), (f"{3:032x}",))


@pytest.mark.parametrize(("type", "outcome"), [("info", "pass"), ("fail", "fail")])
def test_what_is_unknown_may_have_been_and_what_failed_was_not(told, type, outcome):
    told.put(1, 2, 7, type=type)
    told.get(3, 4, 7)
    assert judge("linearizable", told, operations=REGISTER).outcome == outcome


def test_what_was_never_answered_may_have_been(told):
    told.put(1, None, 7)
    told.get(3, 4, None)
    told.get(5, 6, 7)
    assert judge("linearizable", told, operations=REGISTER).outcome == "pass"


def test_a_swap_that_took_effect_against_its_condition_is_found(told):
    told.put(1, 2, 1)
    told.op("swap", 3, 4, request={"name": "x", "old": 5, "new": 6})
    assert judge("linearizable", told, operations=REGISTER).outcome == "fail"


def test_operations_at_the_same_instant_overlap(told):
    told.put(1, 2, 1)
    told.get(2, 3, None, process="c2")
    assert judge("linearizable", told, operations=REGISTER).outcome == "pass"


def test_a_budget_that_is_too_small_is_inconclusive(told):
    for n in range(12):
        told.put(1 + n / 100, None, n % 6, process=f"c{n}")
    for n in range(6):
        told.get(3 + n, 3.5 + n, (5 * n) % 6)
    assert judge("linearizable", told, operations=REGISTER, budget=1).outcome == "inconclusive"


def test_a_lost_update_between_transactions_is_named(told):
    told.move(1, "x", [], "x", 1, process="a")
    told.move(1.01, "x", [], "x", 2, process="b")
    told.move(2, "x", [1, 2], "y", 3, process="c")
    found = judge("serializable", told, operations=LISTS)
    assert found.outcome == "fail"
    assert found.evidence[0].summary.startswith("G-single: ")
    assert len(found.evidence[0].traces) == 2


def test_a_stale_snapshot_is_serializable_but_not_strictly(told):
    told.move(1, "y", [], "x", 1, process="a")
    told.move(2, "x", [], "z", 2, process="b")
    told.move(3, "x", [1], "w", 3, process="c")
    params = {"operations": LISTS}
    record = told.history.record()
    assert plugins.load("envctl.checks", "serializable").judge("s", params, record).outcome == "pass"
    found = plugins.load("envctl.checks", "strict-serializable").judge("s", params, record)
    assert (found.outcome, found.stats["anomalies"]) == ("fail", {"G-single-realtime": 1})


def test_a_session_that_does_not_see_its_own_write_is_named(told):
    told.put(1, 2, 1, process="a")
    told.get(3, 4, None, process="a")
    found = judge("session", told, operations=REGISTER)
    assert (found.outcome, found.evidence[0].ids) == ("fail", ("1", "2"))
    assert found.evidence[0].summary.startswith("read-your-writes: ")


def test_another_session_may_be_behind(told):
    told.put(1, 2, 1, process="a")
    told.get(3, 4, None, process="b")
    assert judge("session", told, operations=REGISTER).outcome == "pass"


def test_a_session_with_two_operations_at_once_says_nothing(told):
    told.put(1, 4, 1, process="a")
    told.get(3, 5, None, process="a")
    assert "began before its session a had an answer" in judge("session", told, operations=REGISTER).title


def test_the_parameters_say_whose_session_it_is(told):
    told.op("put", 1, 2, request={"name": "x", "value": 1, "who": "p"}, process="a")
    told.op("get", 3, 4, request={"name": "x", "who": "p"}, response={"value": None}, process="b")
    assert judge("session", told, operations=REGISTER, process="request.who").outcome == "fail"


def test_nothing_read_says_nothing(told):
    told.put(1, 2, 1)
    assert judge("linearizable", told, operations=REGISTER).outcome == "inconclusive"


def test_answers_that_do_not_fit_say_nothing(told):
    counter = {"get": {"f": "read", "value": "response.value"}, "put": {"f": "add", "value": "request.value"}}
    told.get(3, 4, "many")
    told.put(5, 6, 1)
    found = judge("linearizable", told, model="counter", operations=counter)
    assert "such as get #1, 3.00 s – 4.00 s: found 'many', allowed as the answer of 'read': a whole number" in found.title


def test_writes_that_are_not_where_they_are_looked_for_say_nothing(told):
    nowhere = {**REGISTER, "put": {"f": "write", "value": "request.valeu"}}
    told.put(1, 2, 1)
    told.get(3, 4, 1)
    assert "what it writes is not in its request" in judge("linearizable", told, operations=nowhere).title


@pytest.mark.parametrize("seed", range(60))
def test_a_record_is_judged_as_its_history_is(histories, seed):
    """Replayed operations at random, against the same ones handed to the property as they are."""
    rng = random.Random(seed)
    with histories() as history:
        told, operations = Told(history), []
        for n in range(rng.randint(2, 8)):
            value, outcome = rng.randint(1, 2), rng.choice(["ok", "ok", "ok", "info", "fail"])
            f = rng.choice(["get", "put"])
            start = n + rng.random() * 3
            end = start + rng.random() * 4 + 0.1
            (told.get if f == "get" else told.put)(start, end, value, type=outcome, process=f"p{n}")
            operations.append((start, end, f, value, outcome))
        times = {t: place for place, t in enumerate(sorted(t for start, end, *_ in operations for t in (start, end)), 1)}
        given = [Operation(n, n, "read" if f == "get" else "write", "x", None if f == "get" else value, value if f == "get" else None, outcome,
                           times[start], times[end] if outcome != "info" else None) for n, (start, end, f, value, outcome) in enumerate(operations)]
        found = judge("linearizable", told, operations=REGISTER)
        (wanted,) = PROPERTIES["linearizable"].judge(History(sorted(given, key=lambda each: each.began)), "register", 10_000)
        read = any(f == "get" and outcome == "ok" for *_, f, _, outcome in operations)
        assert found.outcome == (wanted.outcome if read else "inconclusive")


@pytest.mark.parametrize(("name", "model", "operations", "why"), [
    ("linearizable", "counter", {"get": {"f": "write", "value": "request.v"}}, "found 'write', allowed for a counter: read, add"),
    ("linearizable", "register", {"put": {"f": "write", "value": "response.v"}}, "as an operation without an answer may have taken effect"),
    ("linearizable", "register", {"get": {"f": "read", "key": "response.id", "value": "response.v"}}, "found 'response.id'"),
    ("linearizable", "register", {"swap": {"f": "cas", "value": "request.new"}}, "allowed for a cas: [OLD, NEW]"),
    ("linearizable", "register", {"put": {"f": "write", "value": ["request.a", "request.b"]}}, "one expression"),
    ("serializable", "list-append", {"move": {"f": "txn", "value": "request.txn"}}, "allowed for a txn: [[r, KEY, VALUE], [append, KEY, VALUE]"),
    ("serializable", "rw-register", {"move": {"f": "txn", "value": [["append", "key", "request.v"]]}}, "allowed in a txn of rw-register: r, w"),
])
def test_operations_that_the_model_does_not_have_are_refused(name, model, operations, why):
    check = plugins.load("envctl.checks", name)
    ((place, told),) = check.wrong({"model": model, "operations": operations})
    assert place[:2] == ("operations", next(iter(operations)))
    assert why in told


def test_all_properties_of_histories_are_checks():
    assert set(PROPERTIES) <= set(plugins.names("envctl.checks"))
