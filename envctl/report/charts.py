"""Geometry of the timeline: values become paths in a box of 1000 × 100 that the page stretches to any width.

Labels are not in the drawing but beside it, at percentages, so that they keep their size on a telephone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10

from envctl.report import words
from envctl.report.model import Marker, Series, Timeline, Track, Window

WIDTH, HEIGHT = 1000.0, 100.0
_STEPS = (1, 2, 2.5, 5, 10)
_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)


@dataclass(frozen=True, slots=True)
class Tick:
    """A label at a place along an axis, in percent from its start."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """A series as it is drawn: `path` of an SVG, `colour` a class of the page's palette."""

    name: str
    path: str
    shape: str
    colour: str
    summary: str
    values: tuple[str, ...]  # for reading off, by bucket


@dataclass(frozen=True, slots=True)
class Plot:
    """One track, ready to be written."""

    track: Track
    lines: tuple[Line, ...]
    ticks: tuple[Tick, ...]  # of the vertical axis, from below
    limit: float | None  # percent from below

    @property
    def empty(self) -> bool:
        """Nothing was measured, or nothing happened."""
        return not any(line.path for line in self.lines)


@dataclass(frozen=True, slots=True)
class Band:
    """A fault's window in percent of the width: `acting` until it was healed, `after` until the system had recovered."""

    window: Window
    start: float
    acting: float
    after: float
    times: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A marker's place in percent of the width."""

    marker: Marker
    at: float
    time: str


@dataclass(frozen=True, slots=True)
class Chart:
    """The whole timeline, ready to be written."""

    plots: tuple[Plot, ...]
    bands: tuple[Band, ...]
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    bucket_s: float
    end_s: float  # of the last bucket


def chart(timeline: Timeline) -> Chart:
    """Lays out a timeline; its axis ends where its last bucket does."""
    count = max((len(one.values) for track in timeline.tracks for one in track.series), default=0)
    end_s = max(count * timeline.bucket_s, timeline.end_s, 1e-9)
    share = 100 / end_s
    return Chart(
        tuple(_plot(track) for track in timeline.tracks),
        tuple(_band(window, end_s, share) for window in timeline.windows),
        tuple(Mark(marker, marker.at_s * share, words.instant(marker.at_s)) for marker in timeline.markers),
        tuple(_time_ticks(end_s)), timeline.bucket_s, end_s,
    )


def nice(peak: float) -> float:
    """The smallest of 1, 2, 2.5, 5 × a power of ten that is no less than `peak`."""
    if peak < 1e-9:
        return 1.0
    power: float = 10.0 ** floor(log10(peak))
    return next(step * power for step in _STEPS if step * power >= peak * 0.999999)


def _plot(track: Track) -> Plot:
    peak = max((value for one in track.series for value in one.values if value is not None), default=0.0)
    top = nice(max(peak, (track.limit or 0) if peak * 4 > (track.limit or 0) else 0))  # a far limit would flatten the lines
    ticks = tuple(Tick(part * 100, words.quantity(top * part, track.unit if track.unit == "s" else "") if part else "0") for part in (0, 0.5, 1))
    limit = track.limit / top * 100 if track.limit is not None and track.limit <= top else None
    return Plot(track, tuple(_line(track, one, at, top) for at, one in enumerate(track.series)), ticks if peak else ticks[:1], limit)


def _line(track: Track, series: Series, index: int, top: float) -> Line:
    known = [value for value in series.values if value is not None]
    drawn = any(known) or (series.shape == "line" and bool(known))
    path = (_bars if series.shape == "bar" else _curve)(series.values, top) if drawn else ""
    summary = f"peak {words.quantity(max(known), track.unit)}" if known else "unknown"
    colour = {"failed": "bad", "outcome unknown": "unsure", "never sent": "c5", "intended": "quiet"}.get(series.name, f"c{index % 8 + 1}")
    return Line(series.name, path, series.shape, colour, summary, tuple(words.quantity(value, track.unit) for value in series.values))


def _curve(values: Sequence[float | None], top: float) -> str:
    """A line through the middles of the buckets, broken where nothing is known."""
    step, parts, pen = WIDTH / len(values), [], "M"
    for at, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        parts.append(f"{pen}{(at + 0.5) * step:.1f} {HEIGHT - value / top * HEIGHT:.1f}" + ("h0" if pen == "M" else ""))
        pen = "L"
    return "".join(parts)


def _bars(values: Sequence[float | None], top: float) -> str:
    step = WIDTH / len(values)
    return "".join(f"M{at * step + step * 0.1:.1f} {HEIGHT:.0f}v{-value / top * HEIGHT:.1f}h{step * 0.8:.1f}V{HEIGHT:.0f}z"
                   for at, value in enumerate(values) if value)


def _band(window: Window, end_s: float, share: float) -> Band:
    """It acts until it is healed, and counts as passing until the system had recovered, or it was at least gone."""
    healed = window.heal_s if window.heal_s is not None else window.end_s if window.end_s is not None else end_s
    over = max(one for one in (healed, window.end_s, window.recover_s) if one is not None)
    steps = (("healed", window.heal_s, "never healed"), ("gone", window.end_s, "not shown to be gone"), ("recovered", window.recover_s, "no recovery seen"))
    told = (missing if at is None else f"{word} {words.instant(at)}" for word, at, missing in steps)
    times = f"from {words.instant(window.start_s)}, {', '.join(told)}"
    return Band(window, window.start_s * share, (healed - window.start_s) * share, (over - healed) * share, times)


def _time_ticks(end_s: float) -> list[Tick]:
    step = next((step for step in _SECONDS if end_s / step <= 8), end_s / 4)
    return [Tick(at * step / end_s * 100, _time(at * step)) for at in range(int(end_s / step) + 1) if at * step <= end_s * 0.995]


def _time(seconds: float) -> str:
    if seconds < 120 or seconds % 60:
        return f"{seconds:g}{words.GAP}s"
    return f"{seconds / 60:g}{words.GAP}min"
