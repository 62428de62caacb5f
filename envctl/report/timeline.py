"""The run over time: tracks of measures, windows of faults, markers of what happened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import pairwise

from envctl.model.event import Sample
from envctl.model.verdict import Outcome
from envctl.report import words
from envctl.report.buckets import Buckets, Values
from envctl.report.lag import LAG, totals
from envctl.report.model import Marker, Series, Timeline, Track, Window
from envctl.report.subject import Subject
from envctl.telemetry.store import Spans

GENERATION = "kafka.group.generation"
BUSIEST = 4  # nodes whose CPU is drawn; all are in the table of nodes
MARKERS = 200  # most that are drawn
_REPEATS = """
select max(s.start_ns), count(*) - 1 from spans s
where s.kind = 'consumer' and json_extract(s.attrs, '$."messaging.kafka.offset"') is not null
  and coalesce(json_extract(s.attrs, '$."messaging.operation.type"'), 'process') = 'process'
group by coalesce(json_extract(s.attrs, '$."messaging.consumer.group.name"'), s.service),
  json_extract(s.attrs, '$."messaging.destination.name"'), json_extract(s.attrs, '$."messaging.destination.partition.id"'),
  json_extract(s.attrs, '$."messaging.kafka.offset"') having count(*) > 1
"""
_RESENDS = """
select s.start_ns, cast(json_extract(s.attrs, '$."http.request.resend_count"') as integer) as resends from spans s where resends > 0
"""
_HOPS = """
select max(s.start_ns), count(*) from spans s
where s.kind = 'producer' and json_extract(s.attrs, '$."messaging.destination.name"') like '%retry%' group by s.trace_id
"""


def timeline(subject: Subject, outcomes: Mapping[str, Outcome]) -> Timeline:
    """The timeline of a run; `outcomes` are those of its faults, by id."""
    end_s = max(subject.end_ns / 1e9, 0.25)
    buckets = Buckets.over(end_s, len(subject.operations))
    tracks = [_throughput(subject, buckets), _latency(subject, buckets), _errors(subject, buckets), _lag(subject, buckets),
              *_retries(subject, buckets), _cpu(subject, buckets), _cost(subject, buckets)]
    return Timeline(buckets.width_s, end_s, tuple(tracks), tuple(_windows(subject, outcomes)), tuple(_markers(subject)))


def latency_limit_s(subject: Subject) -> float | None:
    """The scenario's strictest limit on a latency: of its objectives, or else of its steady state."""
    objectives = list(subject.scenario.slo.latency_s.values())
    conditions = [c.threshold for c in subject.scenario.steady if c.measure.startswith("p") and c.measure[1:].isdigit()]
    return min(objectives or conditions, default=None)


def _throughput(subject: Subject, buckets: Buckets) -> Track:
    answered = buckets.rate(op.end_ns for op in subject.operations if op.type == "ok" and op.end_ns is not None)
    called = buckets.rate(op.due_ns for op in subject.operations if not op.unsent)
    return Track("throughput", "Throughput", "/s", (Series("intended", called), Series("answered", answered)),
                 "operations a second, by intended start and by answer")


def _latency(subject: Subject, buckets: Buckets) -> Track:
    median, high = buckets.percentiles(subject.operations, (Fraction(1, 2), Fraction(95, 100)))
    return Track("latency", "Latency", "s", (Series("p50", median), Series("p95", high)),
                 "from the intended start, of answered operations", latency_limit_s(subject))


def _errors(subject: Subject, buckets: Buckets) -> Track:
    failed = buckets.rate(op.due_ns for op in subject.operations if op.type == "fail" and not op.unsent)
    unknown = buckets.rate(op.due_ns for op in subject.operations if op.type == "info")
    unsent = buckets.rate(op.due_ns for op in subject.operations if op.unsent)
    series = [Series("failed", failed, "bar"), Series("outcome unknown", unknown, "bar")]
    series += [Series("never sent", unsent, "bar")] if any(unsent) else []
    quiet = "" if any(any(one.values) for one in series) else ": none"
    return Track("errors", "Errors", "/s", tuple(series), f"operations a second that did not end well{quiet}")


def _lag(subject: Subject, buckets: Buckets) -> Track:
    series = [Series(group, buckets.peaks(whole)) for group, whole in totals(subject.samples(LAG)).items()]
    series.sort(key=lambda one: -_peak(one.values))
    return Track("lag", "Lag", "", tuple(series), "messages behind, by consumer group" if series else "was not sampled")


def _retries(subject: Subject, buckets: Buckets) -> Iterator[Track]:
    if subject.spans:
        depth = buckets.highest(_retry_points(subject.spans, subject.manifest.epoch_ns))
        yield Track("retries", "Retry depth", "", (Series("deepest", depth, "bar"),),
                    "resent requests, messages processed again, hops through retry topics" + ("" if any(depth) else ": none"))


def _retry_points(spans: Spans, epoch_ns: int) -> Iterator[tuple[int, float]]:
    for sql in (_REPEATS, _RESENDS, _HOPS):
        for at_ns, depth in spans.query(sql):
            yield int(at_ns) - epoch_ns, float(depth)


def _cpu(subject: Subject, buckets: Buckets) -> Track:
    nodes = _by(subject.samples("process.cpu"), "node")
    lines = [Series(node, buckets.mean(samples)) for node, samples in nodes.items()]
    lines = sorted(lines, key=lambda one: -sum(value or 0 for value in one.values))[:BUSIEST]
    host = subject.samples("host.cpu")
    if host:
        lines.insert(0, Series("whole machine", buckets.mean(host)))
    cores = subject.manifest.machine.get("cores")
    limit = float(cores) if host and isinstance(cores, int | float) else None
    return Track("cpu", "CPU", "cores", tuple(lines), "the machine, and the busiest nodes" if lines else "was not sampled", limit)


def _cost(subject: Subject, buckets: Buckets) -> Track:
    roles = _by(subject.samples("envctl.cpu"), "role")
    lines = tuple(Series(role, buckets.mean(samples)) for role, samples in roles.items())
    return Track("envctl", "envctl itself", "cores", lines, "what measuring cost" if lines else "was not sampled")


def _by(samples: Iterable[Sample], attr: str) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(str(sample.attrs.get(attr)), []).append(sample)
    return found


def _peak(values: Values) -> float:
    return max((value for value in values if value is not None), default=0)


def _windows(subject: Subject, outcomes: Mapping[str, Outcome]) -> Iterator[Window]:
    for window in subject.windows:
        if window.start_ns is None:
            continue
        heal, recover = window.edge("heal"), window.edge("recover")
        yield Window(window.id, window.id, outcomes.get(window.id), window.start_ns / 1e9, heal.at_ns / 1e9 if heal and heal.ok else None,
                     None if window.end_ns is None else window.end_ns / 1e9, recover.at_ns / 1e9 if recover and recover.ok else None)


def _markers(subject: Subject) -> list[Marker]:
    found = [*_generations(subject), *_detections(subject)]
    for log in subject.logs:
        if "node" in log.detail:
            status = log.detail.get("exit_status")
            ended = f" (exit {status})" if status is not None else ""
            found.append(Marker("restart", log.at_ns / 1e9, f"{log.detail['node']} ended{ended}"))
        elif "stop" in log.detail:
            found.append(Marker("stop", log.at_ns / 1e9, f"a stop condition ended the run: {log.detail['stop']}"))
    return sorted(found, key=lambda marker: marker.at_s)[:MARKERS]


def _detections(subject: Subject) -> Iterator[Marker]:
    for window in subject.windows:
        edge = window.edge("detect")
        if edge is not None and edge.detail.get("seconds") is not None:
            yield Marker("detection", edge.at_ns / 1e9, f"{window.id} {edge.summary}")


def _generations(subject: Subject) -> Iterator[Marker]:
    for group, samples in _by(subject.samples(GENERATION), "group").items():
        known = [(sample.at_ns, sample.value) for sample in samples if sample.value is not None]
        for (_, before), (at_ns, after) in pairwise(known):
            if after != before:
                yield Marker("generation", at_ns / 1e9, f"group {group}: generation {words.count(before)} → {words.count(after)}")
