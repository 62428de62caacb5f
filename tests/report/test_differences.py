"""What is called a difference between two revisions, and what is blamed on which."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import comb
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.model.verdict import Finding, Verdict
from envctl.report.build import build
from envctl.report.differences import LEAST, RISK, _ways, compared, failures, lines, outcome, shift

FEW = st.lists(st.integers(-50, 50), min_size=4, max_size=7)


@pytest.mark.parametrize(("m", "n"), [(1, 4), (3, 3), (4, 4), (5, 3)])
def test_the_orders_are_counted_as_one_counts_them(m: int, n: int) -> None:
    counts = [0] * (m * n + 1)
    for places in combinations(range(m + n), m):
        counts[sum(place - rank for rank, place in enumerate(places))] += 1
    assert counts == [_ways(m, n, u) for u in range(m * n + 1)]
    assert sum(counts) == comb(m + n, m)


@pytest.mark.parametrize(("m", "n"), [(4, 4), (5, 5), (4, 6)])
def test_without_a_difference_at_most_one_in_twenty_is_called_one(m: int, n: int) -> None:
    values = [2.0**k for k in range(m + n)]  # all differences are different: every order of the runs is as likely
    called, level = 0, 0.0
    for places in combinations(range(m + n), m):
        found = shift([values[p] for p in places], [v for p, v in enumerate(values) if p not in places])
        assert found is not None
        called += found.certain
        level = found.level
    assert called / comb(m + n, m) <= RISK
    assert called / comb(m + n, m) == pytest.approx(1 - level)


def test_with_too_few_runs_nothing_is_said() -> None:
    assert shift([1, 2, 3], [101, 102, 103]) is None
    four = shift([101, 102, 103, 104], [1, 2, 3, 4])
    assert four is not None
    assert (four.middle, four.low, four.high, four.level) == (100, 97, 103, pytest.approx(1 - 2 / 70))
    assert LEAST == 4


@given(FEW, FEW)
def test_the_shift_is_the_same_the_other_way_round(here: list[int], there: list[int]) -> None:
    one, other = shift(here, there), shift(there, here)
    assert one is not None
    assert other is not None
    assert (one.low, one.middle, one.high) == (-other.high, -other.middle, -other.low)
    assert one.low <= one.middle <= one.high


@given(FEW, FEW, st.integers(-1000, 1000))
def test_what_is_added_to_all_runs_is_added_to_the_shift(here: list[int], there: list[int], more: int) -> None:
    one, moved = shift(here, there), shift([value + more for value in here], there)
    assert one is not None
    assert moved is not None
    assert (moved.low, moved.middle, moved.high) == (one.low + more, one.middle + more, one.high + more)


@given(FEW, FEW)
def test_sides_that_do_not_overlap_differ(here: list[int], there: list[int]) -> None:
    found = shift([value + 101 for value in here], there)
    assert found is not None
    assert found.certain
    same = shift(here, here)
    assert same is not None
    assert not same.certain


# --- blame ------------------------------------------------------------------------------------------------------------


def verdicts(*failing: str, of: int = 4, outcome: str = "pass") -> list[Verdict]:
    found = tuple(Finding(id, id, "fail", "it is so") for id in failing)
    return [Verdict("fail" if failing else outcome, found)] * of  # type: ignore[arg-type]


@pytest.mark.parametrize(("here", "there", "blamed", "strictly"), [
    (verdicts("no-loss"), verdicts(), "fail", "fail"),
    (verdicts("no-loss"), verdicts("no-loss"), "pass", "fail"),
    (verdicts("no-loss", "slo:p95"), verdicts("no-loss"), "fail", "fail"),
    (verdicts(), verdicts("no-loss"), "pass", "pass"),
    (verdicts(outcome="inconclusive"), verdicts(), "inconclusive", "inconclusive"),
    ([*verdicts(of=3), *verdicts("no-loss", of=1)], verdicts(), "fail", "fail"),
    ([*verdicts(of=3), *verdicts("no-loss", of=1)], [*verdicts(of=3), *verdicts("no-loss", of=1)], "pass", "fail"),
    (verdicts("no-loss", of=8), [*verdicts(of=5), *verdicts("no-loss", of=3)], "fail", "fail"),
    (verdicts("no-loss"), [*verdicts(of=3), *verdicts("no-loss", of=1)], "pass", "fail"),
    ([*verdicts(of=5), *verdicts("no-loss", of=3)], verdicts("no-loss", of=8), "pass", "fail"),
    (verdicts("no-loss"), [], "fail", "fail"),
    ([], verdicts(), "inconclusive", "inconclusive"),
])
def test_only_what_is_new_is_blamed_on_the_change(here: list[Verdict], there: list[Verdict], blamed: str, strictly: str) -> None:
    assert outcome(here, there, preexisting="warn") == blamed
    assert outcome(here, there, preexisting="fail") == strictly


def test_failures_are_told_with_their_counts_the_new_ones_first() -> None:
    found = failures([*verdicts("a", "b"), *verdicts("c", of=1)], verdicts("a", "d"))
    assert [str(each) for each in found] == [
        "b: failed in 4 of 5 runs here, in 0 of 4 there: new",
        "c: failed in 1 of 5 runs here, in 0 of 4 there: new",
        "a: failed in 4 of 5 runs here, in 4 of 4 there: was there before",
        "d: failed in 0 of 5 runs here, in 4 of 4 there: no longer here",
    ]


def test_what_fails_more_often_than_chance_explains_is_told_before_what_was_there() -> None:
    found = failures([*verdicts("a", "b", of=6), *verdicts("a", of=2)], [*verdicts("a", of=7), *verdicts("a", "b", of=1)])
    assert [str(each) for each in found] == [
        "b: failed in 6 of 8 runs here, in 1 of 8 there: fails more often than there",
        "a: failed in 8 of 8 runs here, in 8 of 8 there: was there before",
    ]


def test_a_waived_failure_is_none() -> None:
    [verdict, *_] = verdicts("no-loss")
    waived = replace(verdict, findings=tuple(replace(each, waived="ann") for each in verdict.findings))
    assert failures([waived], []) == []


# --- measures ---------------------------------------------------------------------------------------------------------


def test_only_what_differs_by_more_than_noise_is_told(whole: Path) -> None:
    one = build(whole)
    noise = (0.0, 0.002, -0.001, 0.003)
    there = [replace(one, figures=replace(one.figures, p50_s=0.05 + n, p95_s=0.06 + n)) for n in noise]
    here = [replace(one, figures=replace(one.figures, p50_s=0.05 + n, p95_s=0.09 - n)) for n in noise]
    found, unknown = compared(here, there)
    assert [each.name for each in found if each.shift.certain] == ["p95"]
    assert [each.name for each in found if not each.shift.certain] == ["answered well", "p50", "p99", "highest lag of payments",
                                                                     "time to detect packet-loss", "time to recover from packet-loss"]
    assert unknown == []
    told = "\n".join(lines(here, there, [])).replace("\N{NO-BREAK SPACE}", " ")
    assert told.startswith("p95: 89 ms here, 61 ms there: +28 ms (97 %: +24 ms to +32 ms)\n6 of 7 measures differ by no more than noise; exact Mann–Whitney")


def test_what_a_run_does_not_have_is_not_compared(whole: Path) -> None:
    one = build(whole)
    unbounded = replace(one, figures=replace(one.figures, p99_s=None))
    found, unknown = compared([one, one, one, unbounded], [one] * 4)
    assert "p99" not in [each.name for each in found]
    assert unknown == ["p99"]
    assert lines([one, one, one, unbounded], [one] * 4, [])[-1] == "not compared, as not every run has it: p99"
