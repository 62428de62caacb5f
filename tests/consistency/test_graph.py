from __future__ import annotations

import random

from envctl.consistency.dependencies import frontier, timeline
from envctl.consistency.graph import RW, WR, WW, closed, components, path, shortest_cycle, shortest_through


def _random(rng, nodes):
    graph = [{} for _ in range(nodes)]
    for _ in range(rng.randint(0, 3 * nodes)):
        source, target = rng.randrange(nodes), rng.randrange(nodes)
        if source != target:
            graph[source][target] = graph[source].get(target, 0) | rng.choice([WW, WR, RW])
    return graph


def _reach(graph, start, mask):
    """All that a way of one or more edges leads to."""
    seen, left = set(), [start]
    while left:
        for target, kinds in graph[left.pop()].items():
            if kinds & mask and target not in seen:
                seen.add(target)
                left.append(target)
    return seen


def test_components_are_the_nodes_that_reach_each_other_and_come_after_what_they_lead_to():
    rng = random.Random(1)
    for _ in range(500):
        graph, mask = _random(rng, rng.randint(1, 9)), rng.choice([WW, WW | WR, WW | WR | RW])
        nodes = range(len(graph))
        reach = [_reach(graph, node, mask) for node in nodes]
        found = list(components(graph, nodes, mask))
        assert {frozenset(part) for part in found} == {frozenset([n]) | {m for m in reach[n] if n in reach[m]} for n in nodes}
        assert sum(map(len, found)) == len(nodes)
        place = {node: at for at, part in enumerate(found) for node in part}
        assert all(place[target] <= place[node] for node in nodes for target in reach[node])


def test_a_component_may_be_larger_than_any_stack():
    size = 50_000
    ring = [{(node + 1) % size: WW} for node in range(size)]
    assert [len(part) for part in components(ring, range(size), WW)] == [size]
    assert len(shortest_cycle(ring, range(size), WW)) == size


def test_the_shortest_cycle_is_as_short_as_any():
    rng = random.Random(2)
    for _ in range(500):
        graph = _random(rng, rng.randint(2, 8))
        for part in components(graph, range(len(graph)), WW | WR):
            if len(part) > 1:
                cycle = shortest_cycle(graph, part, WW | WR)
                assert all(graph[a].get(b, 0) & (WW | WR) for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
                assert len(cycle) == min(len(path(graph, node, node, WW | WR, part, 99)[0]) - 1 for node in part)


def test_edges_that_close_a_cycle_are_those_whose_target_leads_back():
    rng = random.Random(3)
    for _ in range(500):
        nodes = range(rng.randint(2, 9))
        graph = [{b: WW for b in nodes if a < b and rng.random() < 0.3} for a in nodes]
        edges = [(a, b) for a in nodes for b in nodes if a != b and rng.random() < 0.2]
        found = closed(graph, edges, WW, nodes)
        assert found == [(a, b) for a, b in edges if a in _reach(graph, b, WW)]
        if found:
            cycle = shortest_through(graph, found, WW, nodes)
            assert (cycle[0], cycle[1]) in found


def test_the_reach_of_many_is_followed_in_portions(monkeypatch):
    monkeypatch.setattr("envctl.consistency.graph._BITS", 3)
    chain = [{node + 1: WW} if node < 19 else {} for node in range(20)]
    edges = [(node, node - 5) for node in range(5, 20)] + [(3, 9)]
    assert closed(chain, edges, WW, range(20)) == edges[:-1]


def test_time_leads_from_what_had_ended_to_what_began_later():
    rng = random.Random(4)
    for _ in range(500):
        count = rng.randint(1, 8)
        places = rng.sample(range(4 * count), 2 * count)
        spans = [(n, *sorted(places[2 * n:2 * n + 2])) for n in range(count)]
        spans = [(n, began, ended if rng.random() < 0.8 else None) for n, began, ended in spans]
        wanted = {(a, b) for a, _, ended in spans for b, began, _ in spans if ended is not None and ended < began}
        for edges in (list(frontier(spans)), list(timeline(spans, count))):
            graph = [{} for _ in range(1 + max([count, *(target for _, target in edges)]))]
            for source, target in edges:
                graph[source][target] = WW
            assert {(a, b) for a in range(count) for b in _reach(graph, a, WW) if b < count} == wanted
        assert len(edges) <= 3 * count
