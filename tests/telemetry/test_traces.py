import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from envctl.telemetry import raw
from envctl.telemetry.store import FILE, Spans, flatten, handled
from envctl.telemetry.traces import Break, Edge, Loss, analyse, completeness, critical_path, error_origins

KIND = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
PROCESS = {"messaging.operation.type": "process", "messaging.destination.name": "orders.placed",
           "messaging.destination.partition.id": "2", "messaging.kafka.offset": 311}
SECOND = 1_000_000_000
EDGES = [Edge.parse("gateway -> orders"), Edge.parse("orders ~> payments")]


def trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def root_of(trace: int) -> bytes:
    return trace_id(trace)[8:]


class Recorder:
    """Builds a telemetry directory as services would."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.last = 1000

    def span(self, trace, service, kind, parent=b"", name="", start=1.0, end=2.0, links=(), attrs=None, error=False, node="", flags=0):
        self.last += 1
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        resource.resource.attributes.add(key="service.instance.id").value.string_value = node or f"{service}-0"
        span = resource.scope_spans.add().spans.add(
            trace_id=trace_id(trace), span_id=self.last.to_bytes(8, "big"), parent_span_id=parent, name=name or f"{kind} of {service}",
            kind=KIND[kind], start_time_unix_nano=int(start * SECOND), end_time_unix_nano=int(end * SECOND),
        )
        span.status.code = 2 if error else 0
        span.flags = flags
        for key, value in (attrs or {}).items():
            fill(span.attributes.add(key=key).value, value)
        for linked_trace, linked_span in links:
            span.links.add(trace_id=trace_id(linked_trace), span_id=linked_span)
        self.request("traces", request)
        return span.span_id

    def counter(self, metric, node, points, attrs=None):
        request = ExportMetricsServiceRequest()
        resource = request.resource_metrics.add()
        resource.resource.attributes.add(key="service.instance.id").value.string_value = node
        series = resource.scope_metrics.add().metrics.add(name=metric).sum
        for start, at, value in points:
            point = series.data_points.add(start_time_unix_nano=start, time_unix_nano=at, as_int=value)
            for key, one in (attrs or {}).items():
                fill(point.attributes.add(key=key).value, one)
        self.request("metrics", request)

    def request(self, signal, request, received_ns=5):
        writer = raw.RawWriter(raw.path_of(self.directory, signal))
        writer.append(request if isinstance(request, bytes) else request.SerializeToString(), received_ns)
        writer.close()

    def order(self, trace, *, context=True, processed=True, start=1.0, payments="payments-0"):
        """A whole order: gateway → orders → (message) → payments."""
        entry = self.span(trace, "gateway", "server", root_of(trace), start=start, end=start + 0.5)
        call = self.span(trace, "gateway", "client", entry, start=start, end=start + 0.4)
        placed = self.span(trace, "orders", "server", call, start=start, end=start + 0.3)
        sent = self.span(trace, "orders", "producer", placed, start=start + 0.5, end=start + 0.6)
        if processed:
            parent = (trace, sent) if context else (trace + 5000, b"")
            self.span(parent[0], "payments", "consumer", parent[1], start=start + 1, end=start + 1.1, attrs=PROCESS, node=payments)
        return sent

    def store(self):
        flatten(self.directory)
        return Spans(self.directory)


def fill(target, value):
    if isinstance(value, int):
        target.int_value = value
    else:
        target.string_value = value


@pytest.fixture
def recorder(tmp_path):
    return Recorder(tmp_path / "telemetry")


def roots(*traces):
    return {trace_id(number).hex(): "place_order" for number in traces}


def test_whole_traces_have_every_edge_and_no_break(recorder):
    recorder.order(1)
    recorder.order(2)
    found = analyse(recorder.store(), EDGES, roots(1, 2))
    assert (found.breaks, found.unsure, found.unseen) == ((), (), ())
    assert found.seen == {EDGES[0]: 2, EDGES[1]: 2}
    assert (found.spans, found.traces) == (10, 2)


def test_a_span_whose_parent_never_came_is_an_orphan(recorder):
    recorder.order(1)
    recorder.span(1, "orders", "internal", b"\x07" * 8, name="select stock")
    recorder.span(9, "cron", "internal", b"\x07" * 8)
    (found,) = analyse(recorder.store(), EDGES, roots(1), known=roots(1)).breaks
    assert (found.kind, found.trace_id, found.service, found.span) == ("orphan", trace_id(1).hex(), "orders", "select stock")


def test_a_consumer_that_drops_the_context_is_found_on_both_sides(recorder):
    recorder.order(1)
    recorder.order(2, context=False)
    found = analyse(recorder.store(), EDGES, roots(1, 2))
    assert [(one.kind, one.trace_id) for one in found.breaks] == [("broken", trace_id(5002).hex()), ("missing", trace_id(2).hex())]
    assert "orders.placed/2@311" in found.breaks[0].summary
    assert found.breaks[1].edge == EDGES[1]


def test_an_edge_that_is_seen_nowhere_is_missing_wherever_its_message_was_sent(recorder):
    for trace in (1, 2):
        recorder.order(trace, context=False)
    recorder.span(3, "gateway", "server", root_of(3))
    operations = roots(1, 2) | {trace_id(3).hex(): "browse"}
    missing = [one for one in analyse(recorder.store(), EDGES, operations).breaks if one.kind == "missing"]
    assert [one.trace_id for one in missing] == [trace_id(1).hex(), trace_id(2).hex()]


def test_an_edge_whose_source_never_took_part_is_unseen(recorder):
    recorder.order(1)
    edge = Edge("reporting", "billing", asynchronous=True)
    found = analyse(recorder.store(), [*EDGES, edge], roots(1))
    assert (found.breaks, found.unseen) == ((), (edge,))


def test_messages_whose_sender_drops_the_context_are_uncaused(recorder):
    for trace in (1, 2):
        entry = recorder.span(trace, "gateway", "server", root_of(trace))
        recorder.span(trace, "orders", "server", entry)
        sent = recorder.span(trace + 100, "orders", "producer", name="send orders.placed")
        recorder.span(trace + 100, "payments", "consumer", sent, attrs=PROCESS)
    linked = recorder.span(103, "orders", "producer", links=[(1, entry)])
    recorder.span(103, "payments", "consumer", linked, attrs=PROCESS)
    unread = recorder.span(104, "orders", "producer")
    recorder.span(104, "audit", "consumer", unread, attrs=PROCESS)
    found = analyse(recorder.store(), EDGES, roots(1, 2))
    assert [(one.kind, one.trace_id, one.edge) for one in found.breaks] == [("uncaused", trace_id(n).hex(), EDGES[1]) for n in (101, 102)]
    assert "orders ~> payments begins at orders: 'send orders.placed'" in found.breaks[0].summary
    assert found.unseen == ()


def test_messages_that_no_operation_has_to_cause_are_not_uncaused(recorder):
    recorder.order(1)
    for trace in (101, 102):  # a timer of orders, and a service that takes part in no operation
        sent = recorder.span(trace, "orders" if trace == 101 else "cron", "producer")
        recorder.span(trace, "payments", "consumer", sent, attrs=PROCESS)
    cron = Edge("cron", "payments", asynchronous=True)
    found = analyse(recorder.store(), [*EDGES, cron], roots(1))
    assert (found.breaks, found.unseen) == ((), (cron,))


def test_an_operation_that_never_takes_an_edge_is_not_expected_to(recorder):
    recorder.order(1)
    recorder.span(3, "gateway", "server", root_of(3))
    assert analyse(recorder.store(), EDGES, roots(1) | {trace_id(3).hex(): "browse"}).breaks == ()


def test_an_acknowledged_operation_without_any_span_misses_its_edges(recorder):
    recorder.order(1)
    found = analyse(recorder.store(), EDGES, roots(1, 2)).breaks
    assert [(one.kind, one.trace_id, one.edge) for one in found] == [("missing", trace_id(2).hex(), edge) for edge in EDGES]


def test_a_batch_consumer_that_links_counts_as_an_edge_of_the_producers_trace(recorder):
    sent = [recorder.order(number, processed=False) for number in (1, 2)]
    batch = recorder.span(7, "payments", "consumer", links=[(1, sent[0]), (2, sent[1])], attrs=PROCESS)
    recorder.span(7, "fraud", "server", batch)
    found = analyse(recorder.store(), [*EDGES, Edge("payments", "fraud")], roots(1, 2))
    assert found.breaks == ()
    assert found.detached == 1


def test_what_was_lost_with_a_killed_node_is_unsure_and_only_that(recorder):
    recorder.order(1)
    recorder.order(2, start=10, processed=False)
    recorder.order(3, start=60, processed=False)
    loss = Loss("payments-1", "payments", 11 * SECOND, 12 * SECOND)
    found = analyse(recorder.store(), EDGES, roots(1, 2, 3), losses=[loss])
    assert [one.trace_id for one in found.unsure] == [trace_id(2).hex()]
    assert [one.trace_id for one in found.breaks] == [trace_id(3).hex()]
    elsewhere = Loss("catalog-0", "catalog", loss.from_ns, loss.to_ns)
    assert analyse(recorder.store(), EDGES, roots(1, 2, 3), losses=[elsewhere]).unsure == ()


LOCAL, REMOTE, UNSAID = 0x100, 0x300, 0


@pytest.mark.parametrize(("flags", "of", "excused"), [
    (LOCAL, "payments-0", False), (LOCAL, "payments-1", True), (REMOTE, "payments-0", True), (UNSAID, "payments-0", True)])
def test_a_killed_node_excuses_no_gap_in_what_another_sent(recorder, flags, of, excused):
    recorder.order(1)
    recorder.span(1, "payments", "client", b"\x07" * 8, name="charge", node=of, flags=flags)
    loss = Loss("payments-1", "payments", SECOND, 9 * SECOND)
    found = analyse(recorder.store(), EDGES, roots(1), losses=[loss])
    assert [one.span for one in (found.unsure if excused else found.breaks)] == ["charge"]
    assert (found.breaks if excused else found.unsure) == ()


def test_a_store_of_an_older_version_is_made_again(recorder):
    recorder.order(1)
    recorder.store().close()
    base = sqlite3.connect(recorder.directory / FILE)
    base.executescript("alter table spans drop column local; pragma user_version = 0")
    base.close()
    assert len(list(Spans(recorder.directory).spans())) == 5


def test_messages_from_before_the_window_are_not_judged(recorder):
    recorder.span(8, "payments", "consumer", start=1, end=2, attrs=PROCESS)
    assert analyse(recorder.store(), [], {}, window=(2 * SECOND, 9 * SECOND)).breaks == ()
    (found,) = analyse(recorder.store(), [], {}, window=(0, 9 * SECOND)).breaks
    assert isinstance(found, Break)
    assert found.kind == "broken"


def test_older_names_are_read_and_a_poll_without_messages_is_no_break(recorder):
    recorder.span(8, "payments", "consumer", attrs={"messaging.operation": "receive"})
    recorder.span(9, "payments", "consumer", attrs={"messaging.operation": "process"})
    assert [one.trace_id for one in analyse(recorder.store(), [], {}).breaks] == [trace_id(9).hex()]


def test_what_was_exported_twice_is_there_once(recorder):
    recorder.order(1)
    path = raw.path_of(recorder.directory, "traces")
    path.write_bytes(path.read_bytes() * 2)
    store = recorder.store()
    found = completeness(store)
    assert (found.received, found.stored) == (10, 5)
    assert len(store.trace(trace_id(1).hex())) == 5


def test_the_spans_that_processed_a_message_are_found_by_its_place(recorder):
    recorder.order(1)
    store = recorder.store()
    assert [span.node for span in store.processing("orders.placed", 2, 311)] == ["payments-0"]
    assert store.processing("orders.placed", 2, 312) == ()


def test_what_a_group_has_handled_since_then_is_read_from_what_comes_in(recorder):
    def process(offset, **options):
        place = {"messaging.destination.name": "orders", "messaging.destination.partition.id": "2", "messaging.kafka.offset": offset, "messaging.consumer.group.name": "payments"}
        recorder.span(1, "payments", "consumer", attrs=place | options.pop("more", {}), **options)

    path = raw.path_of(recorder.directory, "traces")
    process(1, start=9.0)
    start = raw.whole_size(path)
    process(2, start=3.0)  # which came late
    process(3, start=9.0)
    process(4, start=9.0, error=True)
    process(5, start=9.0, more={"messaging.consumer.group.name": "others"})
    assert handled(recorder.directory, "payments", start=start, since_ns=5 * SECOND) == {("orders", "2", 3)}


EXPORTED, DROPPED = "otel.sdk.exporter.span.exported", "otel.sdk.processor.span.processed"


def test_counts_that_agree_are_whole(recorder):
    for number in range(3):
        recorder.span(number, "orders", "server")
    recorder.counter(EXPORTED, "orders-0", [(1, 10, 40), (1, 20, 43)])  # 40 before the record began
    found = completeness(recorder.store())
    assert found.whole
    assert found.sent == {"orders-0": 3}


@pytest.mark.parametrize("plant", [
    lambda to: to.counter(EXPORTED, "orders-0", [(1, 10, 40), (1, 20, 44)]),
    lambda to: to.counter(EXPORTED, "orders-0", [(8, 20, 4)]),
    lambda to: to.counter(EXPORTED, "orders-0", [(1, 10, 0), (1, 20, 2)], {"error.type": "timeout"}),
    lambda to: to.counter(DROPPED, "orders-0", [(1, 10, 0), (1, 20, 2)], {"error.type": "queue_full"}),
    lambda to: to.request("traces", b"\x0a\x02\xff\xff"),
])
def test_what_was_lost_on_the_way_is_not_whole(recorder, plant):
    for number in range(3):
        recorder.span(number, "orders", "server")
    plant(recorder)
    assert not completeness(recorder.store()).whole


def test_nodes_whose_sdk_counts_nothing_are_named(recorder):
    recorder.span(1, "orders", "server")
    assert completeness(recorder.store()).uncounted == ("orders-0",)


def test_a_store_of_nothing_is_empty(recorder):
    found = analyse(recorder.store(), EDGES, {})
    assert (found.spans, found.breaks, found.unseen) == (0, (), tuple(EDGES))


def test_the_critical_path_is_what_the_end_waited_for(recorder):
    root = recorder.span(1, "gateway", "server", root_of(1), "root", 0, 10)
    recorder.span(1, "catalog", "server", root, "aside", 1, 3)
    slow = recorder.span(1, "orders", "server", root, "slow", 2, 9, error=True)
    recorder.span(1, "orders", "client", slow, "query", 4, 8, error=True)
    spans = recorder.store().trace(trace_id(1).hex())
    assert [(span.name, own // SECOND) for span, own in critical_path(spans)] == [("root", 3), ("slow", 3), ("query", 4)]
    assert [span.name for span in error_origins(spans)] == ["query"]


@given(st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True), st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True), st.booleans())
def test_an_edge_is_read_as_it_is_written(source, target, asynchronous):
    edge = Edge(source, target, asynchronous)
    assert Edge.parse(str(edge)) == edge


@pytest.mark.parametrize("text", ["a", "a => b", "-> b", "a -> b -> c", ""])
def test_what_is_no_edge_is_refused(text):
    with pytest.raises(ValueError, match="is no edge"):
        Edge.parse(text)
