"""Beside a fault that acts: which condition tells of it first, and whether what must hold meanwhile does.

An alarm that was on before the fault tells nothing of it: it has to go off and come on again.  What can't be measured for longer than the
window that measures are over is unknown, never fine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from envctl.model.scenario import Condition, Detect, FaultSpec, Scenario
from envctl.runner.live import WINDOW_S, Held, Live
from envctl.spec.conditions import format_answer, subject_of

LOOK_S = 0.2

Say = Callable[[Literal["detect", "during"], bool, str, dict[str, Any]], None]


@dataclass(slots=True)
class _Gap:
    """The longest time in a row for which nothing was known."""

    longest_s: float = 0.0
    _known_at: float | None = None

    def update(self, known: bool) -> None:
        now = time.monotonic()
        self._known_at = now if self._known_at is None else self._known_at
        self.longest_s = max(self.longest_s, now - self._known_at)
        if known:
            self._known_at = now


@dataclass(slots=True)
class _Signal:
    """A condition that tells of a fault: by holding (an alarm) or by being violated."""

    condition: Condition
    alarm: bool
    held: Held
    armed: bool = False
    gap: _Gap = field(default_factory=_Gap)

    @property
    def deaf(self) -> str:
        """Why it could not tell of a fault; empty where it could."""
        if self.gap.longest_s > WINDOW_S:
            return f"could not be measured for {self.gap.longest_s:.1f} s"
        return "" if self.armed else f"{'held' if self.alarm else 'was violated'} before it acted already"

    def fires(self, live: Live) -> bool:
        """Whether it has come on since it was seen to be off."""
        met = live.meets(self.condition, widen=self.alarm)
        on = None if met is None else met is self.alarm
        self.gap.update(on is not None)
        held = self.held.update(on)
        self.armed = self.armed or on is False
        return held and self.armed


@dataclass(slots=True)
class _Tolerance:
    """A condition that must hold while a fault acts."""

    condition: Condition
    value: float | None = None  # the first that was too bad, or the newest known
    violated_s: float | None = None
    known: bool = False
    gap: _Gap = field(default_factory=_Gap)

    def look(self, live: Live, since_ns: int, until_ns: int | None, after_s: float) -> None:
        """Judges it over what has come since the fault began to act; once it has gone, over how the operations that had begun by then turn out."""
        if until_ns is not None and subject_of(self.condition) != "traffic":
            return
        answer = live.answer(self.condition, since_ns, until_ns)
        if until_ns is None:
            self.gap.update(answer["ok"] is not None)
        if self.violated_s is not None or answer["ok"] is None:
            return
        self.known, self.value = True, answer["value"]
        self.violated_s = None if answer["ok"] else after_s

    def answer(self) -> dict[str, Any]:
        """As the record keeps it."""
        measured = self.known and self.gap.longest_s <= WINDOW_S
        ok = False if self.violated_s is not None else True if measured else None
        return {"text": self.condition.text, "value": self.value, "ok": ok, "seconds": self.violated_s}


class Notice(threading.Thread):
    """Looks at a fault's signals from before it acts until it has been recovered from, and says what it found once."""

    def __init__(self, spec: FaultSpec, scenario: Scenario, live: Live, now_ns: Callable[[], int], say: Say) -> None:
        super().__init__(name=f"notice {spec.id}", daemon=True)
        self._live, self._now_ns, self._say = live, now_ns, say
        self._detect = detect_of(spec, scenario)
        self._conditions = (*scenario.during, *spec.during)
        self._signals = _signals(self._detect, scenario, self._conditions)
        self._tolerances: list[_Tolerance] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._acted_ns: int | None = None
        self._gone_ns: int | None = None
        self._told = False
        self._look()

    def run(self) -> None:
        """Looks until it is over."""
        while not self._over.wait(LOOK_S):
            self._look()

    def acts(self) -> None:
        """The fault acts from now on."""
        with self._lock:
            self._acted_ns = self._now_ns()
            self._tolerances = [_Tolerance(condition) for condition in self._conditions]
            for signal in self._signals:
                signal.gap = _Gap()

    def gone(self) -> None:
        """The fault acts no more: what had begun by then may still be open, so it is said a little later how what must hold meanwhile held."""
        self._look()
        with self._lock:
            self._gone_ns = self._now_ns()

    def _say_tolerated(self) -> None:
        tolerances, self._tolerances = self._tolerances, []
        answers = [tolerance.answer() for tolerance in tolerances]
        if answers:
            self._say("during", all(answer["ok"] for answer in answers), _tolerated(answers), {"conditions": answers})

    def over(self, *, stopped: bool) -> None:
        """Nothing that comes from now on is the fault's: says that nothing told of it, if nothing did.  Idempotent."""
        if self._acted_ns is not None:
            self._look()
        self._over.set()
        if self.is_alive():
            self.join()
        if self._gone_ns is not None:
            self._say_tolerated()
        if self._acted_ns is None or self._told or not self._signals:
            return
        self._told = True
        within_s = self._detect.within_s
        unknown = [f"{signal.condition.text} {why}" for signal in self._signals if (why := signal.deaf)]
        words = f": {'; '.join(unknown)}" if unknown else ""
        self._say("detect", within_s is None, f"not detected{words}", {"seconds": None, "within_s": within_s, "unknown": unknown, "stopped": stopped})

    def _look(self) -> None:
        with self._lock:
            after_s = (self._now_ns() - self._acted_ns) / 1e9 if self._acted_ns is not None else 0.0
            for tolerance in self._tolerances:
                tolerance.look(self._live, self._acted_ns or 0, self._gone_ns, after_s)
            if self._gone_ns is not None and self._now_ns() - self._gone_ns >= self._live.patience_s * 1e9:
                self._say_tolerated()
            fired = [signal for signal in self._signals if not self._told and signal.fires(self._live)]
            if fired and self._acted_ns is not None:
                self._told = True
                self._detected(fired[0].condition, after_s)

    def _detected(self, condition: Condition, seconds: float) -> None:
        within_s = self._detect.within_s
        late = within_s is not None and seconds > within_s
        summary = f"detected in {seconds:.1f} s{f', {within_s:g} s allowed' if late else ''}: {condition.text}"
        self._say("detect", not late, summary, {"seconds": seconds, "within_s": within_s, "by": condition.text, "value": self._live.value(condition)})


def detect_of(spec: FaultSpec, scenario: Scenario) -> Detect:
    """What has to notice a fault: as its entry says, and where that says nothing as the scenario does."""
    own = spec.detect or Detect()
    return Detect(scenario.detect.within_s if own.within_s is None else own.within_s, own.by or scenario.detect.by)


def _signals(detect: Detect, scenario: Scenario, during: Sequence[Condition]) -> list[_Signal]:
    alarms = detect.by or scenario.stop
    violated = () if detect.by else dict.fromkeys((*scenario.steady, *during))
    return [*(_Signal(condition, alarm=False, held=Held(condition)) for condition in violated),
            *(_Signal(condition, alarm=True, held=Held(condition)) for condition in alarms)]


def _tolerated(answers: Sequence[Mapping[str, Any]]) -> str:
    """`held meanwhile`, or what did not, and when."""
    violated = [f"{format_answer(answer)} after {answer['seconds']:.1f} s" for answer in answers if answer["ok"] is False]
    unknown = [answer["text"] for answer in answers if answer["ok"] is None]
    if violated:
        return f"not tolerated: {'; '.join(violated)}"
    return f"could not be measured meanwhile: {'; '.join(unknown)}" if unknown else "tolerated"
