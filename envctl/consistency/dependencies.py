"""What models of transactions share: dependencies, anomalies that are no cycle, and the end of a key that nobody read.

A. Adya, "Weak Consistency: A Generalized Theory and Optimistic Implementations for Distributed Transactions", MIT 1999: write-, read- and
anti-dependencies.  K. Kingsbury, P. Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", PVLDB 14 (2020): how
they follow from what clients saw.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol

from envctl.consistency.graph import FREE, RW, WW
from envctl.consistency.transactions import Transaction, key_shown, shown

_OVERLAPPING = 64  # transactions on a key before one whose order with it is looked at


class Edge(NamedTuple):
    """Why one transaction must stand before another one."""

    source: int
    target: int
    kind: int
    key: Hashable = None
    before: Any = None  # the version that `source` wrote (ww, wr) or read (rw)
    after: Any = None  # the version that `target` wrote (ww, rw)
    because: tuple[int, ...] = ()  # what says that `before` came before `after`: two transactions by their times, or one that wrote next to what it read


@dataclass(frozen=True, slots=True)
class Anomaly:
    """What no serializable system shows, by its name in the literature."""

    name: str
    transactions: tuple[int, ...]
    text: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a history counts, as a model found it."""

    alive: frozenset[int]  # transactions that took effect: those that are `ok`, and the unknown ones of which something was read
    reads: int  # of committed transactions
    writes: int  # by those alive
    ambiguous: Mapping[Hashable, str]  # keys that can't be judged, and why
    versions: int = 0  # pairs of versions whose order would have to be known for certainty
    ordered: int = 0  # of these, pairs whose order is known


class Model(Protocol):
    """A kind of transactions whose reads tell something about order."""

    scope: Scope
    size: int  # of the graph: transactions, and auxiliary nodes after them

    def anomalies(self) -> Iterable[Anomaly]:
        """Those that are no cycles between transactions."""
        ...

    def edges(self) -> Iterator[Edge]:
        """All dependencies; the same ones in each call."""
        ...


class Tail(NamedTuple):
    """The last version of a key whose successor is known, and those who wrote after it in an order that nobody knows."""

    key: Hashable
    version: Any
    author: int | None  # who wrote that version; what else it wrote is between it and all others
    readers: Sequence[int]  # who read it from outside
    writers: Mapping[int, Any]  # who wrote later, and what
    node: int  # an auxiliary one for it


def updates(tail: Tail) -> list[int]:
    """The transactions that read the version and wrote after it."""
    return [reader for reader in dict.fromkeys(tail.readers) if reader in tail.writers and reader != tail.author]


def lost_updates(tail: Tail, names: Sequence[str]) -> Iterator[Anomaly]:
    """Of two transactions that read the same version and wrote, one never saw what the other wrote; in whatever order, that is G-single."""
    if len(both := updates(tail)[:2]) > 1:
        text = (f"{names[both[0]]} and {names[both[1]]} both read {shown(tail.version)} of {key_shown(tail.key)} and wrote "
                f"{' and '.join(shown(tail.writers[each]) for each in both)}: one of them never saw what the other wrote (lost update)")
        yield Anomaly("G-single", tuple(both), text)


def tail_edges(tail: Tail) -> Iterator[Edge]:
    """The dependencies around a tail, as many as there are readers and writers and not their product.

    Whoever read the version stands before each of the writers.  Where one of the readers wrote, too, its write is the version's
    successor and all other writers follow it; else an auxiliary node stands for whoever was first.
    """
    key, version, author, readers, _, node = tail
    writers = {writer: value for writer, value in tail.writers.items() if writer != author}
    if not writers:
        return
    if both := updates(tail):
        first = both[0]
        yield from (Edge(reader, first, RW, key, version, writers[first]) for reader in readers)
        yield from (Edge(first, writer, WW, key, writers[first], writers[writer], (first,)) for writer in writers.keys() - both)
        if author is not None:
            yield Edge(author, first, WW, key, version, writers[first])
        return
    yield from (Edge(reader, node, RW, key, version) for reader in readers)
    if author is not None:
        yield Edge(author, node, WW, key, version)
    yield from (Edge(node, writer, FREE, key, None, value) for writer, value in writers.items())


Span = tuple[int, int, int | None]
"""An item, when it began, and when it ended; one with no end precedes nothing."""


def frontier(spans: Iterable[Span]) -> Iterator[tuple[int, int]]:
    """Pairs of which the first had ended before the second began, without those that follow from others.

    Of many items that overlap, only the last that ended stand before the next one: some pairs are missing then, and none is wrong.
    """
    latest: dict[int, None] = {}
    seen: dict[int, list[int]] = {}
    for item, ends in _events(spans):
        if ends:
            for older in seen.pop(item):
                latest.pop(older, None)
            latest[item] = None
        else:
            seen[item] = list(islice(reversed(latest), _OVERLAPPING))
            yield from ((older, item) for older in seen[item])


def timeline(spans: Iterable[Span], node: int) -> Iterator[tuple[int, int]]:
    """Edges from which follows, for all items, which ones had ended before which ones began: through new nodes, of which `node` is the first.

    As many as there are items, however many overlap: every item that ended leads to the next node, which leads to what begins from there on.
    """
    ended: list[int] = []
    node -= 1
    known = False  # whether anything had ended before
    for item, ends in _events(spans):
        if ends:
            ended.append(item)
            continue
        if ended:
            node += 1
            yield from ((older, node) for older in ended)
            if known:
                yield node - 1, node
            known = True
            ended.clear()
        if known:
            yield node, item


def _events(spans: Iterable[Span]) -> Iterator[tuple[int, bool]]:
    """Beginnings and ends in order."""
    events = []
    for item, began, ended in spans:
        events.append((began, item, False))
        if ended is not None:
            events.append((ended, item, True))
    return ((item, ends) for _, item, ends in sorted(events))


def spans(transactions: Sequence[Transaction], numbers: Iterable[int]) -> Iterator[Span]:
    """When transactions began and, where they are known to have, ended."""
    return ((n, transactions[n].began, transactions[n].ended if transactions[n].outcome == "ok" else None) for n in numbers)
