"""What the traces of a run show: who called whom, and where a trace is not whole.

An edge `a -> b` is a span of service `b` whose parent is a span of `a`; `a ~> b` is the same through a message, by parent or by
link (consumers of batches start traces of their own and link to the producers).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from envctl.telemetry.store import Span, Spans

SENT = "otel.sdk.exporter.span.exported"
PROCESSED = "otel.sdk.processor.span.processed"
LATE_NS = 5_000_000_000  # how long after a trace's last known span one of its spans may still have been lost
_EDGE = re.compile(r"\s*([\w.-]+)\s*(->|~>)\s*([\w.-]+)\s*")
_CUT_OFF = """
s.kind = 'consumer' and s.parent_id = '' and s.start_ns between ? and ?
and coalesce(json_extract(s.attrs, '$."messaging.operation.type"'), json_extract(s.attrs, '$."messaging.operation"'), 'process') = 'process'
and not exists (select 1 from links l where l.trace_id = s.trace_id and l.span_id = s.span_id)
"""  # older semantic conventions called it messaging.operation
_UNCAUSED = """
s.service = ? and s.kind = 'producer' and s.parent_id = '' and s.start_ns between ? and ?
and not exists (select 1 from links l where l.trace_id = s.trace_id and l.span_id = s.span_id)
and (exists (select 1 from spans c where c.trace_id = s.trace_id and c.parent_id = s.span_id and c.service = ?)
  or exists (select 1 from links l join spans c on c.trace_id = l.trace_id and c.span_id = l.span_id
             where l.to_trace = s.trace_id and l.to_span = s.span_id and c.service = ?))
"""


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """One service asks another, or (asynchronous) reads what it wrote."""

    source: str
    target: str
    asynchronous: bool = False

    def __str__(self) -> str:
        return f"{self.source} {'~>' if self.asynchronous else '->'} {self.target}"

    @classmethod
    def parse(cls, text: str) -> Edge:
        """From `gateway -> orders` or `orders ~> payments`.  Raises ValueError."""
        match = _EDGE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no edge; write `caller -> callee` or `writer ~> reader`")
        return cls(match[1], match[3], match[2] == "~>")


@dataclass(frozen=True, slots=True)
class Loss:
    """Spans of one node are known to be lost between two instants (Unix ns): it was killed before it exported them."""

    node: str
    service: str
    from_ns: int
    to_ns: int


@dataclass(frozen=True, slots=True)
class Break:
    """One place where a trace is not whole."""

    kind: Literal["orphan", "broken", "missing", "uncaused"]
    trace_id: str
    summary: str
    service: str
    node: str = ""  # the node that made what is missing; empty where any of a service may have
    span: str = ""  # name of the span at which it shows
    at_ns: int = 0  # Unix ns
    edge: Edge | None = None  # for missing and uncaused ones
    operation: str = ""


@dataclass(frozen=True, slots=True)
class TraceAnalysis:
    """`breaks` are certain; `unsure` ones may be due to telemetry that was lost with a killed node."""

    spans: int
    traces: int
    breaks: tuple[Break, ...]
    unsure: tuple[Break, ...]
    detached: int  # spans that follow another trace by a link alone: normal for batches, a number to know
    seen: Mapping[Edge, int]  # in how many traces each edge was seen (declared or not)
    unseen: tuple[Edge, ...]  # declared, never seen, and no trace in which it should have been


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether every span that was sent is in the store.

    `sent` and `dropped` come from the SDKs' own metrics, by node, from the first point inside the record on; nodes whose SDK has
    none are in `uncounted`.  `missing` are those sent (at least) and not stored.
    """

    received: int
    stored: int
    undecodable: int
    sent: Mapping[str, int]
    dropped: Mapping[str, int]
    missing: Mapping[str, int]
    uncounted: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Nothing is known to be lost."""
        return not (self.undecodable or self.missing or any(self.dropped.values()))


def analyse(
    store: Spans, edges: Sequence[Edge], roots: Mapping[str, str], *, known: Collection[str] | None = None,
    window: tuple[int, int] | None = None, losses: Sequence[Loss] = (),
) -> TraceAnalysis:
    """Finds orphans, process spans cut off from their producers, declared edges that are missing, and those that lead from no operation.

    `roots` are the acknowledged operations: trace → name.  `known`: orphans are looked for in these traces only (None: in
    all).  `window`: only spans that start in it (Unix ns) can be broken.  An edge is expected in every trace of an operation in
    one of whose traces it was seen; an edge seen nowhere is expected wherever its source sent a message (`~>`) or took part (`->`).
    Where its source only took part, messages that begin traces of their own and are the edge there are uncaused: what caused them was lost.
    """
    by_trace = _edges_by_trace(store)
    seen = Counter(edge for found in by_trace.values() for edge in found)
    begin, end = window or (0, 1 << 62)
    breaks = [*_orphans(store, known), *_broken(store, begin, end)]
    missing, unseen = _missing(store, edges, roots, by_trace)
    uncaused = _uncaused(store, unseen, roots, begin, end)
    unseen = tuple(edge for edge in unseen if edge not in {one.edge for one in uncaused})
    certain: list[Break] = []
    unsure: list[Break] = []
    for one in (*breaks, *missing, *uncaused):
        (unsure if _excused(store, one, losses, {*seen, *edges}) else certain).append(one)
    ((spans, traces),) = store.query("select count(*), count(distinct trace_id) from spans")
    ((detached,),) = store.query(
        "select count(*) from spans s where parent_id = '' and exists"
        " (select 1 from links l where l.trace_id = s.trace_id and l.span_id = s.span_id)"
    )
    return TraceAnalysis(spans, traces, tuple(certain), tuple(unsure), detached, dict(seen), unseen)


def _edges_by_trace(store: Spans) -> dict[str, set[Edge]]:
    """Edges of each trace and of the traces that follow it by links."""
    own: dict[str, set[Edge]] = defaultdict(set)
    by_parent = store.query(
        "select c.trace_id, p.service, c.service, c.kind = 'consumer' or p.kind = 'producer' from spans c"
        " join spans p on p.trace_id = c.trace_id and p.span_id = c.parent_id"
        " where p.service <> c.service or (c.kind = 'consumer' and p.kind = 'producer')"
    )
    for trace, source, target, asynchronous in by_parent:
        own[trace].add(Edge(source, target, bool(asynchronous)))
    followers: dict[str, set[str]] = defaultdict(set)
    by_link = store.query(
        "select p.trace_id, p.service, c.service, c.trace_id from links l"
        " join spans p on p.trace_id = l.to_trace and p.span_id = l.to_span"
        " join spans c on c.trace_id = l.trace_id and c.span_id = l.span_id"
    )
    for trace, source, target, follower in by_link:
        own[trace].add(Edge(source, target, asynchronous=True))
        if follower != trace:
            followers[trace].add(follower)
    return {trace: set().union(*(own.get(one, ()) for one in _closure(trace, followers))) for trace in {*own, *followers}}


def _closure(trace: str, followers: Mapping[str, set[str]]) -> set[str]:
    reached, fresh = {trace}, [trace]
    while fresh:
        for follower in followers.get(fresh.pop(), ()):
            if follower not in reached:
                reached.add(follower)
                fresh.append(follower)
    return reached


def _orphans(store: Spans, known: Collection[str] | None) -> list[Break]:
    """Spans whose parent is not in the store.  The operation itself (second half of the trace's id) never is."""
    wanted = None if known is None else set(known)
    found = store.spans(
        "s.parent_id <> '' and s.parent_id <> substr(s.trace_id, 17)"
        " and not exists (select 1 from spans p where p.trace_id = s.trace_id and p.span_id = s.parent_id)"
    )
    return [
        Break("orphan", span.trace_id, f"{span.service}: {span.name!r} has a parent that never came", span.service,
              span.node if span.local else "", span.name, span.start_ns)
        for span in found if wanted is None or span.trace_id in wanted
    ]


def _broken(store: Spans, begin_ns: int, end_ns: int) -> list[Break]:
    """Spans that processed a message and have neither a parent nor a link: the context got lost on the way."""
    found = store.spans(_CUT_OFF, begin_ns, end_ns)
    return [
        Break("broken", span.trace_id, f"{span.service}: {span.name!r} {_place(span)}has neither a parent nor a link to its producer",
              span.service, span.node, span.name, span.start_ns)
        for span in found
    ]


def _place(span: Span) -> str:
    attrs = span.attrs
    topic, partition = attrs.get("messaging.destination.name"), attrs.get("messaging.destination.partition.id")
    offset = attrs.get("messaging.kafka.offset", attrs.get("messaging.kafka.message.offset"))
    return f"of {topic}/{partition}@{offset} " if topic is not None and offset is not None else ""


def _missing(
    store: Spans, edges: Sequence[Edge], roots: Mapping[str, str], by_trace: Mapping[str, set[Edge]],
) -> tuple[list[Break], tuple[Edge, ...]]:
    of_operation: dict[str, set[Edge]] = defaultdict(set)
    for trace, operation in roots.items():
        of_operation[operation] |= by_trace.get(trace, set())
    nowhere = [edge for edge in edges if not any(edge in found for found in of_operation.values())]
    took_part = _took_part(store, {edge.source for edge in nowhere}, roots)
    breaks = []
    for trace, operation in roots.items():
        expected = [edge for edge in edges if edge in of_operation[operation] or (edge in nowhere and trace in took_part[edge.source, edge.asynchronous])]
        breaks += [
            Break("missing", trace, f"{operation}: no {edge} in its trace", edge.target, edge=edge, operation=operation)
            for edge in expected if edge not in by_trace.get(trace, set())
        ]
    found = {one.edge for one in breaks}
    return breaks, tuple(edge for edge in nowhere if edge not in found)


def _uncaused(store: Spans, unseen: Iterable[Edge], roots: Mapping[str, str], begin_ns: int, end_ns: int) -> list[Break]:
    """Sends that have neither a parent nor a link, and are read as an edge that no operation has although its source took part in some."""
    found = []
    for edge in (each for each in unseen if each.asynchronous and _took_part(store, [each.source], roots)[each.source, False]):
        found += [
            Break("uncaused", span.trace_id, f"{edge} begins at {span.service}: {span.name!r}, which has neither a parent nor a link to what caused it",
                  span.service, span.node, span.name, span.start_ns, edge)
            for span in store.spans(_UNCAUSED, edge.source, begin_ns, end_ns, edge.target, edge.target)
        ]
    return found


def _took_part(store: Spans, services: Iterable[str], roots: Mapping[str, str]) -> dict[tuple[str, bool], set[str]]:
    """(service, asynchronous) → traces of operations in which it wrote a message, or took part at all."""
    traces: dict[tuple[str, bool], set[str]] = defaultdict(set)
    for service in services:
        for trace, writes in store.query("select trace_id, max(kind = 'producer') from spans where service = ? group by 1", service):
            if trace in roots:
                traces[service, False].add(trace)
                if writes:
                    traces[service, True].add(trace)
    return traces


def _excused(store: Spans, one: Break, losses: Sequence[Loss], edges: Iterable[Edge]) -> bool:
    """Whether a loss may explain a break: its node could have held the missing span, and at about that time."""
    suspects = [loss for loss in losses if may_hold(one, loss.node, loss.service, edges)]
    if one.kind == "broken" or not suspects:
        return False
    ((begin, end),) = store.query("select min(start_ns), max(end_ns) from spans where trace_id = ?", one.trace_id)
    return any(begin is None or (loss.to_ns >= begin and loss.from_ns <= end + LATE_NS) for loss in suspects)


def may_hold(one: Break, node: str, service: str, edges: Iterable[Edge]) -> bool:
    """Whether the span that is missing may be one of that node (of that service); `edges` are all known ones.

    A parent in the orphan's own process was made by its node.  Who should have made any other is not known: whichever replica
    took the request or the message.
    """
    if one.node and one.kind != "uncaused":
        return node == one.node
    if one.edge:
        return service in (one.edge.source, one.edge.target)
    return service == one.service or any(edge.source == service and edge.target == one.service for edge in edges)


def completeness(store: Spans) -> Completeness:
    """Reconciles what SDKs say they sent with what is stored."""
    stored = {str(node): int(count) for node, count in store.query("select node, count(*) from spans group by node")}
    sent = _rise(store, SENT, failed=False)
    dropped = Counter(_rise(store, SENT, failed=True)) + Counter(_rise(store, PROCESSED, failed=True))
    missing = {node: count - stored.get(node, 0) for node, count in sent.items() if count > stored.get(node, 0)}
    return Completeness(
        store.meta("spans_received"), sum(stored.values()), store.meta("undecodable"), sent, dict(dropped), missing,
        tuple(sorted(set(stored) - set(sent))),
    )


def _rise(store: Spans, metric: str, *, failed: bool) -> dict[str, int]:
    """By node, how much a cumulative counter rose inside the record; `failed` picks the points with an `error.type`."""
    begin_ns = store.meta("begin_ns")
    first: dict[tuple[str, int, str], float] = {}
    last: dict[tuple[str, int, str], float] = {}
    for point in store.points(metric):
        if ("error.type" in point.attrs) is failed and point.time_ns >= begin_ns:
            series = (point.node, point.start_ns, repr(sorted(point.attrs.items())))
            first.setdefault(series, 0.0 if point.start_ns >= begin_ns else point.value)
            last[series] = point.value
    risen: Counter[str] = Counter()
    for series, value in last.items():
        risen[series[0]] += round(value - first[series])
    return dict(risen)


def critical_path(spans: Iterable[Span]) -> tuple[tuple[Span, int], ...]:
    """The spans that the trace's end waited for, with the nanoseconds for which each was the one waited for, in order.

    From the root's end backwards: the child that ended last before the current instant is what was waited for, and so on
    inside it; the rest is the span's own (the algorithm of Jaeger's critical path).
    """
    spans = tuple(spans)
    ids = {span.span_id for span in spans}
    children: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        children[span.parent_id].append(span)
    roots = [span for span in spans if span.parent_id not in ids]
    if not roots:
        return ()
    own: Counter[str] = Counter()
    pending = [(root, root.end_ns) for root in (max(roots, key=lambda span: span.end_ns - span.start_ns),)]
    on_path: dict[str, Span] = {}
    while pending:
        span, until = pending.pop()
        on_path[span.span_id] = span
        for child in sorted(children[span.span_id], key=lambda child: child.end_ns, reverse=True):
            if child.start_ns < until and child.end_ns <= until and child.start_ns >= span.start_ns:
                own[span.span_id] += until - child.end_ns
                pending.append((child, child.end_ns))
                until = child.start_ns
        own[span.span_id] += until - span.start_ns
    return tuple((span, own[span.span_id]) for span in sorted(on_path.values(), key=lambda span: span.start_ns))


def error_origins(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Failed spans none of whose children failed: where an error came from, before it was passed up."""
    failed = [span for span in spans if span.error]
    passed_on = {span.parent_id for span in failed}
    return tuple(span for span in failed if span.span_id not in passed_on)
