"""A graph of dependencies between transactions, its strongly connected components, and short cycles in them.

Edges have kinds, of which several may join the same two nodes: they are bits, so that a search follows only those in its mask.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

WW, WR, RW, RT, WW_RT, RW_RT, FREE = (1 << n for n in range(7))
"""Write-write, write-read, read-write (anti-dependency), real time; ww and rw that follow from real time; within an auxiliary node.

An auxiliary node stands for "whoever wrote last to a key": edges to it are ww or rw, those out of it cost nothing.
"""

Graph = Sequence[Mapping[int, int]] | Mapping[int, Mapping[int, int]]
"""By node, its successors with the kinds of edges to them."""

_BITS = 4096  # sources whose reach is followed in one pass
_VISITS = 2_000_000  # edges that the search for the smallest cycle of a component looks at, after it has found one


def successors(graph: Graph, node: int, mask: int, inside: Collection[int] | None = None) -> list[int]:
    """Where edges of these kinds lead, within a set of nodes."""
    return [target for target, kinds in graph[node].items() if kinds & mask and (inside is None or target in inside)]


def components(graph: Graph, nodes: Iterable[int], mask: int) -> Iterator[list[int]]:
    """The strongly connected components among `nodes` along edges in `mask`, each after all that it leads to.

    R. Tarjan, "Depth-first search and linear graph algorithms", SIAM Journal on Computing 1 (1972), without recursion.
    """
    inside = nodes if isinstance(nodes, range | set) else set(nodes)
    low: dict[int, int] = {}
    done: set[int] = set()
    stack: list[int] = []
    for root in inside:
        if root in low:
            continue
        walk = [(root, iter(_enter(graph, root, mask, inside, low, stack)))]
        place = {root: low[root]}
        while walk:
            node, targets = walk[-1]
            for target in targets:
                if target not in low:
                    walk.append((target, iter(_enter(graph, target, mask, inside, low, stack))))
                    place[target] = low[target]
                    break
                if target not in done and low[target] < low[node]:
                    low[node] = low[target]
            else:
                walk.pop()
                if walk and low[node] < low[walk[-1][0]]:
                    low[walk[-1][0]] = low[node]
                if low[node] == place[node]:
                    yield _leave(node, stack, done)


def _enter(graph: Graph, node: int, mask: int, inside: Collection[int], low: dict[int, int], stack: list[int]) -> list[int]:
    low[node] = len(low)
    stack.append(node)
    return successors(graph, node, mask, inside)


def _leave(node: int, stack: list[int], done: set[int]) -> list[int]:
    at = len(stack) - 1
    while stack[at] != node:
        at -= 1
    found = stack[at:]
    del stack[at:]
    done.update(found)
    return found


def path(graph: Graph, start: int, goal: int, mask: int, inside: Collection[int], limit: int) -> tuple[list[int], int]:
    """The shortest way of one to `limit` edges from `start` to `goal` (which may be the same), empty if there is none; and how many edges were seen."""
    came: dict[int, int] = {}
    queue = deque([(start, 0)])
    visits = 0
    while queue:
        node, depth = queue.popleft()
        if depth == limit:
            break
        for target in successors(graph, node, mask, inside):
            visits += 1
            if target == goal:
                return _back(came, start, node, goal), visits
            if target not in came and target != start:
                came[target] = node
                queue.append((target, depth + 1))
    return [], visits


def _back(came: Mapping[int, int], start: int, node: int, goal: int) -> list[int]:
    way = [goal, node]
    while way[-1] != start:
        way.append(came[way[-1]])
    return way[::-1]


def shortest_cycle(graph: Graph, component: Collection[int], mask: int) -> list[int]:
    """A cycle in a strongly connected component, as its nodes: the shortest one, or the shortest found before the search became too long."""
    return _shortest(graph, ((node, node) for node in sorted(component)), mask, set(component))[:-1]


def shortest_through(graph: Graph, edges: Iterable[tuple[int, int]], mask: int, component: Collection[int]) -> list[int]:
    """The nodes of the shortest cycle that consists of one of `edges` and a way back along `mask`; begins with that edge's source."""
    found = _shortest(graph, ((target, source) for source, target in edges), mask, set(component))
    return [found[-1], *found[:-1]]


def _shortest(graph: Graph, ends: Iterable[tuple[int, int]], mask: int, inside: set[int]) -> list[int]:
    best: list[int] = []
    left = _VISITS
    for start, goal in ends:
        found, visits = path(graph, start, goal, mask, inside, len(best) - 2 if best else len(inside) + 1)
        best = found or best
        left -= visits
        if left < 0 and best:
            break
    return best


def closed(graph: Graph, edges: Sequence[tuple[int, int]], mask: int, component: Collection[int]) -> list[tuple[int, int]]:
    """Those of `edges` whose target leads back to their source along `mask`, which has no cycle in the component.

    Exact also where the component is large: the reach of thousands of targets at once, as bits of a number, along the topological order.
    """
    inside = set(component)
    order = [part[0] for part in components(graph, inside, mask)][::-1]
    targets = list(dict.fromkeys(target for _, target in edges))
    found = []
    for first in range(0, len(targets), _BITS):
        bits = {target: 1 << n for n, target in enumerate(targets[first:first + _BITS])}
        reach = dict(bits)
        for node in order:
            if mine := reach.get(node):
                for target in successors(graph, node, mask, inside):
                    reach[target] = reach.get(target, 0) | mine
        found += [edge for edge in edges if bits.get(edge[1], 0) & reach.get(edge[0], 0)]
    return found
