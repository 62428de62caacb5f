from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.model.scenario import Condition
from envctl.spec.conditions import MEASURES, format_condition, format_value, parse_condition

LARGEST = {"ratio": 10_000, "time": 10**8, "count": 10**6, "rate": 10**6}
SCALE = {"ratio": 10_000, "time": 10_000, "count": 1, "rate": 100}


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    measure = draw(st.sampled_from([*sorted(MEASURES), "p75", "p9999"]))
    quantity = draw(st.sampled_from(sorted(LARGEST))) if measure == "value" else MEASURES.get(measure, ("time",))[0]
    threshold = draw(st.integers(0, LARGEST[quantity])) / SCALE[quantity]
    subject = draw(st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True))
    hold_s = draw(st.integers(0, 10**6)) / 1000
    return Condition("", measure, subject, draw(st.sampled_from(["<", "<=", ">", ">=", "==", "!="])), threshold, hold_s,
                     quantity=quantity)


@given(conditions())
def test_a_condition_survives_being_written_and_read(condition: Condition) -> None:
    read = parse_condition(format_condition(condition))
    assert (read.measure, read.subject, read.comparison, read.quantity) == (condition.measure, condition.subject, condition.comparison, condition.quantity)
    assert read.threshold == pytest.approx(condition.threshold, abs=1e-9)
    assert read.hold_s == pytest.approx(condition.hold_s, abs=1e-9)


@given(st.text())
def test_any_text_is_a_condition_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_condition(text).measure


@pytest.mark.parametrize(("text", "measure", "threshold", "hold_s"), [
    ("success_rate(traffic) >= 99 %", "success_rate", 0.99, 0),
    ("p95(traffic) < 400 ms", "p95", 0.4, 0),
    ("lag(payments) < 200", "lag", 200, 0),
    ("success_rate(traffic) < 50 % for 5 s", "success_rate", 0.5, 5),
    ("throughput(place_order)>=3000/m for 2m", "throughput", 50, 120),
    ("p75(traffic) < 1 s", "p75", 1, 0),
    ("depth(orders.retry) < 20", "depth", 20, 0),
    ("cpu(payments) < 90 %", "cpu", 0.9, 0),
    ("memory(payments-1) < 80 %", "memory", 0.8, 0),
    ("connections(shop-db) < 75 %", "connections", 0.75, 0),
    ("value(unpaid) < 50", "value", 50, 0),
    ("value(answer) < 200 ms", "value", 0.2, 0),
])
def test_the_documented_conditions_mean_what_they_say(text: str, measure: str, threshold: float, hold_s: float) -> None:
    read = parse_condition(text, 7)
    assert (read.measure, read.threshold, read.hold_s, read.line) == (measure, threshold, hold_s, 7)


@pytest.mark.parametrize(("text", "fragment"), [
    ("p95(traffic) < 400", "allowed: 'ms', 's', 'm'"),
    ("lag(payments) < 5 ms", "no unit"),
    ("success_rate(traffic) > 101 %", "more than 100 %"),
    ("p95(traffic) < 4 s for a while", "a duration"),
    ("p95 traffic < 4 s", "measure(subject)"),
    ("lagg(orders) < 4", "did you mean 'lag'"),
    ("p5(traffic) < 4 s", "no measure is called 'p5'"),
    ("value(unpaid) < 4 kg", "found the unit 'kg'"),
    ("cpu(payments) < 4", "allowed: '%'"),
])
def test_a_wrong_condition_says_what_is_allowed(text: str, fragment: str) -> None:
    with pytest.raises(ValueError, match=re.escape(fragment)):
        parse_condition(text)


@pytest.mark.parametrize(("text", "value", "told"), [
    ("success_rate(traffic) >= 99 %", 0.9734, "97.34 %"), ("p95(traffic) < 800 ms", 1.912, "1,912 ms"), ("lag(payments) < 200", 53.0, "53"),
    ("throughput(traffic) > 5 /s", 4.25, "4.25/s"), ("lag(payments) < 200", None, "unknown"),
    ("value(answer) < 200 ms", 0.25, "250 ms"), ("value(unpaid) < 50", 51.0, "51"), ("cpu(payments) < 90 %", 0.95, "95 %")])
def test_values_are_told_in_the_unit_of_their_measure(text, value, told):
    assert format_value(parse_condition(text), value) == told
