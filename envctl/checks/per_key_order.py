"""per-key-order: what belongs to one key came in its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from envctl.checks.evidence import SHOWN, STREAM, Lives, decimal_of, finding, short, unreadable
from envctl.model.verdict import Evidence, Finding
from envctl.record import Observed, Record

Span = tuple[Any, Any]  # began, ended, comparable; of a rank both are the rank


@dataclass(frozen=True, slots=True)
class _Swap:
    """`late` stands behind `early` in the judged stream, though it had ended before `early` began."""

    key: str
    early: Observed
    late: Observed


class PerKeyOrder:
    """`per-key-order: {in: published, as: accepted}`.

    For each key, an element whose operation in `as` was answered before another one's was sent stands before it in `in`;
    operations that overlapped may stand either way.  Messages stand in the order of their partition, and a key in two
    partitions has no order at all, which fails too.  An id that recurs counts where it stands first.  Without `as`, the
    values of the stream's own `order` never fall.
    """

    name: ClassVar[str] = "per-key-order"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["in"],
        "additionalProperties": False,
        "properties": {"in": STREAM, "as": STREAM},
    }

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """One stream or two."""
        return tuple(("stream", params[name]) for name in ("in", "as") if name in params)

    @classmethod
    def waits_s(cls, params: Mapping[str, Any]) -> float:
        """Order can't mend itself; nothing to wait for."""
        del params
        return 0.0

    @classmethod
    def judge(cls, id: str, params: Mapping[str, Any], record: Record) -> Finding:
        """Fails on swapped elements and split keys; inconclusive where no key has two elements to compare."""
        stream, model = params["in"], params.get("as")
        names = [stream, model] if model else [stream]
        if problem := unreadable(id, cls.name, record, *names):
            return problem
        elements = record.stream(stream)
        spans = _spans(record, model) if model else _own(elements)
        lacking = {(what, name): count for what, name in _needed(record, stream, model)
                   if (count := sum(getattr(o, what) is None for o in record.stream(name)))}
        keyless, nameless, orderless = (sum(n for (what, _), n in lacking.items() if what == each) for each in ("key", "id", "order"))
        chains = _chains(record, stream, elements, spans, by_model=bool(model))
        split = {key: parts for key, chain in chains.items() if len(parts := {o.partition for o in chain}) > 1}
        swaps = [swap for key, chain in chains.items() if key not in split for swap in _swaps(key, chain, spans)]
        compared = sum(len(chain) > 1 for chain in chains.values())
        stats = {"elements": len(elements), "keys": len(chains), "compared_keys": compared, "swapped": len(swaps),
                 "split_keys": len(split), "keyless": keyless, "nameless": nameless, "orderless": orderless}
        if swaps or split:
            evidence = [*_swapped(record, stream, swaps[:SHOWN]), *_splits(stream, split)]
            return finding(id, cls.name, "fail", _title(stream, model, chains, swaps, split), evidence=evidence,
                           total=len(swaps) + len(split), stats=stats)
        if lacking:
            return finding(id, cls.name, "inconclusive", "; ".join(_lacks(record, lacking)), stats=stats)
        if not compared:
            return finding(id, cls.name, "inconclusive", f"no key has two elements in {' and '.join(names)} to compare", stats=stats)
        return finding(id, cls.name, "pass", f"{compared:,} keys of {stream} are in order", stats=stats)


def _spans(record: Record, model: str) -> dict[str | None, Span]:
    """When each id of the model came about; for messages and rows, where they stand."""
    timed = bool(record.scenario.streams[model].operation)
    found: dict[str | None, Span] = {}
    for rank, o in enumerate(_standing(record, model, record.stream(model))):
        found.setdefault(o.id, (o.start_ns, o.at_ns) if timed else (rank, rank))
    return found


def _own(elements: Sequence[Observed]) -> dict[str | None, Span]:
    return {o.id: (rank, rank) for o in reversed(elements) if (rank := _rank(o)) is not None}


def _rank(o: Observed) -> Any:
    """Its `order`; a decimal that came as text is a number, so that 9 stands before 10."""
    number = decimal_of(o.order) if isinstance(o.order, str) else None
    return o.order if number is None else number


def _needed(record: Record, stream: str, model: str | None) -> list[tuple[str, str]]:
    """(field, stream) of what every element must have: what lacks it was not compared."""
    needed = [("key", stream), ("id", stream)]
    if not model:
        return [*needed, ("order", stream)]
    ranked = [name for name in (stream, model) if _ranked(record, name)]
    return [*needed, ("id", model), *(("order", name) for name in ranked)]


def _ranked(record: Record, stream: str) -> bool:
    """Whether a stream's elements stand by their `order`, and not as they were read."""
    source = record.scenario.streams[stream]
    return "order" in source.fields and not source.topic


def _lacks(record: Record, lacking: Mapping[tuple[str, str], int]) -> list[str]:
    return [f"{count:,} of {len(record.stream(name)):,} in {name} have no {what}" for (what, name), count in lacking.items()]


def _standing(record: Record, stream: str, elements: Sequence[Observed]) -> Sequence[Observed]:
    """Elements as they stand: messages by offset as they were read, others by `order` where all have one."""
    if record.scenario.streams[stream].topic or any(o.order is None for o in elements):
        return elements
    return sorted(elements, key=_rank)


def _chains(
    record: Record, stream: str, elements: Sequence[Observed], spans: Mapping[str | None, Span], *, by_model: bool
) -> dict[str, list[Observed]]:
    """By key, the elements that can be compared, each id where it stands first."""
    chains: dict[str, list[Observed]] = {}
    seen: set[str] = set()
    for o in _standing(record, stream, elements) if by_model else elements:
        if o.key is None or o.id is None or o.id in seen or o.id not in spans:
            continue
        seen.add(o.id)
        chains.setdefault(o.key, []).append(o)
    return chains


def _swaps(key: str, chain: Sequence[Observed], spans: Mapping[str | None, Span]) -> list[_Swap]:
    """One for each element that had ended before some element in front of it began (the one that began last)."""
    found: list[_Swap] = []
    front = chain[0]
    for o in chain[1:]:
        if spans[o.id][1] < spans[front.id][0]:
            found.append(_Swap(key, front, o))
        if spans[o.id][0] > spans[front.id][0]:
            front = o
    return found


def _title(
    stream: str, model: str | None, chains: Mapping[str, Sequence[Observed]], swaps: Sequence[_Swap], split: Mapping[str, Any]
) -> str:
    keys = len({swap.key for swap in swaps})
    parts = []
    if swaps:
        order = f"against the order of {model}" if model else "against their own order"
        parts.append(f"{len(swaps):,} elements of {keys:,} of {len(chains):,} keys stand in {stream} {order}")
    if split:
        parts.append(f"{len(split):,} of {len(chains):,} keys of {stream} are spread over several partitions")
    return "; ".join(parts)


def _swapped(record: Record, stream: str, swaps: Sequence[_Swap]) -> list[Evidence]:
    lives = Lives(record, [o.id for swap in swaps for o in (swap.early, swap.late) if o.id])
    told = []
    for swap in swaps:
        late, early = lives.tell(swap.late.id or "", ""), lives.tell(swap.early.id or "", "")
        text = (f"key {swap.key}: {late.summary.rstrip(', ')}\n  stands in {stream} behind the later {early.summary.rstrip(', ')}")
        told.append(Evidence(text, ids=(swap.late.id or "", swap.early.id or ""), at_ns=swap.late.at_ns,
                             faults=tuple(dict.fromkeys((*late.faults, *early.faults))),
                             traces=tuple(dict.fromkeys((*late.traces, *early.traces))), detail={"key": swap.key}))
    return told


def _splits(stream: str, split: Mapping[str, set[int | None]]) -> list[Evidence]:
    return [
        Evidence(f"key {short(key)} of {stream} is in partitions {', '.join(str(p) for p in sorted(parts, key=str))}", ids=(key,))
        for key, parts in split.items()
    ]


