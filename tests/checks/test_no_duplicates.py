from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envctl.checks.no_duplicates import NoDuplicates, same

ONCE = {"in": "charges", "value": 1}


def test_each_order_charged_once_passes(history):
    for n in range(3):
        history.row("charges", f"o{n}", 1)
    found = NoDuplicates.judge("no-duplicates", ONCE, history.record())
    assert (found.outcome, found.title) == ("pass", "each of 3 in charges is there once")


def test_a_doubled_charge_is_found_with_its_life(history):
    history.order("o1", start=2)
    history.message("published", "o1", at=2.2)
    history.row("charges", "o0", 1)
    history.row("charges", "o1", 2)
    history.fault("kill", 2, 3)
    found = NoDuplicates.judge("no-duplicates", ONCE, history.record())
    assert (found.outcome, found.title) == ("fail", "1 of 2 in charges are not there once with value 1")
    assert found.evidence[0].summary.startswith("o1 accepted 2.10 s, published 2.20 s to orders.placed/0@0, in charges when read at")
    assert "value 2 in charges where 1 is right; under kill (2.00 s)" in found.evidence[0].summary


def test_an_id_that_recurs_is_found_without_values(history):
    history.message("settled", "o0")
    history.message("settled", "o0")
    found = NoDuplicates.judge("no-duplicates", {"in": "settled"}, history.record())
    assert (found.outcome, found.title) == ("fail", "1 of 1 in settled are there more than once")


def test_a_message_published_twice_is_no_doubled_effect(history):
    history.message("published", "o0")
    history.message("published", "o0")
    history.row("charges", "o0", "1.0")
    assert NoDuplicates.judge("no-duplicates", ONCE, history.record()).outcome == "pass"


def test_a_value_that_is_missing_is_not_the_right_one(history):
    history.row("charges", "o0", None)
    assert NoDuplicates.judge("no-duplicates", ONCE, history.record()).outcome == "fail"


def test_empty_unread_and_nameless_streams_are_inconclusive(histories):
    for prepare in (lambda h: h.empty("charges"), lambda h: h.order("x"), lambda h: h.row("charges", None, 1)):
        with histories() as history:
            prepare(history)
            assert NoDuplicates.judge("no-duplicates", ONCE, history.record()).outcome == "inconclusive"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=8))
def test_it_agrees_with_counting(histories, rows):
    with histories() as history:
        for n, value in rows:
            history.row("charges", f"o{n}", value)
        found = NoDuplicates.judge("no-duplicates", ONCE, history.record())
        counts = Counter(n for n, _ in rows)
        wrong = {f"o{n}" for n, value in rows if value != 1 or counts[n] > 1}
        assert {id for e in found.evidence for id in e.ids} == wrong
        assert found.total == len(wrong)


@pytest.mark.parametrize(("value", "expected", "agree"), [
    (1, 1, True), (1, 1.0, True), ("1.0", 1, True), (2.5, "2.50", True), ("-3", -3, True), (0.1, "0.1", True), ("a", "a", True),
    (True, True, True), (None, None, True),
    (1700000000000000001, 1700000000000000002, False), ("1700000000000000001", 1700000000000000002, False),
    ("007", "7", False), ("007", 7, False), ("1e3", "1000", False), ("1e3", 1000, False), ("1", "1.0", False),
    (True, "1", False), (True, 1, False), (False, 0, False), (None, 0, False), ("", 0, False), ("nan", float("nan"), False),
])
def test_values_agree_exactly_and_a_number_with_its_plain_decimal_text(value, expected, agree):
    assert same(value, expected) is same(expected, value) is agree
