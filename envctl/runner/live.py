"""What a run looks like right now: the measures that steady-state and stop conditions speak of.

An operation without an answer counts too, once it has been open for longer than the run's patience, from its intended start: as
not successful, and with its age so far as its latency.  Else a system that hangs would look as well as its last answers.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from envctl.checks.slo import NO_TURN
from envctl.model.event import Op, Sample
from envctl.model.scenario import Condition, Scenario
from envctl.runner.sampled import Newest
from envctl.spec.conditions import COMPARE, quantity_of, subject_of

WINDOW_S = 5.0
PATIENCE_S = 2.0
FEWEST = 10  # operations below which a ratio or a percentile says nothing


@dataclass(frozen=True, slots=True)
class Expected:
    """An operation that is to start: its number and name, and when, in nanoseconds since the run's start."""

    number: int
    name: str
    due_ns: int


@dataclass(frozen=True, slots=True)
class _Done:
    name: str
    ok: bool
    latency_s: float  # from the intended start
    due_ns: int
    end_ns: int


class Live:
    """Operations and samples of the newest seconds; fed by the driver's and the samplers' threads."""

    def __init__(
        self, now_ns: Callable[[], int], window_s: float = WINDOW_S, patience_s: float = PATIENCE_S, newest: Newest | None = None
    ) -> None:
        self.patience_s = patience_s
        self._newest = newest or Newest()
        self._now_ns = now_ns
        self._window_ns = int(window_s * 1e9)
        self._lock = threading.Lock()
        self._open: dict[int, Expected] = {}
        self._schedule: Iterator[Expected] = iter(())
        self._next: Expected | None = None
        self._end_ns = math.inf
        self._done: deque[_Done] = deque()

    def operation(self, event: Op) -> None:
        """Takes an edge of an operation."""
        with self._lock:
            if event.type == "invoke":
                self._await(event.op)
                self._open[event.op] = Expected(event.op, event.f, event.at_ns if event.due_ns is None else event.due_ns)
                return
            begun = self._open.pop(event.op, None)
            if begun is None or _untried(event.value):
                return
            self._done.append(_Done(event.f, event.type == "ok", (event.at_ns - begun.due_ns) / 1e9, begun.due_ns, event.at_ns))
            self._forget()

    def expect(self, schedule: Iterator[Expected]) -> None:
        """Takes the operations to come, in their order: those that must wait for their turn are open all the same."""
        with self._lock:
            self._schedule, self._next = schedule, next(schedule, None)

    def ends(self, at_ns: int) -> None:
        """Of what was to come, nothing that is due from then on will."""
        with self._lock:
            self._end_ns = at_ns

    def over(self) -> None:
        """Nothing more will come: what is still open says nothing about the system."""
        with self._lock:
            self._open.clear()
            self._next = None

    def _await(self, number: int = 0) -> None:
        """Opens what is due by now; at least up to that operation, which has started."""
        now_ns = self._now_ns()
        while self._next is not None and self._next.due_ns < self._end_ns and (self._next.due_ns <= now_ns or self._next.number <= number):
            self._open[self._next.number] = self._next
            self._next = next(self._schedule, None)

    def sample(self, sample: Sample) -> None:
        """Takes a sample; the newest of each measure and what it is about counts."""
        with self._lock:
            self._newest.take(sample)

    def _forget(self) -> None:
        oldest = self._now_ns() - 12 * self._window_ns
        while self._done and self._done[0].end_ns < oldest:
            self._done.popleft()

    def value(self, condition: Condition, since_ns: int = 0, until_ns: int | None = None, *, widen: bool = False) -> float | None:
        """The measure over the newest window and what is open, counting only operations that were due, and samples that were taken, after `since_ns`.

        With `until_ns` it is the window before that, and what was due by then: as it has turned out since.  None where there are too few samples to say anything.  `widen` goes back as far as it takes to have enough: in an
        outage with few clients, operations end too seldom to fill a window.
        """
        now_ns = self._now_ns()
        if subject_of(condition) != "traffic":
            with self._lock:
                return self._newest.value(condition, now_ns, since_ns)
        last_ns = now_ns if until_ns is None else until_ns
        start = max(last_ns - self._window_ns, since_ns)
        with self._lock:
            self._await()
            every = [d for d in self._done if since_ns <= d.due_ns <= last_ns and condition.subject in ("traffic", d.name)]
            waiting = [e for e in self._open.values() if since_ns <= e.due_ns <= last_ns and condition.subject in ("traffic", e.name)]
        done = [d for d in every if d.end_ns >= start]
        if condition.measure == "throughput":
            return len(done) * 1e9 / self._window_ns
        timed = quantity_of(condition) == "time"
        patience_ns = 1e9 * (min(self.patience_s, condition.threshold) if timed else self.patience_s)
        late = [_Done(e.name, False, (now_ns - e.due_ns) / 1e9, e.due_ns, now_ns) for e in waiting if now_ns - e.due_ns > patience_ns]
        if widen and len(done) + len(late) < FEWEST:
            done = every[-FEWEST:]
        return _over([*done, *late], condition.measure)

    def meets(self, condition: Condition, since_ns: int = 0, *, widen: bool = False) -> bool | None:
        """Whether the condition holds now; None when nothing can be said."""
        return _met(condition, self.value(condition, since_ns, widen=widen))

    def answer(self, condition: Condition, since_ns: int = 0, until_ns: int | None = None) -> dict[str, Any]:
        """{`text`, `value`, `ok`} of a condition as of now, for the record."""
        value = self.value(condition, since_ns, until_ns)
        return {"text": condition.text, "value": value, "ok": _met(condition, value)}


def _met(condition: Condition, value: float | None) -> bool | None:
    return None if value is None else COMPARE[condition.comparison](value, condition.threshold)


def _untried(answer: Any) -> bool:
    """Whether it was never sent, for another reason than that the system did not answer what came before it."""
    return isinstance(answer, dict) and answer.get("sent") is False and NO_TURN not in str(answer.get("error"))


def open_for_s(scenario: Scenario) -> float:
    """How long an operation may be open before it counts: 2 s, or the longest latency that the scenario allows below its time-out."""
    allowed = [c.threshold for c in scenario.steady if quantity_of(c) == "time" and subject_of(c) == "traffic"]
    return max(PATIENCE_S, min(scenario.traffic.timeout_s, max((*allowed, *scenario.slo.latency_s.values()), default=0.0)))


def _over(done: list[_Done], measure: str) -> float | None:
    if len(done) < FEWEST:
        return None
    if measure in ("success_rate", "error_rate"):
        ratio = sum(d.ok for d in done) / len(done)
        return ratio if measure == "success_rate" else 1 - ratio
    return percentile([d.latency_s for d in done], share_of(measure))


def share_of(measure: str) -> float:
    """`p95` → 0.95, `p999` → 0.999, `max` → 1."""
    digits = measure.removeprefix("p")
    return 1.0 if measure == "max" else int(digits) / 10 ** len(digits)


def percentile(values: Iterable[float], share: float) -> float:
    """Nearest-rank percentile (`share` between 0 and 1) of at least one value."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * round(share * 10_000) // 10_000))  # ceiling, without rounding errors of floats
    return ordered[min(rank, len(ordered)) - 1]


class Held:
    """Whether a condition has held without a break for the time it asks for."""

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self._since: float | None = None

    def update(self, met: bool | None) -> bool:
        """Takes the newest answer; an unknown one breaks the row."""
        now = time.monotonic()
        if not met:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= self.condition.hold_s
