"""The queue model: what clients send to the logs of a system like Kafka, and poll from them, is what one log for each key would show.

Anomalies and their names are those of Jepsen's Kafka workload (K. Kingsbury, jepsen.tests.kafka).  A key is a partition.  Offsets may have gaps: transactions leave
some.  Processes that `assign` keys keep their place in those they had before; one that `subscribe`s may be moved by the system at any time, so its place is not followed until it assigns.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from envctl.consistency.base import Property
from envctl.consistency.transactions import shown
from envctl.consistency.values import frozen
from envctl.model.history import History, Operation
from envctl.model.verdict import Evidence, Finding

NAME, MODEL = "queue-model", "log"
SHOWN = 10
ANOMALIES = ("lost-write", "aborted-read", "inconsistent-offsets", "duplicate", "poll-skip", "nonmonotonic-poll", "unseen")
"""The worst first."""


class Anomaly(NamedTuple):
    """One of `ANOMALIES`, in words, with the operations that show it."""

    name: str
    text: str
    operations: tuple[Operation, ...]
    key: str
    values: tuple[Hashable, ...]


class Polled(NamedTuple):
    """A message that a poll returned."""

    operation: Operation
    offset: int | None
    value: Hashable


@dataclass(slots=True)
class Log:
    """What is known of one key."""

    sends: dict[Hashable, list[Operation]] = field(default_factory=dict)  # value → who sent it
    polled: list[Polled] = field(default_factory=list)
    at: dict[int, dict[Hashable, Operation]] = field(default_factory=dict)  # offset → value → the first that tells of it
    places: dict[Hashable, dict[int, Operation]] = field(default_factory=dict)  # value → offset → likewise

    def tell(self, offset: int | None, value: Hashable, operation: Operation) -> None:
        """An operation tells what stands at an offset."""
        if offset is not None:
            self.at.setdefault(offset, {}).setdefault(value, operation)
            self.places.setdefault(value, {}).setdefault(offset, operation)


def logs(history: History) -> dict[str, Log]:
    """Key, as text → its log."""
    found: dict[str, Log] = {}
    for each in history.operations:
        if each.f == "send":
            log, value = found.setdefault(str(each.key), Log()), frozen(each.asked)
            log.sends.setdefault(value, []).append(each)
            if each.outcome == "ok":
                log.tell(each.told[0], value, each)
        elif each.f == "poll" and each.outcome == "ok":
            for key, messages in each.told.items():
                log = found.setdefault(str(key), Log())
                for offset, content in messages:
                    log.polled.append(Polled(each, offset, frozen(content)))
                    log.tell(offset, log.polled[-1].value, each)
    return found


def anomalies(history: History) -> Iterator[Anomaly]:
    """All of them, key by key, those of processes last."""
    known = logs(history)
    for key, log in known.items():
        yield from _unread(key, log)
        yield from _aborted(key, log)
        yield from _inconsistent(key, log)
        yield from _duplicates(key, log)
    yield from _moves(history, known)


def _unread(key: str, log: Log) -> Iterator[Anomaly]:
    """Acknowledged sends that nobody polled: lost, where somebody got as far as their offset or beyond; unseen otherwise."""
    furthest = max((each for each in log.polled if each.offset is not None), key=lambda each: each.offset or 0, default=None)
    values = {each.value for each in log.polled}
    exact = {(each.offset, each.value) for each in log.polled}
    for value, sends in log.sends.items():
        several = sum(send.outcome != "fail" for send in sends) > 1
        for send in (send for send in sends if send.outcome == "ok"):
            offset = send.told[0]
            if ((offset, value) in exact) if several and offset is not None else value in values:
                continue
            what = f"key {key}: {shown(value)} was acknowledged {_at(offset)} ({_told(send)}) and never polled"
            if offset is not None and furthest is not None and furthest.offset is not None and furthest.offset >= offset:
                beyond = f"though {_told(furthest.operation)} polled {shown(furthest.value)} {_at(furthest.offset)}"
                yield Anomaly("lost-write", f"{what}, {beyond}", (send, furthest.operation), key, (value,))
            else:
                yield Anomaly("unseen", what, (send,), key, (value,))


def _aborted(key: str, log: Log) -> Iterator[Anomaly]:
    for value, polled in {each.value: each for each in reversed(log.polled)}.items():
        sends = log.sends.get(value, [])
        if sends and all(send.outcome == "fail" for send in sends):
            text = f"key {key}: {_told(polled.operation)} polled {shown(value)} {_at(polled.offset)}, whose sending failed ({_told(sends[0])})"
            yield Anomaly("aborted-read", text, (sends[0], polled.operation), key, (value,))


def _inconsistent(key: str, log: Log) -> Iterator[Anomaly]:
    for offset, values in log.at.items():
        if len(values) > 1:
            told = ", ".join(f"{shown(value)} ({_told(operation)})" for value, operation in values.items())
            yield Anomaly("inconsistent-offsets", f"key {key}: {_at(offset)} stand {told}", tuple(values.values()), key, tuple(values))


def _duplicates(key: str, log: Log) -> Iterator[Anomaly]:
    """Values at more offsets than they may have been sent to."""
    for value, places in log.places.items():
        if len(places) > max(1, sum(send.outcome != "fail" for send in log.sends.get(value, []))):
            told = ", ".join(f"{_at(offset)} ({_told(places[offset])})" for offset in sorted(places))
            yield Anomaly("duplicate", f"key {key}: {shown(value)} stands {told}", tuple(places.values()), key, (value,))


def _moves(history: History, known: Mapping[str, Log]) -> Iterator[Anomaly]:
    """How each process went through the logs: over what is known to stand between two messages, or back."""
    offsets = {key: sorted(log.at) for key, log in known.items()}
    places: dict[int | str, dict[str, Polled]] = {}
    subscribed: set[int | str] = set()
    for each in history.operations:
        if each.f in ("assign", "subscribe") and each.outcome != "fail":
            kept = {str(key) for key in each.asked} if each.f == "assign" else set()
            places[each.process] = {key: last for key, last in places.get(each.process, {}).items() if key in kept}
            (subscribed.add if each.f == "subscribe" else subscribed.discard)(each.process)
        elif each.f == "poll" and each.outcome == "ok" and each.process not in subscribed:
            yield from _step(each, places.setdefault(each.process, {}), offsets, known)


def _step(each: Operation, places: dict[str, Polled], offsets: Mapping[str, Sequence[int]], known: Mapping[str, Log]) -> Iterator[Anomaly]:
    for key, messages in each.told.items():
        for offset, content in messages:
            if offset is None:
                continue
            last, now = places.get(str(key)), Polled(each, offset, frozen(content))
            places[str(key)] = now
            if last is None or last.offset is None:
                continue
            way = f"process {each.process} polled {shown(last.value)} {_at(last.offset)} ({_told(last.operation)}) and then {shown(now.value)} {_at(offset)} ({_told(each)})"
            between = offsets[str(key)][bisect_right(offsets[str(key)], last.offset):bisect_left(offsets[str(key)], offset)]
            if offset <= last.offset:
                yield Anomaly("nonmonotonic-poll", f"key {key}: {way}", (last.operation, each), str(key), (last.value, now.value))
            elif between:
                skipped = [value for at in between for value in known[str(key)].at[at]]
                text = f"key {key}: {way}, but not {', '.join(shown(value) for value in skipped[:3])}{' …' if len(skipped) > 3 else ''} between them"
                yield Anomaly("poll-skip", text, (last.operation, each), str(key), tuple(skipped))


def _at(offset: int | None) -> str:
    return "at an unknown offset" if offset is None else f"at {offset}"


def _told(operation: Operation) -> str:
    return operation.where or f"operation {operation.index}"


def judge(history: History, model: str, budget: int) -> Sequence[Finding]:
    """The finding `queue-model`: fail with any anomaly, inconclusive where nothing was polled."""
    del model, budget  # there is one model, and the work grows with the history as its reading does
    return (finding_of(history, list(anomalies(history))),)


def finding_of(history: History, found: Sequence[Anomaly]) -> Finding:
    """The finding of anomalies in a history, one of each name first, the worst before all others."""
    names, sends = Counter(each.name for each in found), [each for each in history.operations if each.f == "send"]
    polled = [message for each in history.operations if each.f == "poll" and each.outcome == "ok" for messages in each.told.values() for message in messages]
    stats = {"sent": len(sends), "acknowledged": sum(each.outcome == "ok" for each in sends), "polled": len(polled),
             "anomalies": {name: names[name] for name in ANOMALIES if name in names}}
    if found:
        title = f"{len(sends):,} sent and {len(polled):,} polled messages are not those of a log: " + ", ".join(f"{names[n]:,} {n}" for n in ANOMALIES if n in names)
        return Finding(NAME, NAME, "fail", title, evidence=_evidence(found), total=len(found), stats=stats)
    if not polled:
        return Finding(NAME, NAME, "inconclusive", "nothing was polled, so there is nothing to compare", stats=stats)
    return Finding(NAME, NAME, "pass", f"{len(sends):,} sent and {len(polled):,} polled messages are those of a log", stats=stats)


def worst_first(found: Sequence[Anomaly]) -> list[Anomaly]:
    """The first few of them, one of each name before the second of any."""
    ranks: Counter[str] = Counter()
    ranked: list[tuple[int, int, int]] = []
    for at, each in enumerate(found):
        ranked.append((ranks[each.name], ANOMALIES.index(each.name), at))
        ranks[each.name] += 1
    return [found[at] for _, _, at in sorted(ranked)[:SHOWN]]


def _evidence(found: Sequence[Anomaly]) -> tuple[Evidence, ...]:
    return tuple(Evidence(f"{each.name}: {each.text}", ids=tuple(dict.fromkeys(str(op.index) for op in each.operations)),
                          at_ns=each.operations[0].at_ns, detail={"anomaly": each.name, "key": each.key}) for each in worst_first(found))


def misfit(op: Operation) -> tuple[int, str, str] | None:
    """What is wrong with an operation that should be one on logs."""
    if op.f not in ("send", "poll", "assign", "subscribe"):
        return op.began, "f", f"found {op.f!r}; allowed for a {MODEL}: assign, poll, send, subscribe"
    if op.f in ("assign", "subscribe") and not (isinstance(op.asked, list) and all(type(key) in (int, str) for key in op.asked)):
        return op.began, "value", f"found {op.asked!r}, allowed for {op.f!r}: a list of keys"
    if op.outcome != "ok" or op.ended is None:
        return None
    if op.f == "send" and not (_is_message(op.told) and frozen(op.told[1]) == frozen(op.asked)):
        return op.ended, "value", f"found {op.told!r}, allowed as the answer of 'send': [offset, value], with the value that was sent"
    if op.f == "poll" and not (isinstance(op.told, dict) and all(isinstance(each, list) and all(map(_is_message, each)) for each in op.told.values())):
        return op.ended, "value", f"found {op.told!r}, allowed as the answer of 'poll': {{key: [[offset, value], …]}}"
    return None


def _is_message(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and type(value[0]) in (int, type(None))


PROPERTY = Property({MODEL: misfit}, judge)
