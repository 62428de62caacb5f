"""converges: several sources say the same in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from envctl.checks.evidence import DURATION, SHOWN, STREAM, Lives, finding, seconds, traffic_end_ns, unreadable, within_s
from envctl.checks.no_duplicates import same
from envctl.model.verdict import Finding
from envctl.record import Record

State = dict[str, Any]  # id → value
ABSENT = object()


class Converges:
    """`converges: {sources: [orders, reporting], within: 20s}`.

    At most `within` after the traffic all sources have the same ids with the same values (of an id that recurs the newest
    counts).  Operations of unknown outcome may be anywhere: where a source is an operation, others may have as many more
    ids as it has unknown outcomes.
    """

    name: ClassVar[str] = "converges"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["sources"],
        "additionalProperties": False,
        "properties": {"sources": {"type": "array", "items": STREAM, "minItems": 2, "uniqueItems": True}, "within": DURATION},
    }

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The sources."""
        return tuple(("stream", source) for source in params["sources"])

    @classmethod
    def waits_s(cls, params: Mapping[str, Any]) -> float:
        """Its `within`."""
        return within_s(params)

    @classmethod
    def judge(cls, id: str, params: Mapping[str, Any], record: Record) -> Finding:
        """Fails on ids on which the newest round of the sources disagrees; inconclusive where that round came too soon."""
        sources = tuple(params["sources"])
        if problem := unreadable(id, cls.name, record, *sources):
            return problem
        states = {source: _state(record, source) for source in sources}
        ids = set().union(*states.values())
        nameless = {source: sum(o.id is None for o in record.stream(source)) for source in sources}
        if not ids and not any(nameless.values()):
            return finding(id, cls.name, "inconclusive", f"{_and(sources)} are all empty, which is no agreement")
        apart = sorted(name for name in ids if not _agree(states, name))
        excused = _excused(record, states, apart)
        wrong = [name for name in apart if name not in excused]
        stats = {"ids": len(ids), "apart": len(wrong), "unknown_outcomes": len(excused), "nameless": sum(nameless.values()),
                 **{f"ids_{source}": len(state) for source, state in states.items()}}
        if not wrong and any(nameless.values()):
            title = ", ".join(f"{count:,} of {len(record.stream(source)):,} {source}" for source, count in nameless.items() if count)
            return finding(id, cls.name, "inconclusive", f"{title} have no id to compare by", stats=stats)
        if not wrong:
            return finding(id, cls.name, "pass", f"{_and(sources)} agree on {len(ids) - len(excused):,} ids", stats=stats)
        read_at = min(record.read_at(source) for source in sources)
        if read_at < traffic_end_ns(record) + round(within_s(params) * 1e9):
            title = f"{_and(sources)} were read at {seconds(read_at)}, too soon to say whether {len(wrong):,} ids would agree"
            return finding(id, cls.name, "inconclusive", title, stats=stats)
        lives = Lives(record, wrong[:SHOWN])
        evidence = [lives.tell(name, _words(states, name)) for name in wrong[:SHOWN]]
        return finding(id, cls.name, "fail", f"{_and(sources)} disagree on {len(wrong):,} of {len(ids):,} ids",
                       evidence=evidence, total=len(wrong), stats=stats)


def _state(record: Record, source: str) -> State:
    return {o.id: o.value for o in record.stream(source) if o.id is not None}


def _agree(states: Mapping[str, State], id: str) -> bool:
    first, *others = (state.get(id, ABSENT) for state in states.values())
    return all((first is ABSENT) == (other is ABSENT) and same(first, other) for other in others)


def _excused(record: Record, states: Mapping[str, State], apart: Sequence[str]) -> set[str]:
    """Ids that an operation stream lacks and its unknown outcomes explain: all of them, or none when they are too many."""
    excused: set[str] = set()
    for source, state in states.items():
        operation = record.scenario.streams[source].operation
        others = {name: value for name, value in states.items() if not record.scenario.streams[name].operation}
        extra = {id for id in apart if id not in state and _agree(others, id)} if operation and others else set()
        unknown = sum(op.f == operation and op.type == "info" for op in record.operations)
        excused |= extra if len(extra) <= unknown else set()
    return excused


def _words(states: Mapping[str, State], id: str) -> str:
    return ", ".join(f"{source}: {state[id]!r}" if id in state else f"not in {source}" for source, state in states.items())


def _and(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
