from __future__ import annotations

import pytest

from envctl.checks.idempotent_consumer import IdempotentConsumer
from envctl.checks.settling import acts, settled
from envctl.model.event import Observation, Step
from envctl.model.scenario import CheckSpec

S = 1_000_000_000
PARAMS = {"group": "payments", "topic": "orders.placed", "effects": ["charges", "settled"]}


def redelivered(history, before, after, *, error="", messages=7, after_error=""):
    """What the runner leaves: both readings, and the step."""
    detail = {"check": "its-id", "group": "payments", "topic": "orders.placed"}
    history.write(Step(at_ns=50 * S, name="redeliver", edge="begin", detail=detail))
    for when, rows in (("before", before), ("after", after)):
        for effect in ("charges", "settled"):
            name = f"{effect}@its-id.{when}"
            history.write(Step(at_ns=51 * S, name="observe", edge="begin", detail={"stream": name}))
            for id, value in rows if effect == "charges" else [("m1", None)]:
                history.write(Observation(at_ns=51 * S, stream=name, id=id, value=value))
            failed = {"error": after_error} if when == "after" and after_error else {}
            history.write(Step(at_ns=51 * S, name="observe", edge="end", ok=not failed, detail={"stream": name} | failed))
    said = {"error": error} if error else {"messages": messages}
    history.write(Step(at_ns=60 * S, name="redeliver", edge="end", ok=not error, detail=detail | said))


def judge(history):
    return IdempotentConsumer.judge("its-id", PARAMS, history.record())


def test_a_redelivery_without_effect_passes(history):
    redelivered(history, [("o1", 5), ("o2", 6)], [("o2", 6), ("o1", 5)])
    found = judge(history)
    assert (found.outcome, found.title) == ("pass", "7 messages of orders.placed were delivered to payments again, without effect on charges and settled")


@pytest.mark.parametrize(("after", "words"), [
    ([("o1", 5), ("o1", 5), ("o2", 6)], "o1 accepted 2.10 s, in charges before: 1 × 5, after: 2 × 5"),
    ([("o1", 10), ("o2", 6)], "o1 accepted 2.10 s, in charges before: 1 × 5, after: 1 × 10"),
    ([("o2", 6)], "o1 accepted 2.10 s, in charges before: 1 × 5, after: not there"),
])
def test_an_effect_that_happened_again_is_named_with_its_life_and_trace(history, after, words):
    history.order("o1", start=2)
    redelivered(history, [("o1", 5), ("o2", 6)], after)
    found = judge(history)
    assert (found.outcome, found.total) == ("fail", 1)
    assert found.title == "7 messages of orders.placed were delivered to payments again, which changed 1 in charges"
    assert found.evidence[0].summary.startswith(words)
    assert (found.evidence[0].ids, found.evidence[0].traces) == (("o1",), (f"{1:032x}",))


def test_the_readings_are_apart_from_the_streams_that_others_judge(history):
    history.row("charges", "o1", 5)
    redelivered(history, [("o1", 5)], [("o1", 5), ("o1", 5)])
    record = history.record()
    assert [o.id for o in record.stream("charges")] == ["o1"]


@pytest.mark.parametrize(("case", "words"), [
    ({"error": "no coordinator"}, "nothing was delivered again: no coordinator"),
    ({"messages": 0}, "there was nothing to deliver again"),
    ({"after_error": "timed out"}, "charges@its-id.after could not be read: timed out; settled@its-id.after could not be read: timed out"),
])
def test_what_was_not_done_or_not_read_says_nothing(history, case, words):
    redelivered(history, [("o1", 5)], [("o1", 6)], **case)
    found = judge(history)
    assert (found.outcome, found.title) == ("inconclusive", words)


def test_a_redelivery_that_was_cut_short_says_nothing(history):
    history.write(Step(at_ns=50 * S, name="redeliver", edge="begin", detail={"check": "its-id"}))
    assert judge(history).title == "the redelivery was cut short"


def test_no_round_is_spent_on_what_only_comes_after_all_of_them(history):
    record = history.record()
    spec = CheckSpec("its-id", "idempotent-consumer", PARAMS)
    object.__setattr__(record.scenario, "checks", (spec,))
    assert acts(spec)
    assert not acts(CheckSpec("no-loss", "no-loss", {}))
    assert settled(record)
