"""The topology as a drawing: layers by dependency, shapes by kind, what took part in front of what did not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from envctl.report import words
from envctl.report.model import ComponentRow, Link

BOX_W, BOX_H, GAP_X, GAP_Y, MARGIN = 132, 44, 28, 60, 12
ROW = 6  # boxes beside each other
NAME = 17  # characters of a name that fit
MOST = 150  # components that are drawn; the table has all
_ENGINES = ("postgres", "kafka", "redis")


@dataclass(frozen=True, slots=True)
class Box:
    """A component's place; (x, y) is its upper left corner."""

    row: ComponentRow
    x: float
    y: float
    outline: str  # path of its shape, relative to its corner

    @property
    def label(self) -> str:
        """The name as far as it fits."""
        return words.clip(self.row.name, NAME)


@dataclass(frozen=True, slots=True)
class Arrow:
    """A link as a curve."""

    link: Link
    path: str
    faint: bool  # one of its ends did not take part


@dataclass(frozen=True, slots=True)
class Graph:
    """The drawing and its size in pixels."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    width: float
    height: float


def graph(components: Sequence[ComponentRow], links: Sequence[Link]) -> Graph | None:
    """Lays out the components; None when there is nothing to draw, or too much to read."""
    if not components or len(components) > MOST:
        return None
    rows = _rows(components, links)
    width = max(len(row) for row in rows) * (BOX_W + GAP_X) - GAP_X + 2 * MARGIN
    boxes: dict[str, Box] = {}
    for level, row in enumerate(rows):
        left = (width - (len(row) * (BOX_W + GAP_X) - GAP_X)) / 2
        for at, one in enumerate(row):
            boxes[one.name] = Box(one, left + at * (BOX_W + GAP_X), MARGIN + level * (BOX_H + GAP_Y), outline(one.kind))
    arrows = tuple(_arrow(link, boxes[link.source], boxes[link.target]) for link in _drawn(links, boxes))
    return Graph(tuple(boxes.values()), arrows, width, len(rows) * (BOX_H + GAP_Y) - GAP_Y + 2 * MARGIN)


def outline(kind: str) -> str:
    """A path by kind: drums for databases, a pipe for brokers, a hexagon for caches, a cut corner for jobs."""
    w, h = BOX_W, BOX_H
    shapes = {
        "postgres": f"M0 7C0 -2 {w} -2 {w} 7V{h - 7}C{w} {h + 2} 0 {h + 2} 0 {h - 7}ZM0 7C0 13 {w} 13 {w} 7",
        "kafka": f"M8 0H{w - 8}C{w + 2} 0 {w + 2} {h} {w - 8} {h}H8C-2 {h} -2 0 8 0ZM{w - 8} 0C{w - 18} 0 {w - 18} {h} {w - 8} {h}",
        "redis": f"M12 0H{w - 12}L{w} {h / 2}L{w - 12} {h}H12L0 {h / 2}Z",
        "job": f"M0 0H{w - 12}L{w} 12V{h}H0Z",
    }
    return shapes.get(kind, f"M6 0H{w - 6}Q{w} 0 {w} 6V{h - 6}Q{w} {h} {w - 6} {h}H6Q0 {h} 0 {h - 6}V6Q0 0 6 0Z")


def _rows(components: Sequence[ComponentRow], links: Sequence[Link]) -> list[list[ComponentRow]]:
    """Programs by how far they are from what calls them, engines below them all, at most `ROW` in a row."""
    programs = [one for one in components if one.kind not in _ENGINES]
    depth = _depths([one.name for one in programs], links)
    levels: dict[int, list[ComponentRow]] = {}
    for one in programs:
        levels.setdefault(depth[one.name], []).append(one)
    levels[len(components)] = [one for one in components if one.kind in _ENGINES]
    layers = [levels[level] for level in sorted(levels) if levels[level]]
    return [layer[at : at + ROW] for layer in _untangled(layers, links) for at in range(0, len(layer), ROW)]


def _depths(names: Sequence[str], links: Sequence[Link]) -> dict[str, int]:
    """The longest way from a component that nothing leads to; what would close a circle does not count."""
    into: dict[str, list[str]] = {name: [] for name in names}
    for link in links:
        if link.kind != "needs" and link.source in into and link.target in into and not _reaches(link.target, link.source, into):
            into[link.target].append(link.source)
    depth: dict[str, int] = {}

    def of(name: str) -> int:
        if name not in depth:
            depth[name] = max((of(source) + 1 for source in into[name]), default=0)
        return depth[name]

    for name in names:
        of(name)
    return depth


def _reaches(source: str, target: str, into: Mapping[str, Sequence[str]]) -> bool:
    """Whether `target` already depends on coming after `source`."""
    pending, seen = [target], set()
    while pending:
        name = pending.pop()
        if name == source:
            return True
        if name not in seen:
            seen.add(name)
            pending += into[name]
    return False


def _untangled(layers: Sequence[Sequence[ComponentRow]], links: Sequence[Link]) -> list[list[ComponentRow]]:
    """Each layer in the order of where its neighbours above stand: fewer crossings."""
    place: dict[str, float] = {}
    ordered = []
    for layer in layers:
        above = {one: _above(one.name, links, place) for one in layer}
        row = sorted(layer, key=above.__getitem__)
        place |= {one.name: (at + 0.5) / len(row) for at, one in enumerate(row)}
        ordered.append(row)
    return ordered


def _above(name: str, links: Sequence[Link], place: Mapping[str, float]) -> float:
    """Where a component's neighbours above stand on average, 0 … 1; in the middle without any."""
    found = [place[end] for link in links for end in _other(link, name) if end in place]
    return sum(found) / len(found) if found else 0.5


def _other(link: Link, name: str) -> Iterable[str]:
    return (link.target,) if link.source == name else (link.source,) if link.target == name else ()


def _drawn(links: Sequence[Link], boxes: Mapping[str, Box]) -> Iterable[Link]:
    """Links between boxes; two components are joined once a kind."""
    once = {(link.source, link.target, link.kind): link for link in links if link.source in boxes and link.target in boxes and link.source != link.target}
    return sorted(once.values(), key=lambda link: link.kind != "needs")  # needs lie under what is used at run time


def _arrow(link: Link, source: Box, target: Box) -> Arrow:
    faint = "out" in (source.row.part, target.row.part)
    if source.y == target.y:
        down = source.y + BOX_H
        path = f"M{source.x + BOX_W / 2:.0f} {down:.0f}C{source.x + BOX_W / 2:.0f} {down + 36:.0f} {target.x + BOX_W / 2:.0f} {down + 36:.0f} {target.x + BOX_W / 2:.0f} {down + 3:.0f}"
        return Arrow(link, path, faint)
    below = target.y > source.y
    begin = source.y + BOX_H if below else source.y
    end = target.y - 3 if below else target.y + BOX_H + 3
    shift = 0 if link.kind == "calls" else 14
    x1, x2, bend = source.x + BOX_W / 2 + shift, target.x + BOX_W / 2 + shift, (end - begin) / 2
    return Arrow(link, f"M{x1:.0f} {begin:.0f}C{x1:.0f} {begin + bend:.0f} {x2:.0f} {end - bend:.0f} {x2:.0f} {end:.0f}", faint)
