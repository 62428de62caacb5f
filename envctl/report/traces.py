"""The few traces worth looking at, as waterfalls: those that findings name, and those of the slowest operations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from heapq import nlargest

from envctl.model.verdict import Finding
from envctl.record import Operation
from envctl.report import words
from envctl.report.model import Bar, TraceView
from envctl.report.subject import Subject
from envctl.telemetry.store import Span

NAMED = 5  # traces that findings name
SLOWEST = 3
BARS = 60  # spans of one trace that are shown


def traces(subject: Subject, findings: Sequence[Finding]) -> tuple[TraceView, ...]:
    """The traces to show, those of failures first."""
    if subject.spans is None:
        return ()
    operations = {op.trace_id: op for op in subject.operations if op.trace_id}
    views = (_view(subject, trace_id, why, operations.get(trace_id)) for trace_id, why in _worth(subject, findings).items())
    return tuple(view for view in views if view)


def _worth(subject: Subject, findings: Sequence[Finding]) -> dict[str, str]:
    named: dict[str, str] = {}
    for finding in findings:
        if finding.outcome != "pass":
            for trace in (trace for evidence in finding.evidence for trace in evidence.traces[:1]):
                if len(named) < NAMED:
                    named.setdefault(trace, f"named by {finding.id}")
    slow = nlargest(SLOWEST, (op for op in subject.operations if op.trace_id and op.latency_ns is not None), key=lambda op: op.latency_ns or 0)
    for op in slow:
        named.setdefault(str(op.trace_id), f"one of the slowest operations: {words.duration((op.latency_ns or 0) / 1e9)}")
    return named


def _view(subject: Subject, trace_id: str, why: str, operation: Operation | None) -> TraceView | None:
    spans = subject.spans.trace(trace_id) if subject.spans else ()
    if not spans:
        return None
    begin = min(span.start_ns for span in spans)
    length = max(span.end_ns for span in spans) - begin
    bars = tuple(_bars(spans, begin))
    words_of = f"{operation.f} #{operation.op}" if operation else spans[0].name
    return TraceView(trace_id=trace_id, why=why, operation=words_of, at_s=(begin - subject.manifest.epoch_ns) / 1e9,
                     length_s=length / 1e9, bars=bars[:BARS], left_out=max(0, len(bars) - BARS))


def _bars(spans: Sequence[Span], begin_ns: int) -> Iterator[Bar]:
    """The spans as a tree, depth first; spans whose parent never came stand at the root."""
    known = {span.span_id: span for span in spans}
    children: dict[str, list[Span]] = {}
    for span in spans:
        children.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)
    pending = [(span, 0) for span in reversed(children.get("", ()))]
    shown: set[str] = set()
    while pending:
        span, depth = pending.pop()
        if span.span_id not in shown:
            shown.add(span.span_id)
            yield _bar(span, known.get(span.parent_id), depth, begin_ns)
            pending += [(child, depth + 1) for child in reversed(children.get(span.span_id, ()))]


def _bar(span: Span, parent: Span | None, depth: int, begin_ns: int) -> Bar:
    hop = span.kind == "consumer" and parent is not None and parent.kind == "producer"
    return Bar(
        span_id=span.span_id, name=span.name, service=span.service, node=span.node, kind=span.kind, depth=depth,
        start_s=(span.start_ns - begin_ns) / 1e9, duration_s=max(0, span.end_ns - span.start_ns) / 1e9,
        error=(span.message or "failed") if span.error else "",
        orphan=parent is None and span.parent_id not in ("", span.trace_id[16:]), messaging=_place(span.attrs),
        wait_s=(span.start_ns - parent.end_ns) / 1e9 if hop and parent else None,
    )


def _place(attrs: Mapping[str, object]) -> str:
    topic, partition = attrs.get("messaging.destination.name"), attrs.get("messaging.destination.partition.id")
    offset = attrs.get("messaging.kafka.offset", attrs.get("messaging.kafka.message.offset"))
    return "" if topic is None else f"{topic}/{partition}@{offset}" if offset is not None else str(topic)
