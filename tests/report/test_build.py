"""What a report says, from whole records and from partial ones."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from envctl.checks.slo import NO_TURN, objectives
from envctl.errors import UsageError
from envctl.model.event import Op
from envctl.record import EVENTS, Record
from envctl.report.build import build


def test_the_numbers_are_those_of_the_record(whole):
    figures = build(whole).figures
    assert (figures.operations, figures.ok, figures.unknown, figures.failed, figures.unsent) == (200, 199, 1, 0, 0)
    assert figures.success == pytest.approx(199 / 200)
    assert (figures.p50_s, figures.p99_s) == (pytest.approx(0.05), pytest.approx(1.5))
    assert figures.peak_lag == {"payments": 80}
    assert (figures.spans, figures.traces) == (5, 1)


def test_the_report_and_the_objective_mean_the_same_by_answered_well(whole):
    with (whole / EVENTS).open("a", encoding="utf-8") as record:
        for number, reason in ((200, f"the replay ended {NO_TURN}"), (201, "what it refers to was never answered")):
            for type, value in (("invoke", {}), ("fail", {"error": reason, "sent": False})):
                op = Op(at_ns=21 * 10**9, op=number, process="c", type=type, f="place_order", due_ns=20 * 10**9, value=value)
                record.write(json.dumps(asdict(op) | {"seq": number}) + "\n")
    (availability, _) = objectives(Record.load(whole))
    figures = build(whole).figures
    assert (figures.operations, figures.ok, figures.unknown, figures.failed, figures.unsent) == (202, 199, 1, 1, 1)
    assert figures.success == pytest.approx(199 / 201)
    assert (availability.stats["operations"], availability.stats["bad"]) == (201, 2)


def test_a_fault_tells_what_was_asked_what_was_measured_and_how_long_it_took_to_show_and_to_pass(whole):
    loss, kill = build(whole).faults
    assert loss.asked == "from orders, to bus, loss 20 %; 5.00\N{NO-BREAK SPACE}s into the traffic, for 4.00\N{NO-BREAK SPACE}s"
    assert (loss.measured, loss.recover_s, loss.outcome) == ("19.8 % of 4,210", 1.5, "pass")
    assert (loss.detect_s, loss.detected_by, loss.tolerated) == (2.2, "p95(traffic) < 400 ms", "tolerated")
    assert loss.symptom_s == pytest.approx(6.5 + 1 - 5), "the first slow operation was due at 6.5 s and had a second"
    assert "place_order #55" in loss.symptom
    assert loss.stages[-1][3] == "recovered in 1.5 s; p95(traffic) < 400 ms: it was 120 ms"
    assert (kill.end_s, kill.recover_s, kill.outcome) == (None, None, None)
    assert (kill.detect_s, kill.detected_by) == (None, "")
    assert kill.symptom_s == pytest.approx(13.05 - 12), "the operation that got no answer"


def test_the_timeline_has_every_track_over_the_same_buckets(whole):
    timeline = build(whole).timeline
    assert [track.name for track in timeline.tracks] == ["throughput", "latency", "errors", "lag", "retries", "cpu", "envctl"]
    lengths = {len(series.values) for track in timeline.tracks for series in track.series}
    assert lengths == {round(timeline.end_s / timeline.bucket_s)}
    by_name = {track.name: track for track in timeline.tracks}
    assert max(value or 0 for value in by_name["lag"].series[0].values) == 80
    assert by_name["lag"].series[0].values[0] is None, "the lag of a group is unknown while that of a partition is"
    assert sum(value or 0 for value in by_name["throughput"].series[0].values) * timeline.bucket_s == pytest.approx(200)
    assert by_name["latency"].limit == 1.0


def test_generations_restarts_and_detections_are_markers(whole):
    assert [(marker.kind, marker.at_s) for marker in build(whole).timeline.markers] == [("detection", 7.3), ("generation", 12.0), ("restart", 12.4)]


def test_a_named_trace_is_shown_as_a_tree_with_the_time_in_the_topic_and_the_lost_parent(whole):
    trace = build(whole).traces[0]
    assert (trace.operation, trace.why) == ("place_order #61", "named by no-loss")
    assert [(bar.service, bar.depth) for bar in trace.bars] == [("gateway", 0), ("orders", 1), ("orders", 2), ("payments", 3), ("fraud", 0)]
    consumer, lost = trace.bars[3:]
    assert (consumer.wait_s, consumer.messaging, consumer.error) == (pytest.approx(0.865), "orders.placed/1@311", "card refused")
    assert [bar.orphan for bar in trace.bars] == [False, False, False, False, True], "the operation itself is never exported"
    assert lost.service == "fraud"


def test_components_say_why_they_are_in_stubbed_or_out(whole):
    report = build(whole)
    assert {row.name: row.part for row in report.components} == {
        "db": "in", "bus": "in", "gateway": "in", "orders": "in", "payments": "in", "fraud": "stubbed", "archive": "out"}
    assert ("orders", "payments", "sends", "orders.placed") in {(link.source, link.target, link.kind, link.via) for link in report.links}


def test_objectives_carry_their_error_budgets(whole):
    found = {one.id: (one.allowed, one.used) for one in build(whole).objectives}
    assert found == {"slo:availability": (2, 1), "slo:p95": (10, 0)}


def test_nodes_carry_their_restarts_and_versions(whole):
    bus, payments = build(whole).nodes
    assert (bus.version, bus.restarts, bus.log) == ("4.1", 0, "")
    assert (payments.restarts, payments.exits, payments.log) == (1, "exit 137 at 12.40\N{NO-BREAK SPACE}s", "logs/payments-0.log")


def test_where_there_is_no_run_it_says_so(tmp_path):
    with pytest.raises(UsageError):
        build(tmp_path)
