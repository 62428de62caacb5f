from __future__ import annotations

from dataclasses import replace

import pytest

from envctl import plugins
from envctl.checks.settling import finding_of, patience_s, settled
from envctl.model.scenario import CheckSpec
from envctl.record import Record

NO_LOSS = CheckSpec("no-loss", "no-loss", {"from": "accepted", "to": "published"})
TRACES = CheckSpec("traces", "traces-complete", {"edges": ["a -> b"]})


def asking(record, *checks):
    return Record(record.directory, replace(record.scenario, checks=checks))


def test_a_message_that_is_still_on_its_way_asks_for_another_round(history):
    history.order("o1")
    history.empty("published")
    assert not settled(asking(history.record(), NO_LOSS))


def test_an_answer_that_is_not_clear_yet_asks_for_another_round(history):
    history.message("published", "o1", at=30)
    history.empty("settled")
    record = history.record(read_at=40)
    late = CheckSpec("late", "no-loss", {"from": "published", "to": "settled", "within": "20s"})
    assert not settled(asking(record, late))


def test_what_passes_and_what_only_telemetry_can_tell_needs_no_other_round(history):
    history.order("o1")
    history.message("published", "o1")
    assert settled(asking(history.record(), NO_LOSS, TRACES))


def test_a_check_that_raises_is_not_settled_and_ends_nothing(history, monkeypatch):
    class Broken:
        @classmethod
        def references(cls, _):
            return (("stream", "published"),)

        @classmethod
        def judge(cls, *_):
            raise ZeroDivisionError("boom")

    class Worse(Broken):
        @classmethod
        def references(cls, _):
            raise KeyError("in")

    history.empty("published")
    record = asking(history.record(), NO_LOSS)
    for check in (Broken, Worse):
        monkeypatch.setattr(plugins, "load", lambda *_, check=check: check)
        assert not settled(record)


def test_what_only_telemetry_can_tell_asks_to_wait_for_late_spans(history):
    history.order("o1")
    history.empty("published")
    record = asking(history.record(), TRACES)
    assert settled(record)
    assert not settled(record, telemetry=True)
    assert settled(asking(record, NO_LOSS), telemetry=True)


@pytest.mark.parametrize("answer", ["soon", None, float("inf"), float("nan"), KeyError("within")])
def test_a_check_that_can_not_say_how_long_to_wait_is_inconclusive_and_holds_up_nothing(history, monkeypatch, answer):
    class Vague:
        @classmethod
        def waits_s(cls, _):
            if isinstance(answer, Exception):
                raise answer
            return answer

        @classmethod
        def judge(cls, *_):
            raise AssertionError("never asked")

    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda group, name: Vague if name == "vague" else load(group, name))
    vague, patient = CheckSpec("v", "vague", {}), CheckSpec("late", "no-loss", {"from": "accepted", "to": "published", "within": "7s"})
    assert patience_s([vague]) == 0
    assert patience_s([vague, patient]) == 7
    found = finding_of(vague, asking(history.record(), vague))
    assert found.outcome == "inconclusive"
    assert "the check gave up" in found.title
    assert "waits_s" in found.evidence[0].summary
