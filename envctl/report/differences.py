"""What two revisions differ in by more than noise: repetitions of the same scenario on both, compared measure by measure.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Literal

from envctl.model.verdict import Outcome, Verdict
from envctl.report import words
from envctl.report.model import Report

METHOD = "exact Mann–Whitney interval of the shift (Hodges, Lehmann 1963)"
RISK = 0.05
LEAST = 4  # repetitions a side: with three, not even complete separation is beyond 5 %
Unit = Literal["s", "ratio", "count"]


@dataclass(frozen=True, slots=True)
class Shift:
    """How much higher a measure is here than there: the median of all pairwise differences, and its interval at `level` or more."""

    middle: float
    low: float
    high: float
    level: float

    @property
    def certain(self) -> bool:
        """Whether it is more than noise."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Difference:
    """A measure on both sides: the median of its runs, and the shift."""

    name: str
    unit: Unit
    here: float
    there: float
    shift: Shift


@dataclass(frozen=True, slots=True)
class Failure:
    """A finding that failed, with how many of the runs it did on each side."""

    id: str
    here: int
    of_here: int
    there: int
    of_there: int

    @property
    def new(self) -> bool:
        """Whether it is not known from there."""
        return self.here > 0 and self.there == 0

    @property
    def worse(self) -> bool:
        """Whether it is known from there, and fails here more often by more than chance (Fisher's exact test, one-sided)."""
        failed, runs = self.here + self.there, self.of_here + self.of_there
        orders = sum(comb(self.of_here, k) * comb(self.of_there, failed - k) for k in range(self.here, min(failed, self.of_here) + 1))
        return not self.new and self.here > 0 and orders / comb(runs, failed) <= RISK

    def __str__(self) -> str:
        known = "fails more often than there" if self.worse else "was there before"
        what = "new" if self.new else known if self.here else "no longer here"
        return f"{self.id}: failed in {self.here} of {self.of_here} runs here, in {self.there} of {self.of_there} there: {what}"


def shift(here: Sequence[float], there: Sequence[float], risk: float = RISK) -> Shift | None:
    """The shift of `here` against `there`; None where there are too few runs for any interval.

    M. Hollander, D. Wolfe, Nonparametric Statistical Methods, section 4.3: with the sorted differences of all pairs d_1 … d_mn, the
    interval is d_c … d_(mn+1−c), with the largest c for which P(U ≤ c − 1) ≤ risk / 2.  Assumes nothing about the distribution; ties widen it.
    """
    pairs = sorted(x - y for x in here for y in there)
    m, n = len(here), len(there)
    below, cut = 0, 0
    for u in range(len(pairs) // 2):
        if (below + _ways(m, n, u)) / comb(m + n, m) > risk / 2:
            break
        below, cut = below + _ways(m, n, u), u + 1
    if not cut:
        return None
    half = len(pairs) // 2
    middle = pairs[half] if len(pairs) % 2 else (pairs[half - 1] + pairs[half]) / 2
    return Shift(middle, pairs[cut - 1], pairs[-cut], 1 - 2 * below / comb(m + n, m))


@cache
def _ways(m: int, n: int, u: int) -> int:
    """In how many orders of m and n values exactly u pairs are the wrong way round (Mann, Whitney 1947)."""
    if u < 0 or m == 0 or n == 0:
        return int(u == 0)
    return _ways(m - 1, n, u - n) + _ways(m, n - 1, u)


def measures(report: Report) -> dict[tuple[str, Unit], float | None]:
    """What is compared of a run; None is unknown, or without bound."""
    figures = report.figures
    found: dict[tuple[str, Unit], float | None] = {
        ("answered well", "ratio"): figures.success, ("p50", "s"): figures.p50_s, ("p95", "s"): figures.p95_s, ("p99", "s"): figures.p99_s,
    }
    found |= {(f"highest lag of {group}", "count"): float(lag) for group, lag in sorted(figures.peak_lag.items())}
    for fault in report.faults:
        found |= {(f"time to detect {fault.id}", "s"): fault.detect_s, (f"time to recover from {fault.id}", "s"): fault.recover_s}
    return found


def compared(here: Sequence[Report], there: Sequence[Report]) -> tuple[list[Difference], list[str]]:
    """Every measure that all runs have, and the names of the others (but of those that no run has)."""
    sides = [[measures(report) for report in reports] for reports in (here, there)]
    found, unknown = [], []
    for name, unit in dict.fromkeys(key for side in sides for run in side for key in run):
        ours, theirs = ([run.get((name, unit)) for run in side] for side in sides)
        known, others = ([value for value in side if value is not None] for side in (ours, theirs))
        moved = shift(known, others) if (len(known), len(others)) == (len(ours), len(theirs)) else None
        if moved is not None:
            found.append(Difference(name, unit, _median(known), _median(others), moved))
        elif known or others:
            unknown.append(name)
    return found, unknown


def _median(values: Sequence[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def failures(here: Sequence[Verdict], there: Sequence[Verdict]) -> list[Failure]:
    """Every finding that failed anywhere; the new ones first."""
    counts = [Counter(f.id for verdict in side for f in verdict.findings if f.outcome == "fail" and not f.waived) for side in (here, there)]
    found = [Failure(id, counts[0][id], len(here), counts[1][id], len(there)) for id in dict.fromkeys((*counts[0], *counts[1]))]
    return sorted(found, key=lambda failure: (not failure.new, not failure.worse, not failure.here))


def outcome(here: Sequence[Verdict], there: Sequence[Verdict], *, preexisting: Literal["fail", "warn"]) -> Outcome:
    """What is said of the change: a failure that is known from there, and is no more frequent here, is not blamed on it, unless that is asked for."""
    blamed = [each for each in failures(here, there) if each.new or each.worse or (each.here and preexisting == "fail")]
    if blamed:
        return "fail"
    return "inconclusive" if not here or any(verdict.outcome == "inconclusive" for verdict in here) else "pass"


def told(difference: Difference) -> str:
    """A difference in one line."""
    unit, moved = difference.unit, difference.shift
    here, there = _value(difference.here, unit), _value(difference.there, unit)
    middle, low, high = (_signed(value, unit) for value in (moved.middle, moved.low, moved.high))
    return f"{difference.name}: {here} here, {there} there: {middle} ({100 * moved.level:.0f} %: {low} to {high})"


def lines(here: Sequence[Report], there: Sequence[Report], failed: Sequence[Failure]) -> list[str]:
    """The comparison in words: failures, differences beyond noise, and what was compared in all."""
    found, unknown = compared(here, there)
    certain = [each for each in found if each.shift.certain]
    rest = len(found) - len(certain)
    return [
        *map(str, failed), *map(told, certain),
        *([f"{rest} of {len(found)} measures differ by no more than noise; {METHOD}, one in twenty is beyond it by chance"] if found else []),
        *([f"not compared, as not every run has it: {', '.join(unknown)}"] if unknown else []),
    ]


def _value(value: float, unit: Unit) -> str:
    return words.duration(value) if unit == "s" else words.percent(value) if unit == "ratio" else words.count(value)


def _signed(value: float, unit: Unit) -> str:
    text = f"{abs(100 * value):.2f} points" if unit == "ratio" else _value(abs(value), unit)
    return f"{'−' if value < 0 else '+'}{text}"
