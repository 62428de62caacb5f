"""Session guarantees of registers: each says of two versions which one must be the earlier, and they hold if all versions have an order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from envctl.consistency.graph import components, shortest_cycle
from envctl.consistency.sessions import (
    GUARANTEES,
    MONOTONIC_READS,
    MONOTONIC_WRITES,
    READ_YOUR_WRITES,
    WRITES_FOLLOW_READS,
    Act,
    Answer,
    Breach,
)
from envctl.consistency.transactions import key_shown, shown

_BITS = {guarantee: 2 << at for at, guarantee in enumerate(GUARANTEES)}
_FIRST = 1  # null came before all that was written
_ALL = _FIRST | sum(_BITS.values())


class _Order(NamedTuple):
    """Two acts of a process whose guarantee says that the version of the first came before that of the second."""

    guarantee: str
    first: Act
    second: Act


def judge_register(name: str, acts: Sequence[Act]) -> Answer:
    """What the acts on a register break."""
    written = [act.value for act in acts if not act.reads]
    if None in written or len(set(written)) < len(written):
        return Answer(unclear="a value was written twice, or is what was there first")
    numbers = {version: at for at, version in enumerate(dict.fromkeys((None, *(act.value for act in acts))))}
    graph: list[dict[int, int]] = [dict.fromkeys(range(1, len(numbers)), _FIRST), *({} for _ in range(1, len(numbers)))]
    why: dict[tuple[int, int, int], _Order] = {}
    for order in _orders(acts):
        before, after = numbers[order.first.value], numbers[order.second.value]
        graph[before][after] = graph[before].get(after, 0) | _BITS[order.guarantee]
        why.setdefault((before, after, _BITS[order.guarantee]), order)
    return Answer([_breach(name, [why[at] for at in _steps(graph, way, mask) if at in why]) for way, mask in _circles(graph)])


def _orders(acts: Sequence[Act]) -> Iterator[_Order]:
    """From each read or write of a process to the next ones, of which all others follow."""
    reads: dict[int | str, Act] = {}
    writes: dict[int | str, Act] = {}
    for act in acts:
        read, write = reads.get(act.process), writes.get(act.process)
        if read and read.value != act.value:
            yield _Order(MONOTONIC_READS if act.reads else WRITES_FOLLOW_READS, read, act)
        if write and write.value != act.value:
            yield _Order(READ_YOUR_WRITES if act.reads else MONOTONIC_WRITES, write, act)
        if act.reads:
            reads[act.process] = act
        elif act.certain:
            writes[act.process] = act


def _circles(graph: Sequence[dict[int, int]]) -> Iterator[tuple[list[int], int]]:
    """The smallest circle of each component, of a single guarantee if there is one."""
    for whole in components(graph, range(len(graph)), _ALL):
        if len(whole) == 1:
            continue
        found = [(shortest_cycle(graph, part, bit | _FIRST), bit | _FIRST)
                 for bit in _BITS.values() for part in components(graph, whole, bit | _FIRST) if len(part) > 1]
        yield from found or [(shortest_cycle(graph, whole, _ALL), _ALL)]


def _steps(graph: Sequence[dict[int, int]], way: Sequence[int], mask: int) -> Iterator[tuple[int, int, int]]:
    """The edges of a circle, each for one guarantee."""
    for before, after in pairwise([*way, way[0]]):
        kinds = graph[before][after] & mask
        yield before, after, kinds & -kinds


def _breach(name: str, orders: Sequence[_Order]) -> Breach:
    guarantees = tuple(guarantee for guarantee in GUARANTEES if any(order.guarantee == guarantee for order in orders))
    told = [f"  process {key_shown(order.first.process)} {_told(order.first)}, then {_told(order.second)}" for order in orders]
    operations = {act.operation.index: act.operation for order in orders for act in (order.first, order.second)}
    return Breach(guarantees, "\n".join((f"the values of {name} have no order", *told)), tuple(operations.values()))


def _told(act: Act) -> str:
    return f"{'read' if act.reads else 'wrote'} {shown(act.value)} (operation {act.operation.index})"
