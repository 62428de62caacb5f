"""Delta debugging of schedules: A. Zeller, R. Hildebrandt, Simplifying and Isolating Failure-Inducing Input, IEEE TSE 28(2), 2002.

Sets (faults, kinds of operations) are reduced by its algorithm ddmin until none of their elements can be left out; numbers (times, rates, shares) by
halving the distance to the least they can be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from envctl.model.scenario import FaultSpec
from envctl.shrink.schedule import Schedule, end_s, keeping
from envctl.spec.units import duration_s

T = TypeVar("T")
Fails = Callable[[Schedule], bool]
Form = Callable[[float], Any]

LEAST_S = 1.0  # a fault's length, and that of traffic
START_S = 2.0  # a first fault's start: before it, the system is to be steady
AFTER_S = 2.0  # traffic after the last fault
LEAST_RATE = 1.0
STEPS = 3  # halvings of one number
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def reduced(whole: Schedule, fails: Fails) -> Iterator[Schedule]:
    """Ever smaller schedules that fail, the last of which is the smallest found; nothing when no smaller one does.

    `fails` may raise to end the search: what was yielded before stands.  It is asked about no schedule twice.
    """
    known: dict[str, bool] = {whole.key: True}

    def asked(schedule: Schedule) -> bool:
        if schedule.key not in known:
            known[schedule.key] = fails(schedule)
        return known[schedule.key]

    best = whole
    while True:
        before = best
        for step in (_faults, _operations, _length, _parameters, _starts, _length, _rate, _data):
            for smaller in step(best, asked):
                best = smaller
                yield best
        if best == before:
            return


def ddmin(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> Iterator[Sequence[T]]:
    """Ever smaller parts of `items` that fail; of the last one no element can be left out."""
    if items and fails(()):
        yield ()
        return
    parts = 2
    while len(items) > 1:
        chunks = [items[len(items) * n // parts: len(items) * (n + 1) // parts] for n in range(parts)]
        rests = [[item for other in chunks if other is not chunk for item in other] for chunk in chunks]
        if (found := next(filter(fails, chunks), None)) is not None:
            items, parts = found, 2
        elif (found := next(filter(fails, rests), None)) is not None:
            items, parts = found, max(parts - 1, 2)
        elif parts >= len(items):
            return
        else:
            parts = min(len(items), 2 * parts)
            continue
        yield items


def lower(value: float, least: float, fails: Callable[[float], bool]) -> Iterator[float]:
    """Ever lower values that fail: the least, or what halving the distance to it a few times comes to."""
    if value <= least:
        return
    if fails(least):
        yield least
        return
    low, high = least, value
    for _ in range(STEPS):
        middle = _rounded((low + high) / 2)
        if not low < middle < high:
            return
        if fails(middle):
            high = middle
            yield high
        else:
            low = middle


def _rounded(value: float) -> float:
    """To what people write."""
    return float(round(value)) if value >= 10 else round(value, 1)


def _faults(best: Schedule, fails: Fails) -> Iterator[Schedule]:
    def only(kept: Sequence[FaultSpec]) -> Schedule:
        return replace(best, faults=keeping(best.faults, kept))

    yield from map(only, ddmin(best.faults, lambda kept: fails(only(kept))))


def _operations(best: Schedule, fails: Fails) -> Iterator[Schedule]:
    def only(kept: Sequence[str]) -> Schedule:
        return replace(best, operations=tuple(kept))

    yield from map(only, ddmin(best.operations, lambda kept: bool(kept) and fails(only(kept))))


@dataclass(frozen=True, slots=True)
class _Dial:
    """One number of a schedule: what it is, the least it can be, and the schedule in which it is another one."""

    value: float
    least: float
    turned: Callable[[Schedule, float], Schedule]


def _turn(best: Schedule, fails: Fails, dials: Iterable[_Dial]) -> Iterator[Schedule]:
    for dial in dials:
        newest = best
        for value in lower(dial.value, dial.least, partial(_fails_at, best, dial, fails)):
            newest = dial.turned(best, value)
            yield newest
        best = newest


def _fails_at(schedule: Schedule, dial: _Dial, fails: Fails, value: float) -> bool:
    return fails(dial.turned(schedule, value))


def _length(best: Schedule, fails: Fails) -> Iterator[Schedule]:
    least = max(LEAST_S, end_s(best) + AFTER_S)
    return _turn(best, fails, [_Dial(best.for_s, least, lambda schedule, value: replace(schedule, for_s=value))])


def _rate(best: Schedule, fails: Fails) -> Iterator[Schedule]:
    dial = _Dial(best.rate_per_s or 0.0, LEAST_RATE, lambda schedule, value: replace(schedule, rate_per_s=value))
    return _turn(best, fails, [dial])


def _data(best: Schedule, fails: Fails) -> Iterator[Schedule]:
    if best.seed and fails(without := replace(best, seed="")):
        yield without


def _starts(best: Schedule, fails: Fails) -> Iterator[Schedule]:
    timed = [(index, fault.at_s) for index, fault in enumerate(best.faults) if fault.at_s is not None]
    return _turn(best, fails, [_Dial(at_s, START_S, partial(_with, index, _started)) for index, at_s in timed])


def _parameters(best: Schedule, fails: Fails) -> Iterator[Schedule]:
    """How long each fault is held, and its shares, counts and times."""
    dials = []
    for index, fault in enumerate(best.faults):
        if fault.for_s is not None:
            dials.append(_Dial(fault.for_s, LEAST_S, partial(_with, index, _held)))
        for name, given in fault.params.items():
            if (found := _measure(given)) is not None:
                value, least, form = found
                dials.append(_Dial(value, least, partial(_with, index, partial(_given, name, form))))
    return _turn(best, fails, dials)


def _with(index: int, change: Callable[[FaultSpec, float], FaultSpec], schedule: Schedule, value: float) -> Schedule:
    faults = schedule.faults
    return replace(schedule, faults=(*faults[:index], change(faults[index], value), *faults[index + 1:]))


def _started(fault: FaultSpec, value: float) -> FaultSpec:
    return replace(fault, at_s=value)


def _held(fault: FaultSpec, value: float) -> FaultSpec:
    return replace(fault, for_s=value)


def _given(name: str, form: Form, fault: FaultSpec, value: float) -> FaultSpec:
    return replace(fault, params={**fault.params, name: form(value)})


def _measure(given: Any) -> tuple[float, float, Form] | None:
    """A parameter as a number, the least it can be, and how it is written; None for one that is no measure."""
    if isinstance(given, int) and not isinstance(given, bool):
        return float(given), 1.0, round
    if not isinstance(given, str):
        return None
    if share := _SHARE.fullmatch(given.strip()):
        return float(share[1]), 1.0, lambda value: f"{value:g} %"
    try:
        length_s = duration_s(given)
    except ValueError:
        return None
    return length_s, length_s / 10, lambda value: f"{value * 1000:g}ms" if value < 1 else f"{value:g}s"
