"""What steady-state and stop conditions see."""

from __future__ import annotations

from pathlib import Path

import pytest

from envctl.model.event import Op, Sample
from envctl.model.scenario import Scenario, Slo, Traffic
from envctl.runner.live import Expected, Live, open_for_s, percentile, share_of
from envctl.spec.conditions import parse_condition

S = 1_000_000_000
SUCCESS = parse_condition("success_rate(traffic) > 1 %")


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
    assert unsent("browse of key 'c' has not succeeded").value(SUCCESS) == 1.0


def test_operations_whose_turn_never_came_count_as_not_answered() -> None:
    assert unsent("the replay ended before its turn came").value(SUCCESS) == 0.5


def unsent(reason: str) -> Live:
    """Ten operations that went well, and ten that were never sent."""
    seen = live(2, *[(1, 1.5, "ok")] * 10)
    for number in range(100, 110):
        seen.operation(Op(at_ns=S, op=number, process="c", type="invoke", f="buy"))
        seen.operation(Op(at_ns=S, op=number, process="c", type="fail", f="buy", value={"sent": False, "error": reason}))
    return seen


def half_hung() -> Live:
    """20/s that are answered at once; 20/s that never are."""
    seen = live(10, *[(5 + n / 20, 5 + n / 20, "ok") for n in range(100)])
    for n in range(100):
        due = round((5 + n / 20) * S)
        seen.operation(Op(at_ns=due, op=1000 + n, process="d", type="invoke", f="order", due_ns=due))
    return seen


def test_what_has_been_open_for_too_long_is_no_success() -> None:
    seen = half_hung()
    assert seen.value(SUCCESS) == pytest.approx(100 / 160)  # those of the last two seconds may still be answered
    assert seen.value(parse_condition("success_rate(order) > 1 %")) == 0.0
    assert seen.value(parse_condition("success_rate(buy) > 1 %")) == 1.0
    assert seen.value(SUCCESS, 9 * S) == 1.0
    assert seen.value(parse_condition("throughput(traffic) > 1/s")) == 20.0
    seen.over()
    assert seen.value(SUCCESS) == 1.0


def test_the_latency_of_what_is_open_is_its_age_once_that_is_over_the_limit() -> None:
    seen = half_hung()
    assert seen.value(parse_condition("max(traffic) < 400 ms")) == 5.0
    assert seen.meets(parse_condition("p95(traffic) < 400 ms")) is False
    assert seen.meets(parse_condition("p50(buy) < 400 ms")) is True


def test_what_waits_for_its_turn_is_open_from_when_it_is_due() -> None:
    seen = live(10, *[(8, 9, "ok")] * 10)
    seen.expect(iter([Expected(100 + n, "buy", (n + 1) * S) for n in range(30)]))
    assert seen.value(SUCCESS) == pytest.approx(10 / 17)  # due at 1 … 7 s
    for number in range(100, 130):
        seen.operation(Op(at_ns=10 * S, op=number, process="c", type="invoke", f="buy", due_ns=9 * S))
        seen.operation(Op(at_ns=10 * S, op=number, process="c", type="ok", f="buy"))
    assert seen.value(SUCCESS) == 1.0


def test_patience_is_two_seconds_or_what_the_scenario_allows_before_the_time_out() -> None:
    for text, slo, patience in (("p95(traffic) < 400 ms", 0.8, 2), ("p95(traffic) < 3 s", 0.8, 3), ("lag(g) < 200", 4, 4), ("max(traffic) < 9 s", 1, 5)):
        scenario = Scenario("s", Path("s.yaml"), Traffic(Path("t"), "g", None, None), steady=(parse_condition(text),), slo=Slo(None, {"p95": slo}))
        assert open_for_s(scenario) == patience


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
