"""A run with everything a report can tell, written through the record's own writer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from envctl.checks.evidence import trace_words
from envctl.model.environment import Node
from envctl.model.event import FaultEdge, Log, Op, Sample, Step
from envctl.model.plan import Selection
from envctl.model.verdict import Evidence, Finding, Verdict
from envctl.record import EVENTS, RecordWriter, RunManifest
from envctl.record.verdict import save_verdict
from envctl.telemetry.raw import RawWriter, path_of
from envctl.telemetry.store import KINDS, flatten

SECOND = 1_000_000_000
EPOCH = 1_700_000_000 * SECOND
TRACE = "ab" * 16

TOPOLOGY = """
envctl: topology/v1
name: shop
zones: [a, b]
components:
  db: {kind: postgres, version: 15, databases: [orders]}
  bus: {kind: kafka, version: "4.1", brokers: 1, topics: {orders.placed: {partitions: 1}}}
  gateway: {kind: service, source: gateway, command: [python3], calls: {orders: http, fraud: http}, ports: {http: 8080}}
  orders: {kind: service, source: orders, command: [python3], needs: [db, bus], publishes: [orders.placed], ports: {http: 8080}}
  payments: {kind: service, source: payments, command: [python3], needs: [bus], consumes: {orders.placed: {group: payments}}}
  fraud: {kind: service, source: fraud, command: [python3], stub: fraud.yaml, ports: {http: 8080}}
  archive: {kind: service, source: archive, command: [python3]}
"""
SCENARIO = """
envctl: scenario/v1
name: under-fire
owner: team-checkout
description: Packets are lost, a node is killed.
rng_seed: 7
takes: [gateway, orders, payments]
traffic: {file: traffic.jsonl, to: gateway, rate: 10/s, for: 20s}
observe:
  accepted: {operation: place_order, id: response.order_id}
  published: {topic: orders.placed, id: value.order_id}
steady: [p95(traffic) < 400 ms]
faults:
  - {at: 5s, for: 4s, fault: packet-loss, from: orders, to: bus, loss: 20 %}
  - {at: 12s, fault: node-kill, target: payments, pick: 1, restart: true}
checks: [{no-loss: {from: accepted, to: published}}]
slo: {availability: 99 %, p95: 1s}
"""
MANIFEST = RunManifest(
    id="2026-01-01T000000.000Z-under-fire", scenario="under-fire", stack="shop", env_id="e", commit="c0ffee" * 6, branch="fix/outbox",
    rng_seed=7, started_at=1_700_000_000.0, clock_ns=0, epoch_ns=EPOCH, scenario_file="scenarios/under-fire.yaml",
    components=tuple(Selection(name, "scenario", ("under-fire (takes)",)) for name in ("db", "bus", "gateway", "orders", "payments")),
    stubbed=("fraud",), left_out=("archive",),
    nodes=(Node("payments-0", "payments", "service", "a", "198.18.0.1", "ready", 1, None, 1, None),
           Node("bus-0", "bus", "kafka", "b", "198.18.0.2", "ready", 2, None, 1, None)),
    versions={"envctl": "0.1.0", "bus": "4.1"}, machine={"system": "Linux", "cores": 2},
)
LOST = Evidence(f"order 7f3a… accepted 7.10 s, never published; under packet-loss{trace_words((TRACE,))}", ids=("7f3a",), at_ns=7 * SECOND, faults=("packet-loss",),
                traces=(TRACE,))
VERDICT = Verdict("fail", (
    Finding("no-loss", "no-loss", "fail", "3 of 200 accepted orders were never published", evidence=(LOST,) * 5, total=12,
            stats={"lost": 12, "edges": {"gateway -> orders": 3}}),
    Finding("traces-complete", "traces-complete", "inconclusive", "spans were lost", evidence=(Evidence("payments-0 lost 12 spans"),), total=1),
    Finding("slo:availability", "slo", "pass", "99.50 % were answered well", "slo", stats={"operations": 200, "bad": 1, "allowed": 2, "target": 0.99}),
    Finding("slo:p95", "slo", "pass", "p95 is 52 ms", "slo", stats={"operations": 200, "seconds": 0.052, "limit_s": 1.0, "slower": 0}),
    Finding("fault:packet-loss", "packet-loss", "pass", "measured 19.8 % of 4,210; gone; recovered in 1.5 s", "fault"),
    Finding("old-one", "no-loss", "fail", "known to fail", waived="ann until 2027-01-01: being mended"),
), unverified=("fraud",), notes=("1 operations have an unknown outcome",), reproduce="envctl run scenarios/under-fire.yaml --rng-seed 7")


def at(seconds: float) -> int:
    return int(seconds * SECOND)


def _operations():
    for n in range(200):
        due = at(1 + n / 10)
        slow = 55 <= n < 60
        yield Op(at_ns=due, op=n, process="c", type="invoke", f="place_order", key=f"c{n % 7}", due_ns=due, target="gateway",
                 trace_id=TRACE if n == 61 else f"{n:032x}", value={"method": "POST"})
        kind = "info" if n == 120 else "ok"
        yield Op(at_ns=due + at(1.5 if slow else 0.05), op=n, process="c", type=kind, f="place_order", value={"status": 201, "body": {"order_id": n}})


def _fault(id: str, kind: str, *stages: tuple[str, float, str]):
    for stage, seconds, summary in stages:
        conditions = [{"text": "p95(traffic) < 400 ms", "value": 0.12, "ok": True}]
        detail = {"recover": {"seconds": 1.5, "conditions": conditions}, "detect": {"seconds": 2.2, "by": "p95(traffic) < 400 ms"}}.get(stage, {})
        yield FaultEdge(at_ns=at(seconds), id=id, fault=kind, edge=stage, ok=True, summary=summary, detail=detail)


def _samples():
    for tick in range(44):
        seconds = tick / 2
        for partition in (0, 1):
            lag = None if tick < 2 and partition else max(0, 40 - abs(tick - 20) * 4)
            yield Sample(at_ns=at(seconds), measure="kafka.consumer_group.lag", value=lag,
                         attrs={"group": "payments", "topic": "orders.placed", "partition": partition})
        yield Sample(at_ns=at(seconds), measure="kafka.group.generation", value=1 if seconds < 12 else 2, attrs={"group": "payments"})
        yield Sample(at_ns=at(seconds), measure="process.cpu", value=0.2, attrs={"node": "payments-0"})
        yield Sample(at_ns=at(seconds), measure="process.memory", value=5e7, attrs={"node": "payments-0"})
        yield Sample(at_ns=at(seconds), measure="host.cpu", value=1.4)
        yield Sample(at_ns=at(seconds), measure="envctl.cpu", value=0.1, attrs={"role": "driver"})


def events():
    """Everything but the run's end, in the order of time."""
    loss = _fault("packet-loss", "packet-loss", ("probe", 4.9, "orders → bus 20 %"), ("journal", 5, ""), ("apply", 5.1, ""),
                  ("verify", 6, "measured 19.8 % of 4,210"), ("detect", 7.3, "detected in 2.2 s: p95(traffic) < 400 ms"), ("heal", 9, ""), ("absent", 9.5, "gone"),
                  ("during", 9.5, "tolerated"), ("recover", 10.5, "recovered in 1.5 s"))
    kill = _fault("node-kill", "node-kill", ("probe", 11.9, ""), ("journal", 12, ""), ("apply", 12.1, ""))
    restart = Log(at_ns=at(12.4), level="info", message="payments-0 ended", detail={"node": "payments-0", "exit_status": 137})
    late = Log(at_ns=at(21.2), level="info", message="replay ended", detail={"late_p99_ms": 4.4})
    found = [Step(at_ns=0, name="run", edge="begin"), *_operations(), *loss, *kill, restart, late, *_samples()]
    return sorted(found, key=lambda event: event.at_ns)


END = Step(at_ns=at(22), name="run", edge="end", ok=True)


def write_spans(directory: Path, words: str = "card refused") -> None:
    """One trace over a topic: gateway → orders ~> payments (an error), and a span whose parent never came."""
    rows = [("01", "abababababababab", "POST /orders", "server", "gateway", 0, 50, {}), ("02", "01", "POST /orders", "server", "orders", 5, 40, {}),
            ("03", "02", "send orders.placed", "producer", "orders", 30, 5, {"messaging.destination.name": "orders.placed"}),
            ("04", "03", "process orders.placed", "consumer", "payments", 900, 80, {
                "messaging.destination.name": "orders.placed", "messaging.destination.partition.id": "1", "messaging.kafka.offset": 311}),
            ("05", "99", "Check", "server", "fraud", 910, 10, {})]
    request = ExportTraceServiceRequest()
    for id, parent, name, kind, service, start_ms, length_ms, attrs in rows:
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        span = resource.scope_spans.add().spans.add(
            trace_id=bytes.fromhex(TRACE), span_id=bytes.fromhex(id.rjust(16, "0")), parent_span_id=bytes.fromhex(parent.rjust(16, "0")), name=name,
            kind=KINDS.index(kind), start_time_unix_nano=EPOCH + at(7.1) + start_ms * 1_000_000,
            end_time_unix_nano=EPOCH + at(7.1) + (start_ms + length_ms) * 1_000_000)
        if words != "card refused":
            span.name = resource.resource.attributes[0].value.string_value = words
        for key, value in attrs.items():
            held = span.attributes.add(key=key).value
            if isinstance(value, int):
                held.int_value = value
            else:
                held.string_value = value
        if service == "payments":
            span.status.code, span.status.message = 2, words
    directory.mkdir()
    writer = RawWriter(path_of(directory, "traces"))
    writer.append(request.SerializeToString(), EPOCH)
    writer.close()
    flatten(directory)


def write_events(directory: Path, found) -> None:
    writer = RecordWriter(directory / EVENTS)
    for event in found:
        writer.write(event)
    writer.close()


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A run's directory as it is before the first event."""
    directory = tmp_path / MANIFEST.id
    (directory / "inputs").mkdir(parents=True)
    (directory / "logs").mkdir()
    (directory / "logs" / "payments-0.log").write_text("started\n")
    (directory / "inputs" / "topology.yaml").write_text(TOPOLOGY)
    (directory / "inputs" / "scenario.yaml").write_text(SCENARIO)
    (directory / "inputs" / "traffic.jsonl").write_text('{"at": 0.0, "op": "place_order", "http": "POST /orders"}\n')
    MANIFEST.save(directory)
    return directory


@pytest.fixture
def whole(start: Path) -> Path:
    """A run that was recorded to its end and judged."""
    write_events(start, [*events(), END])
    write_spans(start / "telemetry")
    save_verdict(start, VERDICT)
    return start


@pytest.fixture
def cut_short(start: Path) -> Path:
    """A run whose runner was killed in the middle of a line: no end, no spans, no verdict."""
    found = events()
    write_events(start, found[: len(found) // 2])
    with (start / EVENTS).open("ab") as file:
        file.write(b'{"seq": 99, "kind": "op", "at')
    return start


BAIT = '</script></style><script>alert(1)</script><img src=http://evil.test/x onerror=alert(1)>"\' onload="x" {{7*7}} & @team #12 | `a` \x00\x1b\ud7ff\x9b\u202e\n::stop-commands::x'


@pytest.fixture
def hostile(start: Path) -> Path:
    """A run in which everything that users name and services say tries to break out."""
    node = replace(MANIFEST.nodes[0], name=BAIT, component=BAIT, zone=BAIT)
    replace(MANIFEST, scenario=BAIT, branch=BAIT, commit=BAIT, stack=BAIT, seed=BAIT, left_out=(BAIT,), stubbed=(BAIT,), nodes=(node,),
            components=(Selection(BAIT, "changed", (BAIT,)),), versions={BAIT: BAIT, "envctl": BAIT}, machine={BAIT: BAIT}).save(start)
    sample = Sample(at_ns=at(3), measure="kafka.consumer_group.lag", value=3, attrs={"group": BAIT, "topic": BAIT, "partition": 0})
    cpu = [Sample(at_ns=at(3), measure="process.cpu", value=3, attrs={"node": BAIT}), Sample(at_ns=at(3), measure="envctl.cpu", value=3, attrs={"role": BAIT})]
    log = Log(at_ns=at(3), level="info", message=BAIT, detail={"node": BAIT, "exit_status": BAIT})
    op = [Op(at_ns=at(4), op=1000, process=BAIT, type="invoke", f=BAIT, key=BAIT, due_ns=at(4), trace_id=TRACE, target=BAIT),
          Op(at_ns=at(20), op=1000, process=BAIT, type="fail", f=BAIT, value={"error": BAIT})]
    fault = [FaultEdge(at_ns=at(3), id=BAIT, fault=BAIT, edge=stage, ok=False, summary=BAIT) for stage in ("journal", "apply", "heal")]
    write_events(start, [*events(), sample, *cpu, log, *op, *fault, END])
    write_spans(start / "telemetry", BAIT)
    piece = Evidence(BAIT, (BAIT,), 1, (BAIT,), (TRACE, BAIT), {BAIT: BAIT})
    bad = Finding(BAIT, BAIT, "fail", BAIT, evidence=(piece,), total=9, stats={BAIT: {BAIT: BAIT}, "b": BAIT})
    save_verdict(start, Verdict("fail", (bad, replace(bad, waived=BAIT)), (BAIT,), (BAIT,), BAIT))
    return start
