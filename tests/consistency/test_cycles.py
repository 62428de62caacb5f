from __future__ import annotations

import random
from itertools import combinations, permutations

from envctl.consistency.cycles import cycles
from envctl.consistency.dependencies import Edge, Scope
from envctl.consistency.graph import RW, WR, WW, components
from envctl.consistency.transactions import Transaction

NAMES = ("G0", "G1c", "G-single", "G2-item")
WORD = {WW: "ww", WR: "wr", RW: "rw"}


class Invented:
    """A model of which only the edges are known."""

    def __init__(self, size, edges):
        self.scope = Scope(frozenset(range(size)), 1, 1, {})
        self.size = size
        self._edges = edges

    def anomalies(self):
        return ()

    def edges(self):
        return (Edge(*edge, "x", 1, 2) for edge in self._edges)


def _rank(nodes, edges):
    """The place in NAMES of the worst that a cycle through these nodes can be called."""
    steps = [{kind for kind in (WW, WR, RW) if (a, b, kind) in edges} for a, b in zip(nodes, [*nodes[1:], nodes[0]], strict=True)]
    anti = sum(kinds == {RW} for kinds in steps)
    return 3 if anti > 1 else 2 if anti else 0 if all(WW in kinds for kinds in steps) else 1


def _all_cycles(part, edges):
    pairs = {(a, b) for a, b, _ in edges}
    for count in range(2, len(part) + 1):
        for nodes in combinations(sorted(part), count):
            for rest in permutations(nodes[1:]):
                cycle = (nodes[0], *rest)
                if all(pair in pairs for pair in zip(cycle, [*rest, nodes[0]], strict=True)):
                    yield cycle


def test_in_every_component_the_smallest_cycle_of_the_worst_kind_is_named():
    rng = random.Random(5)
    seen = set()
    for _ in range(1_500):
        size, kinds = rng.randint(2, 6), rng.choice([(WW, WR, RW), (WR, RW, RW), (RW, RW, RW, RW, WR)])
        edges = {(a, b, rng.choice(kinds)) for a, b in permutations(range(size), 2) if rng.random() < 0.25}
        transactions = [Transaction(n, "ok", (), 0, 1, None) for n in range(size)]
        found = cycles(Invented(size, sorted(edges)), transactions, strict=False)
        graph = [{b: 1 for a, b, _ in edges if a == n} for n in range(size)]
        parts = [set(part) for part in components(graph, range(size), 1) if len(part) > 1]
        for part in parts:
            every = [(NAMES[_rank(cycle, edges)], len(cycle)) for cycle in _all_cycles(part, edges)]
            told = [(each.name, len(each.transactions)) for each in found if set(each.transactions) <= part]
            worst = min(every, key=lambda each: (NAMES.index(each[0]), each[1]))
            assert min(told, key=lambda each: (NAMES.index(each[0]), each[1])) == worst
            seen.add(worst[0])
        assert bool(found) == bool(parts)
        for each in found:
            steps = [(int(step["from"][1:]), int(step["to"][1:]), step["dependency"]) for step in each.detail["cycle"]]
            assert {(a, b, WORD[kind]) for a, b, kind in edges}.issuperset(steps)
            assert [a for a, _, _ in steps] == list(each.transactions)
    assert seen == set(NAMES)
