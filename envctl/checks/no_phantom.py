"""no-phantom: everything that is there was caused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from envctl.checks.evidence import (
    SHOWN,
    Lives,
    OfTwoStreams,
    fields_of,
    finding,
    seconds,
    traffic_end_ns,
    two_streams,
    unreadable,
    within_s,
)
from envctl.model.verdict import Finding
from envctl.record import Observed, Operation, Record


@dataclass(slots=True)
class _Causes:
    """What may have caused something: ids for certain and perhaps, and how many operations of unknown outcome tell no id."""

    certain: set[str] = field(default_factory=set)
    possible: set[str] = field(default_factory=set)
    refused: dict[str, Operation] = field(default_factory=dict)  # id → the operation that is known not to have happened
    nameless: int = 0


class NoPhantom(OfTwoStreams):
    """`no-phantom: {in: published, of: accepted, within: 20s}`.

    Every id of `in` is in `of`.  An operation of unknown outcome may have taken effect: where its request tells its id, that id is no phantom;
    where only an answer would have told it, each such operation excuses one id.  One that failed excuses nothing: it is known not to have
    happened.  Where `of` is no operation, what was read sooner than `within` after the traffic is inconclusive.
    """

    name: ClassVar[str] = "no-phantom"
    schema: ClassVar[Mapping[str, Any]] = two_streams("in", "of")

    @classmethod
    def judge(cls, id: str, params: Mapping[str, Any], record: Record) -> Finding:
        """Fails on ids that nothing caused; inconclusive where their cause may have come after `of` was read."""
        effect, cause = params["in"], params["of"]
        if problem := unreadable(id, cls.name, record, effect, cause):
            return problem
        elements = record.stream(effect)
        if not elements:
            return finding(id, cls.name, "inconclusive", f"{effect} is empty, so nothing in it could be a phantom")
        causes = _causes(record, cause)
        strange = _strange(elements, causes)
        refused = [o for o in strange if o.id in causes.refused]
        excused = len(strange) - len(refused) if len(strange) - len(refused) <= causes.nameless else 0
        phantoms = refused if excused else strange
        nameless = sum(o.id is None for o in elements)
        stats = {"in": len(elements), "of": len(causes.certain), "phantoms": len(phantoms), "of_failed": len(refused), "nameless": nameless,
                 "excused": excused + len({o.id for o in elements} & causes.possible), "unknown_outcomes": causes.nameless + len(causes.possible)}
        if phantoms and (soon := _too_soon(record, params, phantoms)):
            return finding(id, cls.name, "inconclusive", soon, stats=stats)
        if phantoms:
            return _failed(id, params, record, phantoms, causes, stats)
        if nameless:
            return finding(id, cls.name, "inconclusive", f"{nameless:,} of {len(elements):,} in {effect} have no id", stats=stats)
        maybe = f"; {stats['excused']:,} of them may be of operations of unknown outcome" if stats["excused"] else ""
        return finding(id, cls.name, "pass", f"all {len(elements):,} {effect} were caused by {cause}{maybe}", stats=stats)


def _causes(record: Record, stream: str) -> _Causes:
    source = record.scenario.streams[stream]
    causes = _Causes({o.id for o in record.stream(stream) if o.id is not None})
    for op in record.operations if source.operation else ():
        if op.f != source.operation or op.type == "ok":
            continue
        told = fields_of(op, source).get("id")
        if op.type == "fail" and told is not None:
            causes.refused[str(told)] = op
        elif op.type == "info" and told is not None:
            causes.possible.add(str(told))
        elif op.type == "info":
            causes.nameless += 1
    causes.refused = {name: op for name, op in causes.refused.items() if name not in causes.certain | causes.possible}
    return causes


def _strange(elements: Sequence[Observed], causes: _Causes) -> list[Observed]:
    """The first element of each id that nothing which tells its id may have caused."""
    first = {o.id: o for o in reversed(elements) if o.id is not None}
    return [o for name, o in reversed(first.items()) if name not in causes.certain and name not in causes.possible]


def _too_soon(record: Record, params: Mapping[str, Any], phantoms: Sequence[Observed]) -> str:
    """Why their cause may merely not have been seen; empty where it would have been."""
    cause, read_at = params["of"], record.read_at(params["of"])
    if record.scenario.streams[cause].operation:
        return ""
    later = record.scenario.streams[params["in"]].topic and all(o.at_ns >= read_at for o in phantoms)
    if not later and read_at >= traffic_end_ns(record) + round(within_s(params) * 1e9):
        return ""
    return f"{cause} was read at {seconds(read_at)}, too soon to say whether it has {len(phantoms):,} that are in {params['in']}"


def _failed(
    id: str, params: Mapping[str, Any], record: Record, phantoms: Sequence[Observed], causes: _Causes, stats: Mapping[str, Any]
) -> Finding:
    effect, cause = params["in"], params["of"]
    shown = sorted(phantoms, key=lambda o: o.id not in causes.refused)[:SHOWN]
    lives = Lives(record, [o.id for o in shown if o.id is not None])
    evidence = [lives.tell(o.id or "", _ending(causes.refused.get(o.id or ""), cause)) for o in shown]
    title = f"{len(phantoms):,} in {effect} were not caused by {cause}"
    if causes.nameless and len(phantoms) > len([o for o in phantoms if o.id in causes.refused]):
        title += f", of which {causes.nameless:,} operations of unknown outcome may explain as many"
    return finding(id, NoPhantom.name, "fail", title, evidence=evidence, total=len(phantoms), stats=stats)


def _ending(refused: Operation | None, cause: str) -> str:
    if refused is None:
        return f"never in {cause}"
    why = refused.unsent or refused.response.get("error") or f"status {refused.response.get('status', 'unknown')}"
    return f"though operation {refused.op} failed at {seconds(refused.end_ns or refused.start_ns)} ({why})"
