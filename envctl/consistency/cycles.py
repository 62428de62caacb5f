"""Cycles between transactions, named by the dependencies they consist of, and told in words.

The names are A. Adya's ("Weak Consistency", MIT 1999, chapters 3 and 4): a cycle of write dependencies is G0, with read dependencies G1c, with one
anti-dependency G-single, with several G2-item (the part of G2 that shows without predicates).  A cycle that needs the order of time is `…-realtime`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from envctl.consistency.dependencies import Anomaly, Edge, Model, spans, timeline
from envctl.consistency.graph import (
    FREE,
    RT,
    RW,
    RW_RT,
    WR,
    WW,
    WW_RT,
    Graph,
    closed,
    components,
    shortest_cycle,
    shortest_through,
    successors,
)
from envctl.consistency.transactions import Transaction, key_shown, shown

_PLAIN = WW | WR | FREE
_ANTI = RW
_TIMED = RT | WW_RT | RW_RT
_PREFERRED = (WW, WR, RT, RW, WW_RT, RW_RT, FREE)  # of edges between the same two transactions, the first one says most
_WORDS = {WW: "ww", WR: "wr", RW: "rw", RT: "rt", WW_RT: "ww", RW_RT: "rw"}


class _Hop(NamedTuple):
    source: int
    target: int
    kind: int


def cycles(model: Model, transactions: Sequence[Transaction], *, strict: bool) -> list[Anomaly]:
    """The smallest cycle of the worst kind in every strongly connected component; none means that the graph allows a serial order."""
    graph: list[dict[int, int]] = [{} for _ in range(model.size)]
    for source, target, kind, *_ in model.edges():
        if source != target:
            graph[source][target] = graph[source].get(target, 0) | kind
    if strict:
        for source, target in timeline(spans(transactions, sorted(model.scope.alive)), model.size):
            graph += [{} for _ in range(len(graph), target + 1)]
            graph[source][target] = graph[source].get(target, 0) | RT
    found = [_hops(graph, nodes, mask, transactions) for nodes, mask in _search(graph, strict=strict)]
    why = _reasons(model, found)
    names = [each.name for each in transactions]
    return [_anomaly(hops, names, why) for hops in found]


def _search(graph: Graph, *, strict: bool) -> Iterator[tuple[list[int], int]]:
    """Nodes of cycles, with the kinds of their edges."""
    for whole in components(graph, range(len(graph)), _PLAIN | _ANTI | (_TIMED if strict else 0)):
        if len(whole) == 1:
            continue
        covered: set[int] = set()
        for part in components(graph, whole, _PLAIN | _ANTI):
            if len(part) > 1:
                yield from _worst(graph, part, 0, covered)
        if strict and covered.isdisjoint(whole):
            yield from _worst(graph, whole, _TIMED, covered)


def _worst(graph: Graph, part: list[int], timed: int, covered: set[int]) -> Iterator[tuple[list[int], int]]:
    """A cycle of the worst kind for each component within a component; `covered` gathers the nodes of what was found."""
    time = timed & RT
    for mask in (WW | FREE | time, _PLAIN | time):
        for sub in components(graph, part, mask):
            if len(sub) > 1 and covered.isdisjoint(sub):
                nodes = shortest_cycle(graph, sub, mask)
                covered.update(nodes)
                yield nodes, mask
    if covered.isdisjoint(part):
        inside, anti = set(part), _ANTI | (timed & RW_RT)
        edges = [(node, target) for node in part for target in successors(graph, node, anti, inside)]
        if single := closed(graph, edges, _PLAIN | time, part):
            nodes, mask = shortest_through(graph, single, _PLAIN | time, part), _PLAIN | time | anti
        else:
            mask = _PLAIN | _ANTI | timed
            nodes = shortest_cycle(graph, part, mask)
        covered.update(nodes)
        yield nodes, mask


def _name(hops: Iterable[_Hop]) -> str:
    kinds = [hop.kind for hop in hops]
    anti = sum(kind in (RW, RW_RT) for kind in kinds)
    name = "G2-item" if anti > 1 else "G-single" if anti else "G1c" if WR in kinds else "G0"
    return f"{name}-realtime" if any(kind & _TIMED for kind in kinds) else name


def _hops(graph: Graph, nodes: Sequence[int], mask: int, transactions: Sequence[Transaction]) -> list[_Hop]:
    """The edges of a cycle, each of the kind that says most, from one that is no order of time on."""
    hops = []
    for source, target in pairwise([*nodes, nodes[0]]):
        kinds = graph[source][target] & mask
        hops.append(_Hop(source, target, next(kind for kind in _PREFERRED if kinds & kind)))
    start = next(at for at, hop in enumerate(hops) if hop.kind not in (RT, FREE))
    hops = hops[start:] + hops[:start]
    return _shortened(hops, transactions) if mask & RT else hops


def _shortened(hops: Sequence[_Hop], transactions: Sequence[Transaction]) -> list[_Hop]:
    """The same cycle with shortcuts through time: the graph has only the edges of time from which all others follow."""
    kept, at = [hops[0]], 1
    while at < len(hops):
        source = hops[at].source
        later = (to for to in range(len(hops) - 1, at, -1) if _before(source, hops[to].target, transactions))
        if (far := next(later, at)) == at:
            kept.append(hops[at])
        else:
            kept.append(_Hop(source, hops[far].target, RT))
        at = far + 1
    return kept


def _before(first: int, second: int, transactions: Sequence[Transaction]) -> bool:
    if max(first, second) >= len(transactions):
        return False  # auxiliary nodes have no time
    ended = transactions[first].ended
    return transactions[first].outcome == "ok" and ended is not None and ended < transactions[second].began


def _reasons(model: Model, found: Iterable[Sequence[_Hop]]) -> Mapping[_Hop, Edge]:
    """For the edges of cycles, what they follow from; the model is asked again, which is cheaper than remembering it of all edges."""
    wanted = {hop for hops in found for hop in hops}
    why: dict[_Hop, Edge] = {}
    for edge in model.edges() if wanted else ():
        hop = _Hop(edge.source, edge.target, edge.kind)
        if hop in wanted:
            why.setdefault(hop, edge)
    return why


def _anomaly(hops: Sequence[_Hop], names: Sequence[str], why: Mapping[_Hop, Edge]) -> Anomaly:
    edges = _without_auxiliary([why.get(hop) or Edge(*hop) for hop in hops], len(names))
    numbers = [edge.source for edge in edges]
    way = " → ".join(names[number] for number in (*numbers, numbers[0]))
    told = [f"  {_WORDS[edge.kind]}: {_told(edge, names)}" for edge in edges]
    detail = {"cycle": [{"from": names[edge.source], "to": names[edge.target], "dependency": _WORDS[edge.kind], "why": _told(edge, names)} for edge in edges]}
    return Anomaly(_name(hops), tuple(numbers), "\n".join((way, *told)), detail)


def _without_auxiliary(edges: Sequence[Edge], size: int) -> list[Edge]:
    """The dependencies between transactions, where some went through auxiliary nodes."""
    joined: list[Edge] = []
    for edge in edges:
        if edge.source >= size:
            joined[-1] = joined[-1]._replace(target=edge.target, after=edge.after)
        else:
            joined.append(edge)
    return joined


def _told(edge: Edge, names: Sequence[str]) -> str:
    """Why one transaction stands before the other, in a sentence."""
    first, second = names[edge.source], names[edge.target]
    key, before, after = key_shown(edge.key), shown(edge.before), shown(edge.after)
    if edge.kind == RT:
        return f"{first} had ended before {second} began"
    if edge.kind == WR:
        return f"{first} wrote {before} to {key}, which {second} read"
    since = f" ({_because(edge, names)})" if edge.because else ""
    if edge.kind in (WW, WW_RT):
        return f"{first} wrote {before} to {key}, {second} wrote {after} after that{since}"
    return f"{first} read {before} of {key} and not the later {after}, which {second} wrote{since}"


def _because(edge: Edge, names: Sequence[str]) -> str:
    """What says that one version came before the other."""
    if len(edge.because) == 1:
        return f"{names[edge.because[0]]} had read the version before its own"
    return f"{names[edge.because[0]]} had ended with {shown(edge.before)} before {names[edge.because[1]]} began, which found or wrote {shown(edge.after)}"
