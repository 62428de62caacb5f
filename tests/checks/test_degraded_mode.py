from __future__ import annotations

from dataclasses import replace

import pytest

from envctl.checks.degraded_mode import DegradedMode
from envctl.model.environment import Node
from envctl.model.event import FaultEdge
from envctl.record import RunManifest

S = 1_000_000_000
EXPECT = {"while": "kill", "operation": "browse", "expect": {"success_rate": ">= 90 %", "p95": "< 500 ms"}}
ANSWERS = {"while": "kill", "operation": "place_order", "answers": {"response.status": 503}}


def browse(history, *, bad=(), slow=(), unknown=()):
    """One operation every second from 0 s to 19 s."""
    for n in range(20):
        status = 503 if n in bad else 200
        type = "fail" if n in bad else "info" if n in unknown else "ok"
        answer = {"error": "no answer within 5 s"} if n in unknown else {"status": status, "body": {}}
        history.order(None, f"c{n}", start=n, end=n + (2 if n in slow else 0.1), type=type, f="browse", answer=answer)


def fault(history, *, held=None, **details):
    """Verified at 5 s; held until 10 s where that is given; gone at 12 s."""
    for stage, at in (("probe", 0), ("journal", 4), ("apply", 4), ("verify", 5), ("hold", held), ("heal", 11), ("absent", 12), ("recover", 14)):
        if at is not None:
            history.write(FaultEdge(at_ns=round(at * S), id="kill", fault="node-kill", edge=stage, ok=True, detail=details))


def judge(params, history):
    return DegradedMode.judge("its-id", params, history.record())


def test_what_is_answered_meanwhile_as_declared_passes(history):
    browse(history, bad={1, 2, 3, 14}, slow={2, 13})
    fault(history)
    found = judge(EXPECT, history)
    assert found.outcome == "pass"
    assert found.title == "while kill acted (5.00 s – 12.00 s) 7 browse had success_rate 100 %, p95 100 ms"


def test_bad_answers_meanwhile_are_named_with_their_cause_fault_and_trace(history):
    browse(history, bad={6, 7})
    fault(history)
    found = judge(EXPECT, history)
    assert found.outcome == "fail"
    assert "success_rate was 71.43 %, >= 90 % asked (7 operations)" in found.title
    assert found.evidence[0].summary.startswith("2 × browse: status 503, 6.00 s – 7.10 s; under kill")
    assert (found.evidence[0].ids, found.evidence[0].faults) == (("7", "8"), ("kill",))
    assert found.evidence[0].traces


def test_an_operation_without_an_answer_is_no_success(history):
    browse(history, unknown={8})
    fault(history)
    assert judge(EXPECT, history).outcome == "fail"


def test_slow_answers_meanwhile_are_named(history):
    browse(history, slow={9})
    fault(history)
    found = judge(EXPECT, history)
    assert (found.outcome, found.evidence[0].ids) == ("fail", ("10",))
    assert "p95 was 2,000 ms, < 500 ms asked" in found.title


def test_what_is_due_after_the_last_proof_of_a_held_fault_does_not_count(history):
    browse(history, bad={10, 11})
    fault(history, held=10)
    assert judge(EXPECT, history).outcome == "pass"


def test_other_answers_than_the_declared_ones_are_named(history):
    for n, status in enumerate((503, 503, 500, 503)):
        history.order(None, start=6 + n, type="info", answer={"status": status, "body": {}})
    history.order(None, start=1, answer={"status": 201, "body": {}})
    fault(history)
    found = judge(ANSWERS, history)
    assert (found.outcome, found.total) == ("fail", 1)
    assert found.evidence[0].summary.startswith("place_order #3 at 8.00 s: response.status was 500, 503 declared; under kill")


def test_a_part_that_refuses_as_declared_passes(history):
    for n in range(4):
        history.order(None, start=6 + n, type="info", answer={"status": 503, "body": {"status": "queued"}})
    fault(history)
    params = {**ANSWERS, "answers": {"response.body.status": "queued"}}
    assert judge(params, history).outcome == "pass"


def test_a_window_in_which_nothing_was_due_says_nothing(history):
    fault(history)
    found = judge(EXPECT, history)
    assert (found.outcome, found.title) == ("inconclusive", "while kill acted (5.00 s – 12.00 s) no browse was due")


@pytest.mark.parametrize("broken", ["verify", "hold"])
def test_a_fault_that_was_not_shown_to_act_says_nothing(history, broken):
    browse(history)
    fault(history, held=10)
    history.write(FaultEdge(at_ns=10 * S, id="kill", fault="node-kill", edge=broken, ok=False))
    assert "was not shown to act" in judge(EXPECT, history).title


def test_a_component_is_down_while_all_its_nodes_are(history):
    manifest = RunManifest.load(history.directory)
    nodes = tuple(Node(f"payments-{n}", "payments", "service", "a", f"198.18.1.{n + 1}", "ready", 1, 0.0, None, {}, "d") for n in range(2))
    replace(manifest, nodes=nodes).save(history.directory)
    browse(history)
    fault(history, nodes=[{"node": "payments-0"}, {"node": "payments-1"}])
    found = judge({**EXPECT, "while": {"down": "payments"}}, history)
    assert found.outcome == "pass"
    assert found.title.startswith("while payments was down (5.00 s")


def test_a_component_of_which_a_node_is_left_is_not_down(history):
    manifest = RunManifest.load(history.directory)
    nodes = tuple(Node(f"payments-{n}", "payments", "service", "a", f"198.18.1.{n + 1}", "ready", 1, 0.0, None, {}, "d") for n in range(2))
    replace(manifest, nodes=nodes).save(history.directory)
    browse(history)
    fault(history, nodes=[{"node": "payments-0"}])
    found = judge({**EXPECT, "while": {"down": "payments"}}, history)
    assert (found.outcome, found.title) == ("inconclusive", "no fault was shown to have taken down all nodes of payments")


@pytest.mark.parametrize(("expect", "why"), [
    ({"p95": "400 ms"}, "allowed: measure(subject) comparison number unit"),
    ({"p95": "< 400 %"}, "the unit of p95"),
    ({"success_rate": ">= 120 %"}, "more than 100 %"),
    ({"lag": "< 4"}, "no measure is called 'lag'"),
])
def test_expectations_that_are_none_are_refused(expect, why):
    ((place, told),) = DegradedMode.wrong({**EXPECT, "expect": expect})
    assert place == ("expect", next(iter(expect)))
    assert why in told
