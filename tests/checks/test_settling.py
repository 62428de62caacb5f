from __future__ import annotations

from dataclasses import replace

from envctl import plugins
from envctl.checks.settling import settled
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
