import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.telemetry.measures import LagPoint, busy_ratio, drain_s, lag_state, peaks, processings, retry_depth, slope_per_s
from envctl.telemetry.store import Span


def points(*pairs):
    return [LagPoint(float(at), committed, lag) for at, (committed, lag) in enumerate(pairs)]


@pytest.mark.parametrize(("given_points", "now", "state"), [
    (points((1, 5), (3, 0), (4, 9)), 2, "OK"),
    (points((5, 1), (3, 3), (6, 2)), 2, "REWIND"),
    (points((5, 0), (3, 3)), 2, "OK"),
    (points((1, 5), (2, 5), (3, 6)), 5, "STOP"),
    (points((1, 5), (1, 6), (1, 7)), 3, "STALL"),
    (points((1, 5), (2, 6), (3, 6)), 3, "WARN"),
    (points((1, 5), (2, 4), (3, 6)), 3, "OK"),
    (points((None, None), (1, None)), 2, "UNKNOWN"),
    (points((1, 4), (None, None), (2, 5)), 2, "WARN"),
    ([], 2, "UNKNOWN"),
])
def test_the_first_rule_that_fits_names_the_state(given_points, now, state):
    assert lag_state(given_points, now) == state


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8), st.floats(0, 50))
def test_a_lag_of_zero_is_always_ok_and_states_are_total(pairs, later):
    found = lag_state(points(*pairs), len(pairs) - 1 + later)
    if any(lag == 0 for _, lag in pairs):
        assert found == "OK"
    assert found in ("OK", "REWIND", "STOP", "STALL", "WARN")


def test_lag_has_drained_when_it_is_back_and_stays():
    totals = [(0.0, 5), (1.0, 90), (2.0, 4), (3.0, None), (4.0, 20), (5.0, 5), (6.0, 3)]
    assert drain_s(totals, 1.5, 5) == 3.5
    assert drain_s(totals, 1.5, 2) is None
    assert drain_s([], 0.0, 5) is None


@given(st.floats(-50, 50), st.floats(-50, 50), st.lists(st.integers(0, 100), min_size=2, max_size=9, unique=True))
def test_the_slope_of_a_line_is_its_slope(slope, start, times):
    assert slope_per_s([(at, start + slope * at) for at in times] + [(3.0, None)]) == pytest.approx(slope, abs=1e-6)


def test_one_instant_has_no_slope():
    assert slope_per_s([(1.0, 2.0), (1.0, 3.0)]) is None


def span(kind="consumer", trace="t", start=0, end=10, **attrs):
    named = {name.replace("_", "."): value for name, value in attrs.items()}
    return Span(trace, "s", "", "n", kind, "payments", "payments-0", start, end, False, "", named)


MESSAGE = {"messaging.operation.type": "process", "messaging.destination.name": "orders", "messaging.consumer.group.name": "payments",
           "messaging.destination.partition.id": "2"}


def processed(offset, **changes):
    return span(**MESSAGE | {"messaging.kafka.offset": offset} | changes)


def test_retry_depth_is_the_deepest_of_resends_repeats_and_hops():
    assert retry_depth([]) == 0
    assert retry_depth([processed(1), processed(2)]) == 0
    assert retry_depth([processed(1), processed(1), processed(1)]) == 2
    assert retry_depth([processed(1), span("client", **{"http.request.resend": 9})]) == 0
    assert retry_depth([Span("t", "s", "", "n", "client", "a", "a-0", 0, 1, False, "", {"http.request.resend_count": 4})]) == 4
    hop = {"messaging.destination.name": "orders-retry"}
    assert retry_depth([span("producer", **hop), span("producer", **hop), span("producer", "u", **hop)], ["orders-retry"]) == 2
    assert retry_depth([span("producer", **hop)] * 3) == 0


def test_processings_are_counted_by_place_with_older_names_too():
    older = {"messaging.operation": "process", "messaging.destination.name": "orders", "messaging.kafka.consumer.group": "payments",
             "messaging.kafka.destination.partition": 2, "messaging.kafka.message.offset": 7}
    found = processings([processed(7), Span("t", "s", "", "n", "consumer", "p", "p-0", 0, 1, False, "", older), span("client")])
    assert found == {("payments", "orders", "2", 7): 2}


def test_the_busy_ratio_counts_only_what_lies_in_the_window():
    spans = [processed(1), processed(2), span(start=0, end=50)]
    assert busy_ratio(spans, "payments", (5, 15), 2) == pytest.approx(0.5)
    assert busy_ratio(spans, "payments", (5, 5), 2) is None
    assert busy_ratio(spans, "payments", (5, 15), 0) is None


def test_peaks_leave_out_what_is_unknown():
    assert peaks([("a", 1.0), ("a", None), ("a", 3.0), ("b", None)]) == {"a": 3.0}
