"""What checks share: parameters, wording, and the life of a message as the record tells it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Literal

from envctl.model.event import Sample
from envctl.model.scenario import Stream
from envctl.model.verdict import Evidence, Finding, Outcome
from envctl.record import Observed, Operation, Record, pick
from envctl.spec.units import duration_s
from envctl.telemetry.store import Spans

SHOWN = 10  # instances that a finding carries; `total` has the count of all
AFTERMATH_NS = 1_000_000_000  # a fault this soon after the last sign of life may be what ended it
LAG = "kafka.consumer_group.lag"

STREAM = {"type": "string", "minLength": 1, "description": "name of a stream under `observe`"}
DURATION = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*$", "description": "such as 20s"}


def within_ns(params: Mapping[str, Any]) -> int | None:
    """The parameter `within` in nanoseconds; None where it is not given."""
    return round(duration_s(params["within"]) * 1e9) if "within" in params else None


def within_s(params: Mapping[str, Any]) -> float:
    """The parameter `within` in seconds, 0 where it is not given."""
    return duration_s(params["within"]) if "within" in params else 0.0


class OfTwoStreams:
    """A check that holds one stream against another; its schema is that of `two_streams`."""

    schema: ClassVar[Mapping[str, Any]]

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """Both streams."""
        return tuple(("stream", params[end]) for end in cls.schema["required"])

    @classmethod
    def waits_s(cls, params: Mapping[str, Any]) -> float:
        """Its `within`."""
        return within_s(params)


def two_streams(one: str, other: str) -> Mapping[str, Any]:
    """The schema of parameters that name two streams, and may say `within`."""
    return {"type": "object", "required": [one, other], "additionalProperties": False, "properties": {one: STREAM, other: STREAM, "within": DURATION}}


def seconds(ns: int) -> str:
    """A time of the run for a person: `14.21 s`."""
    return f"{ns / 1e9:.2f} s"


def short(id: str) -> str:
    """An id that fits into a line: `7f3a9c01…`; short ones whole."""
    return id if len(id) <= 14 else f"{id[:8]}…"


def finding(
    id: str,
    check: str,
    outcome: Outcome,
    title: str,
    *,
    evidence: Iterable[Evidence] = (),
    total: int = 0,
    stats: Mapping[str, Any] | None = None,
    fixed: bool = False,
) -> Finding:
    """A finding that carries the first few pieces of evidence; `stats` are figures for the report."""
    shown = tuple(evidence)[:SHOWN]
    group: Literal["slo", "check"] = "slo" if check == "slo" else "check"
    return Finding(id, check, outcome, title, group, shown, max(total, len(shown)), stats or {}, fixed=fixed)


def decimal_of(text: str) -> Decimal | None:
    """The number that a plain decimal text is (`-7`, `12.50`); None for any other text, such as `007` or `1e3`."""
    return Decimal(text) if re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", text) else None


def unreadable(id: str, check: str, record: Record, *streams: str) -> Finding | None:
    """The inconclusive finding of a check whose streams can't be relied on, or are empty; None when they can."""
    reasons = [reason for name in streams if (reason := record.unread(name))]
    return finding(id, check, "inconclusive", "; ".join(reasons)) if reasons else None


def traffic_end_ns(record: Record) -> int:
    """When the last operation was answered, or given up."""
    return max((op.end_ns if op.end_ns is not None else op.start_ns for op in record.operations), default=0)


def roots_of(op: Operation) -> Mapping[str, Any]:
    """What expressions such as `response.order_id` start from, for an operation of any outcome."""
    return {"request": op.request, "response": op.response, "key": op.key, "op": op.op, "f": op.f}


def fields_of(op: Operation, stream: Stream) -> Mapping[str, Any]:
    """What the fields of a stream come to for an operation of any outcome; the stream itself holds the acknowledged ones only."""
    roots = roots_of(op)
    return {name: pick(expression, roots) for name, expression in stream.fields.items()}


@dataclass(frozen=True, slots=True)
class Moment:
    """One sign of life of an id: what the record says about it at one instant."""

    at_ns: int
    text: str
    trace_id: str | None = None


class Lives:
    """Follows ids through every stream of a record; made for the few ids a finding shows.

    `groups` are the consumer groups whose reading and committing is told; all of them when it is empty.
    """

    def __init__(self, record: Record, ids: Iterable[str], groups: Collection[str] = ()) -> None:
        self._record = record
        self._groups = groups
        self._spans = spans_of(record)
        self._moments: dict[str, list[Moment]] = {id: [] for id in ids}
        for name in record.scenario.streams:
            for observed in record.stream(name):
                if observed.id in self._moments:
                    self._moments[observed.id].append(self._seen(name, observed))
                    place = record.source(observed)
                    if "offset" in place:
                        self._moments[observed.id] += self._committed(place)
                        self._moments[observed.id] += self._read(place)

    def _seen(self, stream: str, observed: Observed) -> Moment:
        operation = self._record.by_number(observed.op) if observed.op is not None else None
        place = self._record.source(observed)
        if "offset" in place:
            where = f" to {place.get('topic')}/{place.get('partition')}@{place['offset']}"
            return Moment(observed.at_ns, f"{stream} {seconds(observed.at_ns)}{where}", _trace(place))
        if operation is None:
            return Moment(observed.at_ns, f"in {stream} when read at {seconds(observed.at_ns)}")
        return Moment(observed.at_ns, f"{stream} {seconds(observed.at_ns)}", operation.trace_id)

    def _committed(self, place: Mapping[str, Any]) -> list[Moment]:
        """For each group that reads the partition, the first sample that shows the offset as committed."""
        seen: dict[str, Sample] = {}
        for sample in self._record.samples(LAG):
            attrs = sample.attrs
            same = attrs.get("topic") == place.get("topic") and attrs.get("partition") == place.get("partition")
            group = str(attrs.get("group"))
            if same and (attrs.get("committed") or 0) > place["offset"] and (not self._groups or group in self._groups):
                seen.setdefault(group, sample)
        return [Moment(s.at_ns, f"offset committed by {group} at {seconds(s.at_ns)} or before")
                for group, s in seen.items() if s.at_ns > 0]

    def _read(self, place: Mapping[str, Any]) -> list[Moment]:
        """Every processing of the message that left a span."""
        if self._spans is None:
            return []
        found = []
        for span in self._spans.processing(str(place.get("topic")), str(place.get("partition")), int(place["offset"])):
            if self._groups and span.attrs.get("messaging.consumer.group.name") not in self._groups:
                continue
            at = span.start_ns - self._record.manifest.epoch_ns
            failed = f" with an error ({span.message})" if span.error else ""
            found.append(Moment(at, f"read by {span.node} at {seconds(at)}{failed}", span.trace_id))
        return found

    def tell(self, id: str, ending: str, *, since_ns: int | None = None, until_ns: int | None = None) -> Evidence:
        """The evidence about one id: its life in order, how it ended, the faults around it and its traces."""
        moments = sorted(self._moments.get(id, ()), key=lambda moment: moment.at_ns)
        times = [moment.at_ns for moment in moments if moment.at_ns >= 0]
        start = since_ns if since_ns is not None else min(times, default=0)
        end = until_ns if until_ns is not None else max(times, default=start) + AFTERMATH_NS
        faults = self._record.overlapping(start, end)
        traces = tuple(dict.fromkeys(moment.trace_id for moment in moments if moment.trace_id))
        told = ", ".join((*(moment.text for moment in moments), ending))
        return Evidence(f"{short(id)} {told}{during(self._record, faults)}{trace_words(traces)}", ids=(id,), at_ns=start,
                        faults=faults, traces=traces)


def spans_of(record: Record) -> Spans | None:
    """The spans of a run; None where none were collected."""
    try:
        return Spans(record.directory / "telemetry")
    except FileNotFoundError:
        return None


def _trace(place: Mapping[str, Any]) -> str | None:
    found = place.get("trace_id")
    return str(found) if found else None


def during(record: Record, faults: Sequence[str]) -> str:
    """`; under node-kill (14.27 s)`, or nothing."""
    starts = {window.id: window.start_ns for window in record.faults}
    names = ", ".join(f"{id} ({seconds(starts[id] or 0)})" for id in faults)
    return f"; under {names}" if names else ""


def trace_words(traces: Sequence[str]) -> str:
    """`  trace 4bf9…`, or nothing."""
    return f"  trace {traces[0]}" if traces else ""
