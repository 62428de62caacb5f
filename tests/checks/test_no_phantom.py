from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envctl.checks.no_phantom import NoPhantom
from envctl.model.scenario import Stream
from envctl.record import Record

PARAMS = {"in": "published", "of": "accepted"}
FLOW = {"in": "settled", "of": "published", "within": "20s"}


def told_by_request(record):
    """The same record, where the id of an operation stands in its request (its customer)."""
    accepted = Stream("accepted", operation="place_order", fields={"id": "request.customer"})
    return Record.load(record.directory, replace(record.scenario, streams={**record.scenario.streams, "accepted": accepted}))


def test_what_was_accepted_is_no_phantom(history):
    for n in range(5):
        history.order(f"o{n}", start=n)
        history.message("published", f"o{n}", at=n + 0.2)
    found = NoPhantom.judge("its-id", PARAMS, history.record())
    assert (found.outcome, found.title) == ("pass", "all 5 published were caused by accepted")


def test_a_message_that_nobody_asked_for_is_named_with_its_life_and_fault(history):
    history.order("o1")
    history.message("published", "o1", partition=2)
    history.message("published", "ghost", at=3.2, partition=2)
    history.fault("kill", 3.0, 4.0)
    found = NoPhantom.judge("its-id", PARAMS, history.record())
    assert (found.outcome, found.title, found.total) == ("fail", "1 in published were not caused by accepted", 1)
    assert found.evidence[0].summary == "ghost published 3.20 s to orders.placed/2@1, never in accepted; under kill (3.00 s)"
    assert (found.evidence[0].ids, found.evidence[0].faults) == (("ghost",), ("kill",))


def test_each_unknown_outcome_whose_answer_would_have_told_its_id_excuses_one(history):
    history.order("o1")
    for _ in range(2):
        history.order(None, type="info")
    for name in ("o1", "x", "y"):
        history.message("published", name)
    found = NoPhantom.judge("its-id", PARAMS, history.record())
    assert (found.outcome, found.stats["excused"]) == ("pass", 2)
    assert found.title.endswith("2 of them may be of operations of unknown outcome")


def test_more_than_unknown_outcomes_can_explain_are_phantoms(history):
    history.order(None, type="info")
    for name in ("x", "y"):
        history.message("published", name)
    found = NoPhantom.judge("its-id", PARAMS, history.record())
    assert (found.outcome, found.total) == ("fail", 2)
    assert "1 operations of unknown outcome" in found.title


def test_an_unknown_outcome_excuses_its_own_id_alone_where_its_request_tells_it(history):
    history.order(None, key="maybe", type="info")
    history.message("published", "maybe")
    history.message("published", "other")
    found = NoPhantom.judge("its-id", PARAMS, told_by_request(history.record()))
    assert (found.outcome, [e.ids for e in found.evidence]) == ("fail", [("other",)])


def test_a_failed_operation_that_took_effect_is_a_phantom_in_spite_of_unknown_outcomes(history):
    history.order(None, key="refused", type="fail", answer={"status": 409, "body": {}}, start=2)
    history.order(None, key="maybe", type="info")
    history.message("published", "refused", at=2.5)
    history.message("published", "maybe")
    found = NoPhantom.judge("its-id", PARAMS, told_by_request(history.record()))
    assert (found.outcome, found.total, found.stats["of_failed"]) == ("fail", 1, 1)
    assert found.evidence[0].summary == "refused published 2.50 s to orders.placed/0@0, though operation 1 failed at 2.10 s (status 409)"


def test_a_failed_operation_whose_answer_tells_its_id_is_not_excused_either(history):
    history.order(None, type="fail", answer={"status": 409, "body": {"order_id": "o1"}})
    history.order(None, type="info")
    history.message("published", "o1")
    assert NoPhantom.judge("its-id", PARAMS, history.record()).outcome == "fail"


def test_one_that_failed_and_was_asked_for_again_with_success_is_none(history):
    history.order(None, key="c", type="fail")
    history.order(None, key="c", start=2)
    history.message("published", "c", at=3)
    assert NoPhantom.judge("its-id", PARAMS, told_by_request(history.record())).outcome == "pass"


def test_causes_that_were_read_too_soon_say_nothing(history):
    history.order("o1", start=30)
    history.empty("published")
    history.message("settled", "o1", at=31)
    found = NoPhantom.judge("its-id", FLOW, history.record())
    assert found.outcome == "inconclusive"
    assert "too soon" in found.title


def test_an_effect_that_came_after_its_causes_were_read_says_nothing(history):
    history.order("o1")
    history.empty("published")
    history.message("settled", "o9", at=41)
    assert NoPhantom.judge("its-id", FLOW, history.record()).outcome == "inconclusive"


def test_effects_without_an_id_are_inconclusive(history):
    history.order("o1")
    history.message("published", "o1")
    history.message("published", None)
    assert NoPhantom.judge("its-id", PARAMS, history.record()).outcome == "inconclusive"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 6), max_size=6), st.lists(st.integers(0, 8), min_size=1, max_size=8), st.integers(0, 3))
def test_it_agrees_with_counting(histories, sent, present, unknown):
    with histories() as history:
        for n in sent:
            history.order(f"o{n}")
        for _ in range(unknown):
            history.order(None, type="info")
        for n in present:
            history.message("published", f"o{n}")
        found = NoPhantom.judge("its-id", PARAMS, history.record())
        assert (found.outcome == "fail") == (len(set(present) - set(sent)) > unknown)
