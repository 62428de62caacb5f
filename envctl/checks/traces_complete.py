"""traces-complete: the traces of acknowledged operations are whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from envctl.checks.evidence import during, finding, seconds, spans_of, trace_words
from envctl.model.verdict import Evidence, Finding
from envctl.record import Operation, Record
from envctl.telemetry.store import Spans
from envctl.telemetry.traces import Break, Completeness, Edge, Loss, TraceAnalysis, analyse, completeness, may_hold

SHOWN_TRACES = 5
DYING_NS = 10_000_000_000  # from a node's last exported span to the record of its restart, generously
ENOUGH = 0.5  # share of the operations that must be certain for a pass
WORDS = {"missing": "lack an edge", "orphan": "have spans whose parent never came", "broken": "messages were processed outside their trace",
         "uncaused": "messages were sent outside the trace of what caused them"}


class TracesComplete:
    """`traces-complete: {edges: [gateway -> orders, orders ~> payments], operations: [place_order]}`.

    Every acknowledged operation's trace has the edges that operations of its name have (`->` a call, `~>` a message), no
    span whose parent never came, and every message was processed in its producer's trace or linked to it.  An edge that no operation has is
    broken where its messages begin traces of their own, though their sender takes part in operations.  What was lost
    with a killed node excuses what it may have sent; lost telemetry makes the answer inconclusive, and so does a break at a service that
    doesn't count what it exports: some of it may have been lost unseen.
    """

    name: ClassVar[str] = "traces-complete"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["edges"],
        "additionalProperties": False,
        "properties": {
            "edges": {
                "type": "array",
                "items": {"type": "string", "pattern": r"^\s*[\w.-]+\s*(->|~>)\s*[\w.-]+\s*$", "description": "a -> b or a ~> b"},
                "minItems": 1,
            },
            "operations": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "default: all"},
        },
    }

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The components at both ends of every edge."""
        edges = [Edge.parse(text) for text in params["edges"]]
        return tuple(("component", name) for edge in edges for name in (edge.source, edge.target))

    @classmethod
    def waits_s(cls, params: Mapping[str, Any]) -> float:
        """Nothing: spans are collected until none comes any more."""
        del params
        return 0.0

    @classmethod
    def judge(cls, id: str, params: Mapping[str, Any], record: Record) -> Finding:
        """Fails on breaks that no known loss explains; inconclusive where telemetry was lost, or too little is certain."""
        wanted = params.get("operations")
        operations = {op.trace_id: op for op in record.operations
                      if op.type == "ok" and op.trace_id and (wanted is None or op.f in wanted)}
        store = spans_of(record)
        if store is None or not operations:
            missing = "no spans were collected" if store is None else "no acknowledged operation has a trace"
            return finding(id, cls.name, "inconclusive", missing)
        with store:
            analysis = _analyse(store, params["edges"], operations, record)
            state = completeness(store)
        certain = [each for each in analysis.breaks if _certain(record, each, analysis, state)]
        unsure = {each.trace_id for each in analysis.unsure} & set(operations)
        stats = {"operations": len(operations), "spans": analysis.spans, "breaks": len(certain), "unsure": len(unsure),
                 "detached": analysis.detached, "received": state.received, "stored": state.stored,
                 "edges": {str(edge): count for edge, count in sorted(analysis.seen.items())}}
        if certain:
            return finding(id, cls.name, "fail", _title(certain, len(operations)), evidence=_evidence(record, certain, operations),
                           total=len(_grouped(certain)), stats=stats)
        if doubt := _doubt(analysis, state, len(unsure), len(operations)):
            return finding(id, cls.name, "inconclusive", doubt, evidence=_evidence(record, analysis.breaks, operations), stats=stats)
        title = f"the traces of {len(operations) - len(unsure):,} operations are whole"
        excused = f"; those of {len(unsure):,} more may have lost spans with a killed node" if unsure else ""
        return finding(id, cls.name, "pass", title + excused, stats=stats)


def _analyse(store: Spans, edges: Sequence[str], operations: Mapping[str, Operation], record: Record) -> TraceAnalysis:
    epoch = record.manifest.epoch_ns
    roots = {trace: op.f for trace, op in operations.items()}
    return analyse(store, [Edge.parse(text) for text in edges], roots, known=operations, window=(epoch, epoch + record.end_ns),
                   losses=losses(record))


def losses(record: Record) -> list[Loss]:
    """What nodes had not exported when they were seen to have been killed or restarted."""
    deaths = [(str(log.detail["node"]), log.at_ns) for log in record.logs if "node" in log.detail]
    deaths += [(str(node["node"]), edge.at_ns) for window in record.faults for edge in window.edges
               for node in edge.detail.get("nodes", ()) if isinstance(node, dict) and node.get("exit_status") is not None]
    epoch = record.manifest.epoch_ns
    return [Loss(name, _service(record, name), epoch + at - DYING_NS, epoch + at) for name, at in deaths]


def _service(record: Record, name: str) -> str:
    return next((node.component for node in record.manifest.nodes if node.name == name), name.rpartition("-")[0])


def _certain(record: Record, each: Break, analysis: TraceAnalysis, state: Completeness) -> bool:
    """Whether no lost export can explain a break.  An edge that no trace at all has was not lost on the way."""
    if each.kind == "broken":
        return True
    never = each.edge is not None and each.edge not in analysis.seen
    return state.whole and (never or not any(may_hold(each, node, _service(record, node), analysis.seen) for node in state.uncounted))


def _doubt(analysis: TraceAnalysis, state: Completeness, unsure: int, operations: int) -> str:
    """Why nothing can be said; empty when something can."""
    if not state.whole:
        lost = sum(state.missing.values()) + sum(state.dropped.values())
        nodes = ", ".join(sorted({*state.missing, *(node for node, count in state.dropped.items() if count)}))
        return f"telemetry was lost: {lost:,} spans of {nodes or 'unknown nodes'}, {state.undecodable:,} requests that can't be read"
    if analysis.breaks:
        nodes = ", ".join(state.uncounted)
        return f"{_title(analysis.breaks, operations)}, but {nodes} count no exports, so that spans may have been lost on the way"
    if analysis.unseen:
        return f"{', '.join(str(edge) for edge in analysis.unseen)} was never seen, and neither was {analysis.unseen[0].source} taking part"
    if operations - unsure < ENOUGH * operations:
        return f"of {operations:,} operations {unsure:,} may have lost spans with a killed node"
    return ""


def _title(breaks: Sequence[Break], operations: int) -> str:
    parts = []
    for kind, words in WORDS.items():
        found = [each for each in breaks if each.kind == kind]
        traces = len({each.trace_id for each in found})
        if kind in ("broken", "uncaused") and found:
            parts.append(f"{len(found):,} {words}")
        elif found:
            parts.append(f"{traces:,} of {operations:,} traces {words}")
    return "; ".join(parts)


def _grouped(breaks: Sequence[Break]) -> dict[tuple[str, str], list[Break]]:
    """Breaks that say the same of different traces; the most frequent first."""
    groups: dict[tuple[str, str], list[Break]] = {}
    for each in breaks:
        what = str(each.edge) if each.edge else each.span
        groups.setdefault((each.kind, f"{each.operation or each.service} {what}"), []).append(each)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def _evidence(record: Record, breaks: Sequence[Break], operations: Mapping[str, Operation]) -> list[Evidence]:
    return [_told(record, group, operations) for group in _grouped(breaks).values()]


def _told(record: Record, group: Sequence[Break], operations: Mapping[str, Operation]) -> Evidence:
    times = sorted(_at(record, each, operations) for each in group)
    faults = record.overlapping(times[0], times[-1])
    traces = tuple(dict.fromkeys(each.trace_id for each in group))[:SHOWN_TRACES]
    ids = tuple(str(operations[trace].op) for trace in traces if trace in operations)
    which = f" (operation {ids[0]})" if ids else ""
    text = f"{len(group):,} × {group[0].summary}, {seconds(times[0])} – {seconds(times[-1])}{during(record, faults)}{trace_words(traces)}{which}"
    return Evidence(text, ids=ids, at_ns=times[0], faults=faults, traces=traces)


def _at(record: Record, each: Break, operations: Mapping[str, Operation]) -> int:
    if each.at_ns:
        return each.at_ns - record.manifest.epoch_ns
    operation = operations.get(each.trace_id)
    return operation.start_ns if operation else 0
