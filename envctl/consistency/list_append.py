"""Transactions that append to lists and read whole lists: what a read returns tells of every version before it.

That makes the dependency graph complete: a history without an anomaly here is serializable (K. Kingsbury, P. Alvaro, "Elle", PVLDB 14, 2020).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from envctl.consistency.dependencies import Anomaly, Edge, Scope, Tail, lost_updates, tail_edges
from envctl.consistency.graph import RW, WR, WW
from envctl.consistency.transactions import READ, Transaction, key_shown, shown

List = list[Hashable]


class _Read(NamedTuple):
    reader: int
    value: List
    outside: bool  # of what others appended alone: the transaction had not appended to the key before


@dataclass(slots=True)
class _Key:
    """What the history says of one list."""

    authors: dict[Hashable, int] = field(default_factory=dict)  # by element
    next: dict[Hashable, Hashable] = field(default_factory=dict)  # an element, and what the same transaction appended after it
    twice: set[Hashable] = field(default_factory=set)  # elements that were appended more than once
    reads: list[_Read] = field(default_factory=list)
    order: List = field(default_factory=list)  # the longest list that was read
    longest: _Read | None = None
    broken: list[_Read] = field(default_factory=list)  # reads of what is no beginning of it
    doubled: list[_Read] = field(default_factory=list)  # reads with an element twice

    def resolve(self) -> None:
        """Finds the order of elements."""
        for read in sorted(self.reads, key=lambda read: -len(read.value)):
            if self.longest is not None and read.value == self.order[:len(read.value)]:
                continue
            if len(set(read.value)) < len(read.value):
                self.doubled.append(read)
            elif self.longest is None:
                self.longest, self.order = read, read.value
            else:
                self.broken.append(read)

    def witnesses(self) -> list[_Read]:
        """Reads that together hold all elements anyone read."""
        return [*([self.longest] if self.longest else ()), *self.broken, *self.doubled]


class ListAppend:
    """The model `list-append`: micro-operations `["append", key, element]` and `["r", key, list]`."""

    write = "append"
    lists = True

    def __init__(self, transactions: Sequence[Transaction], *, strict: bool = False) -> None:
        del strict  # what time says about versions follows from what it says about transactions
        self._names = [each.name for each in transactions]
        self._outcomes = [each.outcome for each in transactions]
        self._keys: dict[Hashable, _Key] = {}
        self._internal: list[Anomaly] = []
        for number, transaction in enumerate(transactions):
            self._take(number, transaction)
        ambiguous = {k: f"{shown(next(iter(key.twice)))} was appended twice" for k, key in self._keys.items() if key.twice}
        self._keys = {k: key for k, key in self._keys.items() if k not in ambiguous}
        self._internal = [anomaly for anomaly in self._internal if anomaly.detail["key"] not in ambiguous]
        for key in self._keys.values():
            key.resolve()
        self.scope = self._scope(ambiguous)
        self.size = len(transactions) + len(self._keys)

    def _take(self, number: int, transaction: Transaction) -> None:
        """Adds one transaction to its keys."""
        known: dict[Hashable, List] = {}  # the list as the transaction must see it, once it has read it
        own: dict[Hashable, List] = {}
        for f, k, value in transaction.steps:
            key = self._keys.setdefault(k, _Key())
            if f != READ:
                self._append(number, key, k, value, known, own)
            elif k not in known:
                mine = own.get(k, [])
                if mine and value[-len(mine):] != mine:
                    self._disagree(number, k, f"read {shown(value)} of {key_shown(k)} after it had appended {shown(mine)}")
                key.reads.append(_Read(number, value, not mine))
                known[k] = value
            elif known[k] != value:
                self._disagree(number, k, f"read {shown(value)} of {key_shown(k)} where it had to read {shown(known[k])}")

    def _append(self, number: int, key: _Key, k: Hashable, value: Hashable, known: dict[Hashable, List], own: dict[Hashable, List]) -> None:
        if value in key.authors:
            key.twice.add(value)
        key.authors[value] = number
        mine = own.setdefault(k, [])
        if mine:
            key.next[mine[-1]] = value
        mine.append(value)
        if k in known:
            if value in known[k]:
                self._disagree(number, k, f"read {shown(known[k])} of {key_shown(k)} before it appended {shown(value)}")
            known[k] = [*known[k], value]

    def _disagree(self, number: int, k: Hashable, what: str) -> None:
        self._internal.append(Anomaly("internal", (number,), f"{self._names[number]} {what}", {"key": k}))

    def _scope(self, ambiguous: Mapping[Hashable, str]) -> Scope:
        alive = {n for n, outcome in enumerate(self._outcomes) if outcome == "ok"}
        for key in self._keys.values():
            authors = (key.authors.get(element) for read in key.witnesses() for element in read.value)
            alive.update(author for author in authors if author is not None and self._outcomes[author] == "info")
        reads = sum(len(key.reads) for key in self._keys.values())
        writes = sum(author in alive for key in self._keys.values() for author in key.authors.values())
        return Scope(frozenset(alive), reads, writes, ambiguous)

    def anomalies(self) -> Iterable[Anomaly]:
        """Those that are no cycles: reads of what never was, of aborted and intermediate states, and lists that no order explains."""
        yield from self._internal
        for k, key in self._keys.items():
            yield from self._unexplained(k, key)
            yield from self._aborted(k, key)
            yield from self._intermediate(k, key)
            yield from lost_updates(self._tail(k, key, 0), self._names)

    def _unexplained(self, k: Hashable, key: _Key) -> Iterator[Anomaly]:
        name = key_shown(k)
        for read in key.doubled:
            element = Counter(read.value).most_common(1)[0][0]
            yield Anomaly("duplicate-elements", (read.reader,), f"{self._names[read.reader]} read {shown(element)} twice in {name}: {shown(read.value)}")
        for read in key.broken:
            if key.longest:
                yield Anomaly("incompatible-order", (key.longest.reader, read.reader), f"{self._names[key.longest.reader]} read {shown(key.order)} of "
                              f"{name}, {self._names[read.reader]} read {shown(read.value)}: neither is the beginning of the other")
        places = {element: at for at, element in enumerate(key.order)}
        for element, later in key.next.items():
            if key.longest and later in places and places.get(element, len(places)) > places[later]:
                author = key.authors[later]
                yield Anomaly("incompatible-order", (author, key.longest.reader), f"{self._names[author]} appended {shown(element)} and then "
                              f"{shown(later)} to {name}, {self._names[key.longest.reader]} read {shown(key.order)}")

    def _aborted(self, k: Hashable, key: _Key) -> Iterator[Anomaly]:
        bad = {e for read in key.witnesses() for e in read.value if e not in key.authors or self._outcomes[key.authors[e]] == "fail"}
        shows: dict[Hashable, int] = {}
        for read in key.reads if bad else ():
            for element in bad.intersection(read.value):
                shows.setdefault(element, read.reader)
        for element, reader in shows.items():
            told = f"{self._names[reader]} read {shown(element)} of {key_shown(k)}"
            if element not in key.authors:
                yield Anomaly("garbage-read", (reader,), f"{told}, which nobody appended")
            else:
                yield Anomaly("G1a", (key.authors[element], reader), f"{told}, which {self._names[key.authors[element]]} had appended before it failed")
        for before, after in pairwise(key.order):
            if before in bad and before in key.authors and after not in bad:
                old, new = key.authors[before], key.authors[after]
                yield Anomaly("dirty-update", (old, new), f"{self._names[new]} appended {shown(after)} to {key_shown(k)} behind {shown(before)} of "
                              f"{self._names[old]}, which failed")

    def _intermediate(self, k: Hashable, key: _Key) -> Iterator[Anomaly]:
        told = set()
        for reader, value, outside in key.reads:
            if outside and value and value[-1] in key.next:
                author = key.authors[value[-1]]
                if author != reader and self._outcomes[author] != "fail" and (author, reader) not in told:
                    told.add((author, reader))
                    yield Anomaly("G1b", (author, reader), f"{self._names[reader]} read {shown(value)} of {key_shown(k)}, between {shown(value[-1])} and "
                                  f"{shown(key.next[value[-1]])}, which {self._names[author]} appended together")

    def edges(self) -> Iterator[Edge]:
        """All dependencies between transactions that took effect."""
        for at, (k, key) in enumerate(self._keys.items()):
            yield from self._ordered(k, key)
            yield from tail_edges(self._tail(k, key, len(self._names) + at))

    def _ordered(self, k: Hashable, key: _Key) -> Iterator[Edge]:
        """Dependencies by the elements that were read."""
        elements = [e for e in key.order if key.authors.get(e) in self.scope.alive]
        for before, after in pairwise(elements):
            yield Edge(key.authors[before], key.authors[after], WW, k, before, after)
        following = self._following(key)
        for reader, value, outside in key.reads:
            if not outside or value != key.order[:len(value)]:
                continue
            if value and key.authors.get(value[-1]) in self.scope.alive:
                yield Edge(key.authors[value[-1]], reader, WR, k, value[-1])
            if (place := following[len(value)]) is not None:
                yield Edge(reader, key.authors[key.order[place]], RW, k, value, key.order[place])

    def _following(self, key: _Key) -> list[int | None]:
        """By length of a beginning of the list, the place of the next element by a transaction that took effect; None at the end."""
        following: list[int | None] = [None]
        for place in reversed(range(len(key.order))):
            following.append(place if key.authors.get(key.order[place]) in self.scope.alive else following[-1])
        return following[::-1]

    def _tail(self, k: Hashable, key: _Key, node: int) -> Tail:
        """Appends that nobody read came after all that were read, for no element ever leaves a list."""
        if key.broken or key.doubled or not key.longest:
            return Tail(k, [], None, (), {}, node)
        seen = set(key.order)
        writers = {author: e for e, author in reversed(key.authors.items()) if e not in seen and author in self.scope.alive}
        readers = [read.reader for read in key.reads if read.outside and len(read.value) == len(key.order)]
        author = key.authors.get(key.order[-1]) if key.order else None
        return Tail(k, key.order, author if author in self.scope.alive else None, readers, writers, node)
