"""What samples and spans say about a system's health, as pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from envctl.telemetry.store import Span

LagState = Literal["OK", "REWIND", "STOP", "STALL", "WARN", "UNKNOWN"]


@dataclass(frozen=True, slots=True)
class LagPoint:
    """A group's position in one partition at one time; None is unknown."""

    at_s: float
    committed: int | None
    lag: int | None


def lag_state(points: Sequence[LagPoint], now_s: float) -> LagState:
    """How a group does in a partition, over a window of points in order of time (the rules of LinkedIn's Burrow).

    OK: no lag at some time. REWIND: the offset fell. STOP: nothing new for longer than the window is. STALL: the offset did not
    move. WARN: it moves, but the lag never fell. Otherwise OK. UNKNOWN: not one known point.
    """
    known = [(point.at_s, point.committed, point.lag) for point in points if point.committed is not None and point.lag is not None]
    if not known:
        return "UNKNOWN"
    pairs = list(pairwise(known))
    if any(lag == 0 for _, _, lag in known):
        return "OK"
    if any(later[1] < earlier[1] for earlier, later in pairs):
        return "REWIND"
    if now_s - known[-1][0] > points[-1].at_s - points[0].at_s:
        return "STOP"
    if known[-1][1] == known[0][1]:
        return "STALL"
    return "OK" if any(later[2] < earlier[2] for earlier, later in pairs) else "WARN"


def drain_s(totals: Iterable[tuple[float, int | None]], healed_s: float, level: int) -> float | None:
    """Seconds from the healing until a group's lag was back at an earlier level and stayed there; None: not seen.

    `totals` are (time, total lag) in order of time; an unknown lag is not at the level.
    """
    since: float | None = None
    for at_s, lag in totals:
        if at_s >= healed_s:
            if lag is None or lag > level:
                since = None
            elif since is None:
                since = at_s
    return None if since is None else since - healed_s


def slope_per_s(points: Iterable[tuple[float, float | None]]) -> float | None:
    """How fast a value rises, by least squares over the known points; None with fewer than two instants."""
    known = [(at, value) for at, value in points if value is not None]
    if len({at for at, _ in known}) < 2:
        return None
    mean_at = sum(at for at, _ in known) / len(known)
    mean = sum(value for _, value in known) / len(known)
    spread = sum((at - mean_at) ** 2 for at, _ in known)
    return sum((at - mean_at) * (value - mean) for at, value in known) / spread


def processings(spans: Iterable[Span]) -> Counter[tuple[str, str, str, int]]:
    """How often each message was processed: (group, topic, partition, offset) → number of spans."""
    counts: Counter[tuple[str, str, str, int]] = Counter()
    for span in spans:
        attrs = span.attrs
        kind = attrs.get("messaging.operation.type", attrs.get("messaging.operation", "process"))
        offset = attrs.get("messaging.kafka.offset", attrs.get("messaging.kafka.message.offset"))
        if span.kind == "consumer" and kind == "process" and offset is not None:
            group = attrs.get("messaging.consumer.group.name", attrs.get("messaging.kafka.consumer.group", span.service))
            partition = attrs.get("messaging.destination.partition.id", attrs.get("messaging.kafka.destination.partition", ""))
            counts[str(group), str(attrs.get("messaging.destination.name", "")), str(partition), int(offset)] += 1
    return counts


def retry_depth(spans: Sequence[Span], retry_topics: Iterable[str] = ()) -> int:
    """The deepest retry: resends of a request, repeated processing of a message, or hops through retry topics in a trace."""
    resends = max((int(span.attrs.get("http.request.resend_count", 0)) for span in spans), default=0)
    repeats = max(processings(spans).values(), default=1) - 1
    topics = set(retry_topics)
    hops = Counter(
        span.trace_id for span in spans if span.kind == "producer" and span.attrs.get("messaging.destination.name") in topics
    )
    return max(resends, repeats, max(hops.values(), default=0))


def busy_ratio(spans: Iterable[Span], group: str, window_ns: tuple[int, int], consumers: int) -> float | None:
    """Σ processing time inside the window / (window × consumers); None for an empty window or no consumer.

    More than 1 means that consumers process messages side by side.
    """
    begin, end = window_ns
    if end <= begin or consumers < 1:
        return None
    busy = sum(
        max(0, min(span.end_ns, end) - max(span.start_ns, begin)) for span in spans
        if span.kind == "consumer" and span.attrs.get("messaging.consumer.group.name") == group
    )
    return busy / ((end - begin) * consumers)


def peaks(samples: Iterable[tuple[str, float | None]]) -> Mapping[str, float]:
    """The highest known value by subject (a node, a role)."""
    highest: dict[str, float] = {}
    for subject, value in samples:
        if value is not None:
            highest[subject] = max(value, highest.get(subject, value))
    return highest
