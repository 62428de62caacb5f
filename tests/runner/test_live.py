"""What steady-state and stop conditions see."""

from __future__ import annotations

import pytest

from envctl.model.event import Op, Sample
from envctl.runner.live import Live, percentile, share_of
from envctl.spec.conditions import parse_condition

S = 1_000_000_000


def live(at_s: float, *operations: tuple[float, float, str]) -> Live:
    """Operations as (due, end, outcome), seen at `at_s`."""
    made = Live(lambda: round(at_s * S))
    for number, (due, end, outcome) in enumerate(operations):
        made.operation(Op(at_ns=round(due * S), op=number, process="c", type="invoke", f="buy", due_ns=round(due * S)))
        made.operation(Op(at_ns=round(end * S), op=number, process="c", type=outcome, f="buy", value={}))  # type: ignore[arg-type]
    return made


def test_latency_counts_from_the_intended_start_and_the_rate_from_the_newest_window() -> None:
    seen = live(10, *[(1, 2, "fail")] * 20, *[(8, 9, "ok")] * 20)
    assert seen.value(parse_condition("success_rate(traffic) > 1 %")) == 1.0
    assert seen.value(parse_condition("p95(buy) < 1 s")) == 1.0
    assert seen.meets(parse_condition("error_rate(buy) > 1 %")) is False


def test_too_few_operations_say_nothing() -> None:
    assert live(10, *[(8, 9, "ok")] * 3).meets(parse_condition("success_rate(traffic) > 1 %")) is None


def test_a_stop_condition_sees_an_outage_with_few_clients() -> None:
    seen = live(60, *[(40, 41, "ok")] * 30, *[(40 + n, 50 + n, "info") for n in range(10)])
    condition = parse_condition("success_rate(traffic) < 50 %")
    assert seen.meets(condition, widen=True) is True


def test_what_was_due_before_the_healing_does_not_count() -> None:
    seen = live(10, *[(5, 9, "fail")] * 20, *[(8, 9, "ok")] * 20)
    assert seen.value(parse_condition("success_rate(traffic) > 1 %"), 7 * S) == 1.0


def test_operations_that_were_never_sent_do_not_count() -> None:
    seen = Live(lambda: 2 * S)
    seen.operation(Op(at_ns=S, op=1, process="c", type="invoke", f="buy"))
    seen.operation(Op(at_ns=S, op=1, process="c", type="fail", f="buy", value={"sent": False, "error": "x"}))
    assert seen.completed == 0


def test_the_lag_of_a_group_is_unknown_while_that_of_a_partition_is() -> None:
    seen = Live(lambda: S)
    condition = parse_condition("lag(readers) < 5")
    assert seen.meets(condition) is None
    for partition, lag in ((0, 3.0), (1, None)):
        attrs = {"group": "readers", "topic": "t", "partition": partition}
        seen.sample(Sample(at_ns=1, measure="kafka.consumer_group.lag", value=lag, attrs=attrs))
    assert seen.meets(condition) is None
    seen.sample(Sample(at_ns=2, measure="kafka.consumer_group.lag", value=1.0, attrs={"group": "readers", "topic": "t", "partition": 1}))
    assert seen.value(condition) == 4.0


@pytest.mark.parametrize(("name", "share"), [("p50", 0.5), ("p95", 0.95), ("p999", 0.999), ("max", 1.0)])
def test_names_of_percentiles(name: str, share: float) -> None:
    assert share_of(name) == share


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert percentile(range(1, 101), 0.95) == 95
    assert percentile([7], 0.5) == 7
