from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.checks.slo import NO_TURN, STOPPED, allowed_bad, never_sent, objectives, percentile, share_of
from envctl.model.event import Log, Step
from envctl.model.scenario import FaultSpec, Slo
from envctl.record import Record
from envctl.replay import driver

FAULTS = (FaultSpec("kill", "node-kill", 1.0, (), None, {}),)


@pytest.mark.parametrize(
    ("target", "count", "allowed"),
    [(0.99, 100, 1), (0.99, 99, None), (0.99, 199, 1), (0.99, 200, 2), (0.999, 1000, 1), (0.999, 999, None), (1.0, 1, 0),
     (1.0, 0, None), (0.95, 20, 1), (0.9, 10, 1)],
)
def test_the_budget_is_the_floor_of_the_share_and_few_operations_can_not_tell(target, count, allowed):
    assert allowed_bad(target, count) == allowed


@given(st.lists(st.integers(0, 50), min_size=1), st.sampled_from(["p50", "p90", "p95", "p99", "p999", "max"]), st.integers(0, 50))
def test_a_percentile_is_over_the_limit_exactly_when_more_are_slower_than_the_budget(values, name, limit):
    share = share_of(name)
    slower = sum(value > limit for value in values)
    budget = int((1 - share) * len(values))
    assert (percentile(sorted(values), share) > limit) == (slower > budget)


def judged(history, slo):
    return {finding.id: finding for finding in objectives(history.record(slo=slo))}


def test_good_traffic_meets_both_objectives(history):
    for n in range(100):
        history.order(f"o{n}", start=n, end=n + 0.1)
    found = judged(history, Slo(0.99, {"p95": 0.8}))
    assert [f.outcome for f in found.values()] == ["pass", "pass"]
    assert found["slo:p95"].title == "p95 is 100 ms, at most 800 ms asked (100 operations)"
    assert all(f.group == "slo" for f in found.values())


def test_too_many_bad_operations_fail_by_cause_with_the_fault_above_them(history):
    for n in range(98):
        history.order(f"o{n}", start=n)
    history.order(None, start=5, type="fail", answer={"status": 503})
    history.order(None, start=6, type="info")
    history.fault("loss", 4.5, 7)
    found = judged(history, Slo(0.99))["slo:availability"]
    assert (found.outcome, found.total) == ("fail", 2)
    assert found.title == "98.00 % of 100 operations were answered well (2 were not, 99 % allows 1)"
    assert "1 × place_order: status 503, 5.00 s – 5.10 s; under loss (4.50 s)  trace " in found.evidence[0].summary


@pytest.mark.parametrize(("planned", "duration_s", "faults", "fixed"), [
    (99, None, FAULTS, True), (99, 10.0, (), True), (99, 10.0, FAULTS, False), (100, None, (), False), (None, 10.0, (), False),
])
def test_too_few_operations_are_too_few_in_every_run_where_the_traffic_is_as_long_in_each(history, planned, duration_s, faults, fixed):
    history.order("o", start=1)
    history.write(Step(at_ns=2, name="traffic", edge="end", ok=True, detail={"planned": planned}))
    record = history.record(slo=Slo(0.99, {"p99": 0.8}))
    traffic = replace(record.scenario.traffic, duration_s=duration_s)
    found = objectives(Record.load(record.directory, replace(record.scenario, traffic=traffic, faults=faults)))
    assert [(each.outcome, each.fixed) for each in found] == [("inconclusive", fixed)] * 2


def test_operations_that_were_never_sent_are_counted_apart(history):
    for n in range(100):
        history.order(f"o{n}", start=n)
    for _ in range(50):
        history.order(None, type="fail", answer={"error": "not sent: browse.items[0] is missing", "sent": False})
    found = judged(history, Slo(0.99, {"p95": 0.8}))
    assert [f.outcome for f in found.values()] == ["pass", "pass"]
    assert "50 more were never sent" in found["slo:availability"].title


def test_an_operation_whose_turn_never_came_counts_as_unanswered_and_unbounded(history):
    for n in range(90):
        history.order(f"o{n}", start=n)
    for _ in range(10):
        history.order(None, type="fail", answer={"error": "not sent: the replay ended before its turn came", "sent": False})
    record = history.record(slo=Slo(0.95, {"p95": 0.8}))
    found = {each.id: each for each in objectives(record)}
    assert found["slo:availability"].title.startswith("90.00 % of 100 operations were answered well (10 were not")
    assert found["slo:p95"].title == "p95 is unbounded, at most 800 ms asked (100 operations)"
    assert {each.outcome for each in found.values()} == {"fail"}


def test_each_reason_for_not_being_sent_is_told_and_a_stop_counts_apart(history):
    for n in range(100):
        history.order(f"o{n}", start=n)
    for reason, count in (("browse of key 'c1' has not succeeded", 3), ("the replay was stopped", 2), ("the replay ended before its turn came", 1)):
        for _ in range(count):
            history.order(None, type="fail", answer={"error": f"not sent: {reason}", "sent": False})
    record = history.record(slo=Slo(0.99))
    assert [(each.outcome, each.stats["bad"], each.stats["unsent"]) for each in objectives(record)] == [("pass", 1, 5)]
    assert never_sent(record) == (
        "3 operations were never sent: what they refer to was never answered", "2 operations were never sent: the replay was stopped",
        "1 operations never had their turn: earlier ones of their key took until the end; they count as unanswered")


def test_the_driver_says_the_reasons_that_are_told_apart():
    said = Path(driver.__file__).read_text(encoding="utf-8")
    assert NO_TURN in said
    assert f'"{STOPPED}"' in said


@pytest.mark.parametrize(
    ("late_ms", "took_s", "outcome"),
    [(79, 0.9, "fail"), (100, 0.9, "inconclusive"), (100, 1.9, "fail"), (100, 0.7, "pass"), (None, 0.9, "fail")],
)
def test_a_latency_that_the_drivers_own_lateness_may_explain_is_inconclusive(history, late_ms, took_s, outcome):
    for n in range(100):
        history.order(f"o{n}", start=n, end=n + took_s)
    history.write(Log(at_ns=101, level="info", message="replay ended", detail={"late_p99_ms": late_ms}))
    found = judged(history, Slo(latency_s={"p95": 0.8}))["slo:p95"]
    assert found.outcome == outcome
    assert ("too busy" in found.title) is (outcome == "inconclusive")


def test_unanswered_operations_fail_a_latency_however_late_the_driver_was(history):
    for n in range(20):
        history.order(None, start=n, type="fail", answer={"error": "not sent: the replay ended before its turn came", "sent": False})
    history.write(Log(at_ns=101, level="info", message="replay ended", detail={"late_p99_ms": 5000}))
    assert judged(history, Slo(latency_s={"p95": 0.8}))["slo:p95"].outcome == "fail"


def test_latency_counts_from_the_intended_start(history):
    for n in range(100):
        history.order(f"o{n}", due=n, start=n + 2, end=n + 2.1)
    found = judged(history, Slo(latency_s={"p50": 0.8}))["slo:p50"]
    assert (found.outcome, found.stats["seconds"], found.total) == ("fail", 2.1, 100)
    assert "due" in found.evidence[0].summary


def test_fast_failures_do_not_help_latency_and_unanswered_operations_count_as_slow(history):
    for n in range(10):
        history.order(f"o{n}", start=n, end=n + 1)
    for _ in range(90):
        history.order(None, start=1, end=1.001, type="fail")
    history.order(None, start=1, end=6, type="info")
    found = judged(history, Slo(latency_s={"p50": 0.5}))["slo:p50"]
    assert (found.outcome, found.stats["operations"]) == ("fail", 11)


@pytest.mark.parametrize("count", [0, 10])
def test_no_or_too_few_operations_are_inconclusive(history, count):
    for n in range(count):
        history.order(f"o{n}", start=n)
    assert {f.outcome for f in judged(history, Slo(0.99, {"p95": 0.8})).values()} == {"inconclusive"}


def test_names_of_percentiles_are_read_as_people_mean_them():
    assert [share_of(name) for name in ("p50", "p999", "max")] == [Fraction(1, 2), Fraction(999, 1000), 1]


def test_the_slowest_of_all_counts_for_max(history):
    for n in range(5):
        history.order(f"o{n}", start=n, end=n + (2 if n == 3 else 0.1))
    assert judged(history, Slo(latency_s={"max": 1}))["slo:max"].outcome == "fail"
