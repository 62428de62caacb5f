"""queue-model: a topic is the log that its producers and consumers were told of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from envctl.checks.evidence import (
    DURATION,
    STREAM,
    Lives,
    fields_of,
    finding,
    seconds,
    spans_of,
    traffic_end_ns,
    unreadable,
    within_s,
)
from envctl.checks.traces_complete import losses
from envctl.consistency.queue import ANOMALIES, Anomaly, anomalies, worst_first
from envctl.model import history
from envctl.model.history import History
from envctl.model.scenario import Stream
from envctl.model.verdict import Evidence, Finding
from envctl.record import Observed, Operation, Record, pick
from envctl.telemetry.store import Span, Spans
from envctl.telemetry.traces import completeness

NOWHERE = "unknown"  # the partition of what was never read
KNOWN = {"type": "array", "items": {"enum": list(ANOMALIES)}, "minItems": 1, "uniqueItems": True}
PROCESSED = ("s.kind = 'consumer' and json_extract(s.attrs, '$.\"messaging.destination.name\"') = ?"
             " and json_extract(s.attrs, '$.\"messaging.consumer.group.name\"') = ?")


class _Message(NamedTuple):
    """A message as it was read, and where it stands."""

    observed: Observed
    partition: str
    offset: int

    @property
    def id(self) -> str | None:
        return self.observed.id


class QueueModel:
    """`queue-model: {topic: orders.placed, sent: accepted, group: payments, allow: [duplicate], within: 20s}`.

    What was sent is what the traffic sends to the topic itself and, where `sent` names a stream of operations, those; what was polled is
    the topic as it was read after the run, by a stream that observes it.  With `group`, every message must have been processed by a member of it,
    as its spans tell: one with an error was an attempt, no more.  Anomalies in `allow` don't count: a producer that sends again after an unknown outcome may leave a duplicate.
    """

    name: ClassVar[str] = "queue-model"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["topic"],
        "additionalProperties": False,
        "properties": {
            "topic": {"type": "string", "minLength": 1, "description": "a topic that a stream observes"},
            "sent": {**STREAM, "description": "operations that end in the topic, with the ids of its messages"},
            "group": {"type": "string", "minLength": 1, "description": "a consumer group that must have processed every message"},
            "allow": {**KNOWN, "description": "anomalies that are none here"},
            "within": DURATION,
        },
    }

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The topic, and what else is named."""
        named = (("stream", "sent"), ("group", "group"))
        return (("topic", params["topic"]), *((kind, params[field]) for kind, field in named if field in params))

    @classmethod
    def waits_s(cls, params: Mapping[str, Any]) -> float:
        """Its `within`."""
        return within_s(params)

    @classmethod
    def judge(cls, id: str, params: Mapping[str, Any], record: Record) -> Finding:
        """Fails on anomalies; inconclusive where the topic was read too soon, or lost telemetry may be why a message seems not processed."""
        stream = next((each for each in record.scenario.streams.values() if each.topic == params["topic"]), None)
        if stream is None:
            return finding(id, cls.name, "inconclusive", f"no stream observes {params['topic']}")
        if problem := unreadable(id, cls.name, record, stream.name, *([params["sent"]] if "sent" in params else [])):
            return problem
        messages = [_placed(record, o) for o in record.stream(stream.name)]
        if not messages:
            return finding(id, cls.name, "inconclusive", f"nothing was in {params['topic']}")
        sends = list(_sends(record, params, stream, messages))
        if not sends:
            return finding(id, cls.name, "inconclusive", f"no operation is known to have sent to {params['topic']}, so there is nothing to hold its messages against")
        allowed = set(params.get("allow", ()))
        found = [each for each in anomalies(_history(sends, messages, record, stream)) if each.name not in allowed]
        processed = _Processed([], "") if "group" not in params or not _drained(record) else _unprocessed(record, params, messages)
        found += [each for each in processed.missing if each.name not in allowed and not processed.unsure]
        names = {name: count for name in ANOMALIES if (count := sum(each.name == name for each in found))}
        nameless = sum(o.id is None for o in messages)
        stats = {"sent": len(sends), "messages": len(messages), "nameless": nameless, "unprocessed": len(processed.missing), "anomalies": names}
        if found and {*names} <= {"lost-write", "unseen"} and record.read_at(stream.name) < traffic_end_ns(record) + round(within_s(params) * 1e9):
            title = f"{params['topic']} was read at {seconds(record.read_at(stream.name))}, too soon to say whether {len(found):,} more would come"
            return finding(id, cls.name, "inconclusive", title, stats=stats)
        if found:
            title = f"{params['topic']} is not the log that was written: " + ", ".join(f"{count:,} {name}" for name, count in names.items())
            return finding(id, cls.name, "fail", title, evidence=_evidence(record, found), total=len(found), stats=stats)
        if processed.unsure or nameless:
            why = processed.unsure or f"{nameless:,} of {len(messages):,} messages have no id"
            return finding(id, cls.name, "inconclusive", why, stats=stats)
        words = f", and {params['group']} processed all of them" if "group" in params else ""
        return finding(id, cls.name, "pass", f"{len(messages):,} messages of {params['topic']} are the log that {len(sends):,} sends make{words}", stats=stats)


# --- sent and read ---------------------------------------------------------------------------------------------------


def _placed(record: Record, observed: Observed) -> _Message:
    place = record.source(observed)
    return _Message(observed, str(place.get("partition")), int(place.get("offset", -1)))


def _sends(record: Record, params: Mapping[str, Any], stream: Stream, messages: Sequence[_Message]) -> Iterator[history.Operation]:
    """The operations that send to the topic, each with the id of its message; those that tell none, or were never sent, are left out."""
    where = {message.id: message.partition for message in reversed(messages)}
    for op in record.operations:
        if op.unsent or (found := _sent(record, op, params, stream)) is None:
            continue
        id, told = found
        partition, offset = (str(told["partition"]), told["offset"]) if "offset" in told else (where.get(id, NOWHERE), None)
        words = f"{op.f} #{op.op} at {seconds(op.start_ns)}"
        yield history.Operation(op.op, op.process, "send", partition, id, [offset, id] if op.type == "ok" else None, op.type, op.op, None, op.start_ns, words)


def _sent(record: Record, op: Operation, params: Mapping[str, Any], stream: Stream) -> tuple[str, Mapping[str, Any]] | None:
    """The id of the message that an operation sends, and what its answer tells of its place."""
    if op.target == params["topic"] and (request := op.request).get("protocol") == "kafka":
        roots = {"value": request.get("body"), "key": op.key, "headers": request.get("headers")}
        id = pick(stream.fields["id"], roots)
        return (str(id), op.response if op.type == "ok" else {}) if id is not None else None
    if "sent" not in params or op.f != record.scenario.streams[params["sent"]].operation:
        return None
    id = fields_of(op, record.scenario.streams[params["sent"]]).get("id")
    return (str(id), {}) if id is not None else None


def _history(sends: Sequence[history.Operation], messages: Sequence[_Message], record: Record, stream: Stream) -> History:
    """The sends, and one poll of everything."""
    told: dict[str, list[list[Any]]] = {}
    for message in messages:
        if message.id is not None:
            told.setdefault(message.partition, []).append([message.offset, message.id])
    last = max((each.began for each in sends), default=0) + 1
    words = f"envctl, which read {stream.name} at {seconds(record.read_at(stream.name))},"
    return History([*sends, history.Operation(last, "envctl", "poll", None, None, told, "ok", last, last + 1, None, words)])


# --- processed -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Processed:
    """Messages that a group was not seen to process, and why that may not be so."""

    missing: Sequence[Anomaly]
    unsure: str


def _drained(record: Record) -> bool:
    """Whether the spans are there: before they are, a round of reading says nothing of them."""
    return any(step.name == "drain" for step in record.steps) or spans_of(record) is not None


def _unprocessed(record: Record, params: Mapping[str, Any], messages: Sequence[_Message]) -> _Processed:
    """Messages without a span of the group that is no error: skipped where a later one of their partition has one, unseen elsewhere."""
    group, store = params["group"], spans_of(record)
    if store is None:
        return _Processed([], "no spans were collected")
    with store:
        spans = list(store.spans(PROCESSED, params["topic"], group))
        doubt = _doubt(record, store, {span.service for span in spans}, {span.node for span in spans})
    done, tried = ({_place(span) for span in spans if span.error is failed} for failed in (False, True))
    furthest: dict[str, int] = {}
    for partition, offset in done:
        furthest[partition] = max(furthest.get(partition, -1), offset if isinstance(offset, int) else -1)
    missing = []
    for observed, partition, offset in messages:
        if (partition, offset) not in done:
            beyond = furthest.get(partition, -1)
            name = "poll-skip" if beyond > offset else "unseen"
            text = f"{group} {'failed to process' if (partition, offset) in tried else 'never processed'} it" + (f", though it processed {params['topic']}/{partition}@{beyond}" if name == "poll-skip" else "")
            missing.append(Anomaly(name, text, (), partition, (observed.id or "",)))
    if not spans:
        return _Processed(missing, f"no processing of {params['topic']} by {group} left a span")
    return _Processed(missing, f"{len(missing):,} messages have no span of their processing by {group}, but {doubt}" if missing and doubt else "")


def _place(span: Span) -> tuple[str, Any]:
    """Partition and offset of the message that a span is about."""
    return str(span.attrs.get("messaging.destination.partition.id")), span.attrs.get("messaging.kafka.offset")


def _doubt(record: Record, store: Spans, services: set[str], nodes: set[str]) -> str:
    """Why spans of a group may have been lost; empty where they were not."""
    state = completeness(store)
    if not state.whole:
        return "telemetry was lost"
    if uncounted := nodes & set(state.uncounted):
        return f"{', '.join(sorted(uncounted))} count no exports, so that spans may have been lost on the way"
    killed = sorted({loss.node for loss in losses(record) if loss.service in services})
    return f"spans may have been lost with {', '.join(killed)}, which was killed" if killed else ""


def _evidence(record: Record, found: Sequence[Anomaly]) -> list[Evidence]:
    shown = worst_first(found)
    lives = Lives(record, [str(value) for each in shown for value in each.values])
    return [lives.tell(str(each.values[0]), f"{each.name}: {each.text}") for each in shown]
