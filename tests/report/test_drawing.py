"""Buckets, axes and layout: what is drawn is bounded, inside its box, and says what the numbers say."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.model.event import Sample
from envctl.report import words
from envctl.report.buckets import MOST, Buckets
from envctl.report.charts import HEIGHT, WIDTH, chart, nice
from envctl.report.graph import BOX_H, BOX_W, graph
from envctl.report.lag import peak_lag, totals
from envctl.report.markdown import code, escape
from envctl.report.model import ComponentRow, Link, Series, Timeline, Track, Window

VALUES = st.lists(st.none() | st.floats(0, 1e9), min_size=1, max_size=MOST)


def lag(at_s, partition, value):
    return Sample(at_ns=at_s * 10**9, measure="lag", value=value, attrs={"group": "g", "topic": "t", "partition": partition})


@given(st.floats(0.001, 1e7))
def test_buckets_cover_a_run_of_any_length_with_a_bounded_number(end_s):
    buckets = Buckets.over(end_s)
    assert 1 <= buckets.count <= MOST + 1
    assert buckets.count * buckets.width_s >= end_s * (1 - 1e-9)


@given(st.lists(st.integers(0, 30 * 10**9), max_size=200))
def test_rates_lose_no_event(instants):
    buckets = Buckets.over(30)
    assert sum(value or 0 for value in buckets.rate(instants)) * buckets.width_s == pytest.approx(len(instants))


def test_a_sampled_value_is_carried_on_while_it_is_fresh_and_no_longer():
    buckets = Buckets(1.0, 8)
    samples = [Sample(at_ns=0, measure="m", value=4), Sample(at_ns=5 * 10**9, measure="m", value=None)]
    assert buckets.last(samples) == (4, 4, 4, None, None, None, None, None), "for two seconds"


def test_a_groups_lag_is_unknown_while_that_of_one_partition_is():
    samples = [lag(1, 0, 5), lag(1, 1, None), lag(2, 0, 6), lag(2, 1, 2), lag(3, 0, None), lag(3, 1, 1)]
    assert [sample.value for sample in totals(samples)["g"]] == [None, 8, None]
    assert peak_lag(samples) == {"g": 8}
    assert peak_lag([lag(1, 0, None)]) == {}


@given(st.floats(1e-6, 1e12))
def test_an_axis_ends_at_a_round_number_not_far_above_the_peak(peak):
    assert peak * 0.999 <= nice(peak) <= peak * 2.5 * 1.001


@given(VALUES, st.sampled_from(["line", "bar"]))
def test_what_is_drawn_lies_inside_its_box(values, shape):
    plot = chart(Timeline(1.0, len(values), (Track("t", "T", "", (Series("s", tuple(values), shape),)),))).plots[0]
    path = plot.lines[0].path
    for x, y in re.findall(r"[ML]([\d.]+) ([-\d.]+)", path):
        assert 0 <= float(x) <= WIDTH
        assert -0.1 <= float(y) <= HEIGHT
    known = [value for value in values if value is not None]
    if shape == "bar":
        assert path.count("M") == sum(bool(value) for value in known)
    else:
        assert path.count("M") + path.count("L") == len(known)


def test_a_fault_that_was_never_healed_is_shaded_to_the_end():
    window = Window("kill", "kill", None, 4.0, None, None, None)
    band = chart(Timeline(1.0, 10.0, (), (window,))).bands[0]
    assert (band.start, band.acting, band.after) == (40, 60, 0)
    assert "never healed" in band.times
    assert "no recovery seen" in band.times


def test_a_healed_fault_is_shaded_until_it_was_healed_and_lightly_until_recovery():
    band = chart(Timeline(1.0, 10.0, (), (Window("loss", "loss", "pass", 2.0, 5.0, 6.0, 8.0),))).bands[0]
    assert (band.start, band.acting, band.after) == pytest.approx((20, 30, 30))


def row(name, kind="service"):
    return ComponentRow(name=name, kind=kind, part="in", why="", because=())


NAMES = [f"s{n}" for n in range(12)]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(["needs", "calls", "sends"])), max_size=40))
def test_any_topology_is_laid_out_without_overlap_and_inside_the_drawing(pairs):
    drawn = graph([row(name) for name in NAMES], [Link(*pair) for pair in pairs])
    assert {box.row.name for box in drawn.boxes} == set(NAMES)
    for box in drawn.boxes:
        assert 0 <= box.x <= drawn.width - BOX_W
        assert 0 <= box.y <= drawn.height - BOX_H
        assert not [other for other in drawn.boxes if other is not box and abs(other.x - box.x) < BOX_W and abs(other.y - box.y) < BOX_H]


def test_callers_stand_above_what_they_call_and_engines_below_all():
    drawn = graph([row("db", "postgres"), row("orders"), row("gateway")], [Link("gateway", "orders", "calls"), Link("orders", "db", "needs")])
    y = {box.row.name: box.y for box in drawn.boxes}
    assert y["gateway"] < y["orders"] < y["db"]


def test_a_topology_too_large_to_read_is_left_to_the_table():
    assert graph([row(f"s{n}") for n in range(1000)], []) is None
    assert graph([], []) is None


@pytest.mark.parametrize(("ratio", "text"), [(1.0, "100"), (0.99999, "99.99"), (0.5, "50"), (0.9973, "99.73"), (0.0, "0")])
def test_a_share_is_never_rounded_up_to_a_whole(ratio, text):
    assert words.percent(ratio) == f"{text}\N{NO-BREAK SPACE}%"


@pytest.mark.parametrize(("seconds", "text"), [(0.0042, "4.2 ms"), (0.264, "264 ms"), (0.9999, "1.00 s"), (3.57, "3.57 s"), (36.1, "36.1 s"),
                                                (125, "2 min 05 s"), (7300, "2 h 01 min"), (None, "–")])
def test_durations_are_told_in_the_unit_that_fits(seconds, text):
    assert words.duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == text


@given(st.text())
def test_escaped_text_is_one_line_without_live_markup(text):
    found = escape(text)
    assert "\n" not in found
    assert not re.search(r"(?<!\\)(?:\\\\)*[<>|`]", found.replace("\\<", "").replace("\\>", "").replace("\\|", "").replace("\\`", ""))


@given(st.text(alphabet="`a\n"))
def test_no_text_ends_its_fence(text):
    lines = code(text).rstrip("\n").split("\n")
    fence = lines[0].removesuffix("text")
    assert lines[-1] == fence
    assert not [line for line in lines[1:-1] if line.strip().startswith(fence)]
