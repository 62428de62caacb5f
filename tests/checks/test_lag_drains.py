from __future__ import annotations

import pytest

from envctl.checks.lag_drains import LagDrains

PARAMS = {"group": "payments", "within": "20s"}


def test_a_group_that_catches_up_in_time_passes(history):
    history.order("o0", start=10, end=10)
    for at, value in ((5, 40), (12, 30), (15, 0), (35, 0)):
        history.lag(at, value)
    found = LagDrains.judge("lag-drains", PARAMS, history.record())
    assert (found.outcome, found.title) == (
        "pass", "group payments had caught up 5.00 s after the traffic and the last fault (peak 40)")


def test_the_clock_starts_when_the_last_fault_is_gone(history):
    history.order("o0", start=1, end=1)
    history.fault("kill", 2, 20)
    history.lag(1, 5)
    history.lag(30, 0)
    assert LagDrains.judge("lag-drains", PARAMS, history.record()).stats["drain_s"] == 10


def test_a_lag_that_stays_fails_and_names_the_stuck_partition(history):
    history.order("o0", start=10, end=10)
    for at in range(5, 40, 5):
        history.lag(at, 0, partition=0)
        history.lag(at, 12 if at > 5 else 3, partition=1)
    found = LagDrains.judge("lag-drains", PARAMS, history.record())
    assert (found.outcome, found.title) == (
        "fail", "group payments was still 12 messages behind 20s after the traffic and the last fault")
    assert found.evidence[0].summary == "orders.placed/1: end 100, committed 88, no progress since 10.00 s"
    assert len(found.evidence) == 1


def test_a_lag_that_drains_too_late_fails(history):
    history.order("o0", start=10, end=10)
    for at, value in ((12, 30), (35, 0)):
        history.lag(at, value)
    found = LagDrains.judge("lag-drains", PARAMS, history.record())
    assert (found.outcome, found.title) == ("fail", "group payments needed 25.00 s to catch up, 20s are allowed")


@pytest.mark.parametrize(("later", "outcome", "words"), [
    ([(13, 7), (16, 0), (36, 0)], "pass", "had caught up 6.00 s after"),
    ([(13, 7), (36, 7)], "fail", "was still 7 messages behind"),
    ([(13, 7), (35, 0), (36, 0)], "fail", "needed 25.00 s to catch up"),
    ([(13, 7)], "inconclusive", "the samples of group payments end at 13.00 s"),
])
def test_one_good_instant_is_forgotten_when_the_lag_rises_again(history, later, outcome, words):
    history.order("o0", start=10, end=10)
    for at, value in ((12, 0), *later):
        history.lag(at, value)
    found = LagDrains.judge("lag-drains", PARAMS, history.record())
    assert found.outcome == outcome
    assert words in found.title


def test_partitions_of_one_reading_are_added_up_together(history):
    history.order("o0", start=10, end=10)
    for at, values in ((12, (200, 0)), (13, (0, 200)), (36, (0, 0))):
        for partition, value in enumerate(values[::-1]):
            history.lag(at, value, partition=1 - partition)
    found = LagDrains.judge("lag-drains", PARAMS | {"below": 200}, history.record())
    assert (found.outcome, found.stats["drain_s"]) == ("pass", 2)


def test_an_old_sample_is_no_evidence_that_a_partition_has_drained(history):
    history.order("o0", start=10, end=10)
    history.lag(9, 0, partition=0)
    history.lag(9, 0, partition=1)
    history.lag(12, 0, partition=1)
    assert LagDrains.judge("lag-drains", PARAMS, history.record()).outcome == "inconclusive"


def test_samples_that_end_early_are_inconclusive(history):
    history.order("o0", start=10, end=10)
    history.lag(12, 5)
    found = LagDrains.judge("lag-drains", PARAMS, history.record())
    assert (found.outcome, found.title) == ("inconclusive", "the samples of group payments end at 12.00 s, before 20s had passed")


def test_a_group_that_never_committed_has_an_unknown_lag(history):
    history.order("o0", start=1, end=1)
    history.lag(30, None, end=7)
    found = LagDrains.judge("lag-drains", PARAMS, history.record())
    assert found.outcome == "inconclusive"
    assert "never committed" in found.title


def test_a_partition_that_never_had_a_message_has_no_lag(history):
    history.order("o0", start=1, end=1)
    history.lag(5, None, partition=0, end=0)
    history.lag(5, 0, partition=1)
    assert LagDrains.judge("lag-drains", PARAMS, history.record()).outcome == "pass"


def test_no_samples_are_inconclusive(history):
    assert LagDrains.judge("lag-drains", PARAMS, history.record()).outcome == "inconclusive"


def test_a_rest_below_the_limit_counts_as_drained(history):
    history.order("o0", start=1, end=1)
    history.lag(5, 3)
    assert LagDrains.judge("lag-drains", PARAMS | {"below": 3}, history.record()).outcome == "pass"
