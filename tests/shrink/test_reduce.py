"""Reducing schedules, with a predicate in the place of runs: what is found still fails, and nothing in it can be left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from envctl.model.scenario import FaultSpec
from envctl.shrink.reduce import ddmin, lower, reduced
from envctl.shrink.schedule import Schedule, end_s, keeping
from envctl.spec.timeline_rules import earliest_starts

KINDS = ("browse", "order", "read", "write")


def a_fault(id: str, at_s: float | None = None, after: tuple[str, ...] = (), for_s: float | None = 6.0, **params: object) -> FaultSpec:
    return FaultSpec(id, "packet-loss", at_s if not after else None, after, for_s, params)


@st.composite
def schedules(draw: Callable) -> Schedule:
    count = draw(st.integers(0, 6))
    faults: list[FaultSpec] = []
    for number in range(count):
        before = draw(st.sampled_from([None, *(fault.id for fault in faults)]))
        start = {"after": (before,)} if before else {"at_s": draw(st.floats(2, 20).map(round).map(float))}
        faults.append(a_fault(f"f{number}", for_s=draw(st.sampled_from([None, 1.0, 4.0, 9.0])), loss=f"{draw(st.integers(1, 100))} %", **start))
    length_s = max((fault.at_s or 0.0 for fault in faults), default=0) + 10 * count + draw(st.integers(1, 60))
    return Schedule(tuple(faults), float(length_s), draw(st.sampled_from([None, 10.0, 50.0])), KINDS, draw(st.sampled_from(["", "small"])))


def needed(draw: Callable, whole: Schedule) -> tuple[set[str], set[str]]:
    faults = draw(st.sets(st.sampled_from([f.id for f in whole.faults]))) if whole.faults else set()
    return faults, draw(st.sets(st.sampled_from(KINDS), min_size=1))


def last(whole: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    return [whole, *reduced(whole, fails)][-1]


@given(st.data())
def test_exactly_the_faults_and_operations_that_it_takes_are_left(data: st.DataObject) -> None:
    whole = data.draw(schedules())
    faults, kinds = needed(data.draw, whole)
    found = last(whole, lambda s: faults <= {f.id for f in s.faults} and kinds <= set(s.operations))
    assert {f.id for f in found.faults} == faults
    assert set(found.operations) == kinds
    assert found.seed == ""


@given(st.data())
def test_every_schedule_on_the_way_fails_and_none_is_asked_about_twice(data: st.DataObject) -> None:
    whole, asked = data.draw(schedules()), []

    def fails(schedule: Schedule) -> bool:
        asked.append(schedule.key)
        return hash((schedule.key, salt)) % 3 > 0  # as unpredictable as a flaky one

    salt = data.draw(st.integers())
    for smaller in reduced(whole, fails):
        assert hash((smaller.key, salt)) % 3 > 0
    assert len(asked) == len(set(asked))


@given(st.data())
def test_times_rates_and_shares_come_near_what_it_takes(data: st.DataObject) -> None:
    loss, rate, for_s = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 50)), data.draw(st.integers(1, 40))
    whole = Schedule((a_fault("f", at_s=5.0, for_s=10.0, loss="80 %"),), 60.0, 50.0, KINDS)

    def fails(s: Schedule) -> bool:
        return len(s.faults) == 1 and float(str(s.faults[0].params["loss"]).split()[0]) >= loss and s.rate_per_s >= rate and s.for_s >= for_s

    found = last(whole, fails)
    assert fails(found)
    assert float(found.faults[0].params["loss"].split()[0]) <= max(loss * 1.3, loss + 3)
    assert found.rate_per_s <= max(rate * 1.3, rate + 3)
    assert found.for_s <= max(for_s, end_s(found) + 2) + 8
    assert (found.faults[0].at_s, found.faults[0].for_s) == (2.0, 1.0)


@given(schedules())
def test_the_traffic_outlasts_the_faults_and_nothing_grows(whole: Schedule) -> None:
    for smaller in reduced(whole, lambda _: True):
        assert smaller.for_s <= whole.for_s
        assert len(smaller.faults) <= len(whole.faults)
    assert last(whole, lambda _: True).faults == ()
    found = last(whole, lambda s: len(s.faults) == len(whole.faults))
    assert found.for_s > end_s(found)


def test_where_nothing_smaller_fails_nothing_is_found() -> None:
    whole = Schedule((a_fault("f", at_s=5.0),), 30.0, 50.0, KINDS, "small")
    assert list(reduced(whole, lambda _: False)) == []


class SpentError(Exception):
    pass


@given(schedules(), st.integers(1, 6))
def test_what_was_found_before_the_search_was_ended_stands(whole: Schedule, budget: int) -> None:
    asked: list[Schedule] = []

    def fails(schedule: Schedule) -> bool:
        if len(asked) == budget:
            raise SpentError
        asked.append(schedule)
        return True

    found: list[Schedule] = []
    with suppress(SpentError):
        for smaller in reduced(replace(whole, seed="x", for_s=whole.for_s + 100, rate_per_s=50.0, operations=KINDS), fails):
            found.append(smaller)  # noqa: PERF402 - as they come
    assert found == asked


@given(st.data())
def test_a_fault_whose_predecessor_is_gone_starts_when_that_one_would_have(data: st.DataObject) -> None:
    whole = data.draw(schedules())
    kept = data.draw(st.lists(st.sampled_from(whole.faults), unique_by=lambda f: f.id)) if whole.faults else []
    found = keeping(whole.faults, kept)
    assert [f.id for f in found] == [f.id for f in whole.faults if f in kept]
    assert earliest_starts(found).keys() == {f.id for f in kept}
    before, after = earliest_starts(whole.faults), earliest_starts(found)
    assert all(after[id] <= before[id] for id in after)


@given(st.lists(st.integers(), unique=True, max_size=12).flatmap(lambda items: st.tuples(st.just(items), st.sets(st.sampled_from(items)) if items else st.just(set()))))
def test_ddmin_finds_what_it_takes(given: tuple[Sequence[int], set[int]]) -> None:
    items, wanted = given
    assert set([items, *ddmin(items, lambda part: wanted <= set(part))][-1]) == wanted


@given(st.sets(st.frozensets(st.integers(0, 7), min_size=1), min_size=1))
def test_nothing_can_be_left_out_of_what_ddmin_finds(causes: set[frozenset[int]]) -> None:
    def fails(part: Sequence[int]) -> bool:
        return any(cause <= set(part) for cause in causes)

    found = [list(range(8)), *ddmin(list(range(8)), fails)][-1]
    assert fails(found)
    assert not any(fails([item for item in found if item != gone]) for gone in found)


@given(st.floats(1, 1000), st.floats(0.5, 1000))
def test_a_lowered_number_still_fails(value: float, limit: float) -> None:
    found = list(lower(value, 1.0, lambda v: v >= limit))
    assert all(limit <= each < value for each in found)
    assert found == sorted(found, reverse=True)
