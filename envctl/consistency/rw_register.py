"""Transactions that write and read single values, each written once: a read tells who wrote, and little of the order of writes.

The order of versions is inferred only where it is certain, so that a cycle is a proof and the lack of one is none: the initial null is first;
what a transaction writes follows what it has read; and, where strict serializability is asked for, versions stand in the order of time.
(K. Kingsbury, P. Alvaro, "Elle", PVLDB 14, 2020, section 5.)
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from envctl.consistency.dependencies import Anomaly, Edge, Scope, Tail, frontier, lost_updates, spans, tail_edges
from envctl.consistency.graph import RW_RT, WR, WW_RT
from envctl.consistency.transactions import READ, Transaction, key_shown, shown

Version = Hashable


class _Order(NamedTuple):
    """One version that came before another one, as two transactions show: the first had left or read the one before the second began, which found
    or wrote the other.
    """

    before: Version
    after: Version
    early: int
    late: int


@dataclass(slots=True)
class _Key:
    """What the history says of one register."""

    authors: dict[Version, int] = field(default_factory=dict)
    next: dict[Version, Version] = field(default_factory=dict)  # a value, and what the same transaction wrote after it
    twice: set[Version] = field(default_factory=set)
    reads: dict[int, Version] = field(default_factory=dict)  # what transactions read before they wrote
    finals: dict[int, Version] = field(default_factory=dict)  # what transactions that took effect left
    readers: dict[Version, list[int]] = field(default_factory=dict)
    orders: list[_Order] = field(default_factory=list)

    def resolve(self, alive: frozenset[int], times: Sequence[Transaction] | None) -> None:
        """Keeps what took effect, and finds the order of versions by time where that counts."""
        self.finals = {number: version for number, version in self.finals.items() if number in alive}
        for number, version in self.reads.items():
            self.readers.setdefault(version, []).append(number)
        if times is not None:
            self.orders = list(self._by_time(times))

    def _by_time(self, times: Sequence[Transaction]) -> Iterator[_Order]:
        touched = dict.fromkeys((*self.reads, *self.finals))
        for early, late in frontier(spans(times, touched)):
            before = self.finals[early] if early in self.finals else self.reads[early]
            after = self.reads[late] if late in self.reads else self.finals[late]
            if before is not None and after is not None and before != after:
                yield _Order(before, after, early, late)

    def ordered(self) -> int:
        """Of how many versions some version before is known."""
        if any(number in self.finals for number in self.readers.get(None, ())):
            return max(0, len(self.finals) - 1)  # it is the first of all
        updates = (self.finals[number] for number, version in self.reads.items() if version is not None and number in self.finals)
        return len({*updates, *(order.after for order in self.orders)})


class RwRegister:
    """The model `rw-register`: micro-operations `["w", key, value]` and `["r", key, value or null]`."""

    write = "w"
    lists = False

    def __init__(self, transactions: Sequence[Transaction], *, strict: bool = False) -> None:
        self._names = [each.name for each in transactions]
        self._outcomes = [each.outcome for each in transactions]
        self._keys: dict[Hashable, _Key] = {}
        self._internal: list[Anomaly] = []
        for number, transaction in enumerate(transactions):
            self._take(number, transaction)
        ambiguous = {k: f"{shown(next(iter(key.twice)))} was written twice, or is what was there first" for k, key in self._keys.items() if key.twice}
        self._keys = {k: key for k, key in self._keys.items() if k not in ambiguous}
        self._internal = [anomaly for anomaly in self._internal if anomaly.detail["key"] not in ambiguous]
        alive = self._alive()
        for key in self._keys.values():
            key.resolve(alive, transactions if strict else None)
        self.scope = self._scope(alive, ambiguous)
        self._tails = self._find_tails()
        self.size = len(transactions) + len(self._tails)

    def _take(self, number: int, transaction: Transaction) -> None:
        """Adds one transaction to its keys."""
        found: dict[Hashable, Version] = {}  # what the transaction must see
        for f, k, value in transaction.steps:
            key = self._keys.setdefault(k, _Key())
            if f != READ:
                self._write(number, key, k, value)
            elif k not in found:
                key.reads[number] = value
            elif found[k] != value:
                self._disagree(number, k, f"read {shown(value)} of {key_shown(k)} where it had to read {shown(found[k])}")
            found.setdefault(k, value)
            if f != READ:
                found[k] = value

    def _write(self, number: int, key: _Key, k: Hashable, value: Version) -> None:
        if value in key.authors or value is None:  # null is what was there before anyone wrote
            key.twice.add(value)
        if key.reads.get(number) == value:
            self._disagree(number, k, f"read {shown(value)} of {key_shown(k)} before it wrote it")
        if number in key.finals:
            key.next[key.finals[number]] = value
        key.authors[value] = key.authors.get(value, number)
        key.finals[number] = value

    def _disagree(self, number: int, k: Hashable, what: str) -> None:
        self._internal.append(Anomaly("internal", (number,), f"{self._names[number]} {what}", {"key": k}))

    def _alive(self) -> frozenset[int]:
        seen = (key.authors.get(version) for key in self._keys.values() for version in key.reads.values())
        unknown = {author for author in seen if author is not None and self._outcomes[author] == "info"}
        return frozenset(unknown | {n for n, outcome in enumerate(self._outcomes) if outcome == "ok"})

    def _scope(self, alive: frozenset[int], ambiguous: Mapping[Hashable, str]) -> Scope:
        keys = self._keys.values()
        reads, writes = sum(len(key.reads) for key in keys), sum(len(key.finals) for key in keys)
        pairs = sum(max(0, len(key.finals) - 1) for key in keys)
        return Scope(alive, reads, writes, ambiguous, pairs, sum(key.ordered() for key in keys))

    def _find_tails(self) -> list[Tail]:
        """By key and version that was read, who certainly wrote after it; that they follow its author their reading says already."""
        tails: list[Tail] = []
        for k, key in self._keys.items():
            for version, readers in key.readers.items():
                updates = {number: key.finals[number] for number in readers if number in key.finals and key.finals[number] != version}
                if writers := key.finals if version is None else updates:
                    tails.append(Tail(k, version, None, readers, writers, len(self._names) + len(tails)))
        return tails

    def anomalies(self) -> Iterable[Anomaly]:
        """Those that are no cycles between transactions: reads of what never was, of aborted and intermediate states, and lost updates."""
        yield from self._internal
        for k, key in self._keys.items():
            for version, readers in key.readers.items():
                if version is not None:
                    yield from self._misread(k, key, version, readers)
        for tail in self._tails:
            yield from lost_updates(tail, self._names)

    def _misread(self, k: Hashable, key: _Key, version: Version, readers: Sequence[int]) -> Iterator[Anomaly]:
        """What is wrong with reading this version."""
        read = f"{self._names[readers[0]]} read {shown(version)} of {key_shown(k)}"
        author = key.authors.get(version)
        if author is None:
            yield Anomaly("garbage-read", (readers[0],), f"{read}, which nobody wrote")
        elif self._outcomes[author] == "fail":
            yield Anomaly("G1a", (author, readers[0]), f"{read}, which {self._names[author]} had written before it failed")
            for update in (number for number in readers if number in key.finals):
                yield Anomaly("dirty-update", (author, update), f"{self._names[update]} read {shown(version)} of {key_shown(k)}, which {self._names[author]} "
                              f"had written before it failed, and wrote {shown(key.finals[update])}")
        elif version in key.next and readers != [author]:
            yield Anomaly("G1b", (author, readers[0]), f"{read}, which {self._names[author]} replaced by {shown(key.next[version])} itself")

    def edges(self) -> Iterator[Edge]:
        """The dependencies that are certain."""
        for k, key in self._keys.items():
            for number, version in key.reads.items():
                if (author := key.authors.get(version)) in self.scope.alive and author is not None:
                    yield Edge(author, number, WR, k, version)
            yield from self._timed(k, key)
        for tail in self._tails:
            yield from tail_edges(tail)

    def _timed(self, k: Hashable, key: _Key) -> Iterator[Edge]:
        """Dependencies by versions whose order time tells."""
        for before, after, early, late in key.orders:
            writer = key.authors.get(after)
            if writer is None or writer not in self.scope.alive:
                continue
            author = key.authors.get(before)
            if author in self.scope.alive and author is not None:
                yield Edge(author, writer, WW_RT, k, before, after, (early, late))
            yield from (Edge(reader, writer, RW_RT, k, before, after, (early, late)) for reader in key.readers.get(before, ()))
