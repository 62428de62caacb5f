from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from envctl.checks.no_loss import NoLoss
from envctl.checks.traces_complete import TracesComplete
from envctl.model.event import Log
from envctl.record import RunManifest
from envctl.telemetry import raw
from envctl.telemetry.store import flatten
from envctl.telemetry.traces import SENT

PARAMS = {"edges": ["gateway -> orders", "orders ~> payments"]}
S, EPOCH = 1_000_000_000, 1_700_000_000_000_000_000
KINDS = {"server": 2, "client": 3, "producer": 4, "consumer": 5}


class Telemetry:
    """OTLP requests of an order's way through gateway, orders and payments, written as the intake does."""

    def __init__(self, history):
        manifest = RunManifest.load(history.directory)
        replace(manifest, epoch_ns=EPOCH).save(history.directory)
        self.directory = history.directory / "telemetry"
        self.directory.mkdir()
        self._spans = []

    def span(self, service, trace, span, parent, at, *, kind="server", attrs=None, error=False):
        self._spans.append((service, trace, span, parent, at, kind, attrs or {}, error))

    def order(self, n, at, *, without=()):
        """`n` is the operation's number and its trace; `without` names spans that never came, or whose `context` or `cause` was lost."""
        trace = f"{n:032x}"
        place = {"messaging.destination.name": "orders.placed", "messaging.destination.partition.id": "0",
                 "messaging.kafka.offset": n - 1, "messaging.operation.type": "process"}
        for name, service, span, parent, kind, attrs in (
            ("gateway", "gateway", 1, trace[16:], "server", {}),
            ("orders", "orders", 2, f"{n * 16 + 1:016x}", "server", {}),
            ("send", "orders", 3, "" if "cause" in without else f"{n * 16 + 2:016x}", "producer", {}),
            ("process", "payments", 4, "" if "context" in without else f"{n * 16 + 3:016x}", "consumer", place),
        ):
            if name not in without:
                apart = (name == "process" and "context" in without) or (name in ("send", "process") and "cause" in without)
                own = f"{n + 5000:032x}" if apart else trace
                self.span(service, own, f"{n * 16 + span:016x}", parent, at + span / 100, kind=kind, attrs=attrs)

    def _count(self, uncounted):
        """Each node's own count of its exports, all of which arrived."""
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        writer = raw.RawWriter(raw.path_of(self.directory, "metrics"))
        for service, count in Counter(span[0] for span in self._spans if span[0] not in uncounted).items():
            request = ExportMetricsServiceRequest()
            resource = request.resource_metrics.add()
            resource.resource.attributes.add(key="service.instance.id").value.string_value = f"{service}-0"
            counter = resource.scope_metrics.add().metrics.add(name=SENT).sum
            counter.data_points.add(start_time_unix_nano=EPOCH, time_unix_nano=EPOCH + S, as_int=count)
            writer.append(request.SerializeToString(), EPOCH)
        writer.close()

    def close(self, uncounted=()):
        """`uncounted` are services whose SDK has no counts."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        writer = raw.RawWriter(raw.path_of(self.directory, "traces"))
        for service, trace, span, parent, at, kind, attrs, error in self._spans:
            request = ExportTraceServiceRequest()
            resource = request.resource_spans.add()
            for name, value in (("service.name", service), ("service.instance.id", f"{service}-0")):
                resource.resource.attributes.add(key=name).value.string_value = value
            made = resource.scope_spans.add().spans.add(
                trace_id=bytes.fromhex(trace), span_id=bytes.fromhex(span), parent_span_id=bytes.fromhex(parent), name=kind,
                kind=KINDS[kind], start_time_unix_nano=EPOCH + round(at * S), end_time_unix_nano=EPOCH + round(at * S) + 1000)
            made.status.code = 2 if error else 0
            for name, value in attrs.items():
                field = "int_value" if isinstance(value, int) else "string_value"
                setattr(made.attributes.add(key=name).value, field, value)
            writer.append(request.SerializeToString(), EPOCH)
        writer.close()
        self._count(uncounted)
        flatten(self.directory)


@pytest.fixture
def orders(history):
    """Writes `count` orders and their spans; `without` is {number: missing spans}.  Returns the record."""

    def write(count=20, without=None, *, events=(), uncounted=()):
        telemetry = Telemetry(history)
        for n in range(1, count + 1):
            history.order(f"o{n}", start=n)
            telemetry.order(n, n, without=(without or {}).get(n, ()))
        for event in events:
            history.write(event)
        telemetry.close(uncounted)
        history.empty("published")
        return history.record()

    return write


def test_whole_traces_pass(orders):
    found = TracesComplete.judge("t", PARAMS, orders())
    assert (found.outcome, found.title) == ("pass", "the traces of 20 operations are whole")
    assert found.stats["edges"] == {"gateway -> orders": 20, "orders ~> payments": 20}


def test_one_trace_without_an_edge_fails_and_names_operation_and_trace(orders):
    found = TracesComplete.judge("t", PARAMS, orders(without={7: ("process",)}))
    assert (found.outcome, found.title) == ("fail", "1 of 20 traces lack an edge")
    (evidence,) = found.evidence
    assert evidence.traces == (f"{7:032x}",)
    assert evidence.ids == ("7",)
    assert "place_order: no orders ~> payments in its trace, 7.00 s" in evidence.summary


def test_a_consumer_that_drops_the_trace_context_fails(orders):
    found = TracesComplete.judge("t", PARAMS, orders(without=dict.fromkeys(range(1, 21), ("context",))))
    assert found.outcome == "fail"
    assert "20 of 20 traces lack an edge" in found.title
    assert "20 messages were processed outside their trace" in found.title
    assert any("orders.placed/0@0 has neither a parent nor a link" in e.summary for e in found.evidence)


@pytest.mark.parametrize(("uncounted", "outcome"), [({}, "fail"), ({"gateway"}, "fail"), ({"orders"}, "inconclusive")])
def test_a_producer_that_drops_the_trace_context_fails(orders, uncounted, outcome):
    found = TracesComplete.judge("t", PARAMS, orders(without=dict.fromkeys(range(1, 21), ("cause",)), uncounted=uncounted))
    assert found.outcome == outcome
    assert "20 messages were sent outside the trace of what caused them" in found.title
    assert "20 × orders ~> payments begins at orders" in found.evidence[0].summary


def test_a_message_without_a_cause_is_told_as_the_edge_that_its_operation_lacks(orders):
    found = TracesComplete.judge("t", PARAMS, orders(without={7: ("cause",)}))
    assert (found.outcome, found.title) == ("fail", "1 of 20 traces lack an edge")


def test_a_span_whose_parent_never_came_fails(orders):
    found = TracesComplete.judge("t", {"edges": ["gateway -> orders"]}, orders(without={3: ("send",)}))
    assert (found.outcome, found.title) == ("fail", "1 of 20 traces have spans whose parent never came")


def test_spans_that_died_with_a_killed_node_are_excused_and_counted(orders):
    killed = Log(at_ns=8 * S, level="info", message="restarted", detail={"node": "payments-0", "exit_status": 137})
    found = TracesComplete.judge("t", PARAMS, orders(without={7: ("process",)}, events=[killed]))
    assert (found.outcome, found.title) == (
        "pass", "the traces of 19 operations are whole; those of 1 more may have lost spans with a killed node")


def test_a_kill_does_not_excuse_what_is_missing_elsewhere(orders):
    killed = Log(at_ns=8 * S, level="info", message="restarted", detail={"node": "reporting-0", "exit_status": 137})
    assert TracesComplete.judge("t", PARAMS, orders(without={7: ("process",)}, events=[killed])).outcome == "fail"


def test_requests_that_can_not_be_read_make_missing_edges_inconclusive(orders, history):
    record = orders(without={7: ("process",)})
    writer = raw.RawWriter(raw.path_of(history.directory / "telemetry", "traces"))
    writer.append(b"\xff\xff\xff", EPOCH)
    writer.close()
    flatten(history.directory / "telemetry")
    found = TracesComplete.judge("t", PARAMS, record)
    assert found.outcome == "inconclusive"
    assert "telemetry was lost" in found.title


@pytest.mark.parametrize(("lost", "uncounted", "outcome"), [
    ("process", {"payments"}, "inconclusive"), ("process", {"orders"}, "inconclusive"), ("process", {"gateway"}, "fail"),
    ("send", {"orders"}, "inconclusive"), ("send", {"gateway"}, "fail"), ("context", {"payments"}, "fail"),
])
def test_what_a_service_without_counts_may_have_lost_is_inconclusive(orders, lost, uncounted, outcome):
    found = TracesComplete.judge("t", PARAMS, orders(without={7: (lost,)}, uncounted=uncounted))
    assert found.outcome == outcome
    if outcome == "inconclusive":
        assert f"{uncounted.pop()}-0 count no exports" in found.title
        assert found.evidence


def test_an_edge_that_no_trace_has_was_not_lost_on_the_way(orders):
    whole = orders(without=dict.fromkeys(range(1, 21), ("process",)), uncounted={"gateway", "orders", "payments"})
    assert TracesComplete.judge("t", PARAMS, whole).outcome == "fail"


def test_services_without_counts_whose_traces_are_whole_pass(orders):
    assert TracesComplete.judge("t", PARAMS, orders(uncounted={"gateway", "orders", "payments"})).outcome == "pass"


def test_an_edge_whose_source_was_never_seen_is_inconclusive(orders):
    found = TracesComplete.judge("t", {"edges": ["gateway -> orders", "billing -> orders"]}, orders())
    assert found.outcome == "inconclusive"
    assert "billing -> orders was never seen" in found.title


def test_no_spans_at_all_are_inconclusive(history):
    history.order("o1")
    found = TracesComplete.judge("t", PARAMS, history.record())
    assert (found.outcome, found.title) == ("inconclusive", "no spans were collected")


def test_the_life_of_a_lost_message_names_who_read_it(history):
    telemetry = Telemetry(history)
    history.order("o1", start=1)
    telemetry.order(1, 1)
    telemetry.close()
    history.message("published", "o1", at=1.2)
    history.empty("settled")
    found = NoLoss.judge("no-loss", {"from": "published", "to": "settled"}, history.record())
    assert found.evidence[0].summary == (
        "o1 read by payments-0 at 1.04 s, accepted 1.10 s, published 1.20 s to orders.placed/0@0, never in settled"
        "  trace 00000000000000000000000000000001"
    )
