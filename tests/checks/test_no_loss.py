from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envctl.checks.no_loss import NoLoss, ranges
from envctl.model.event import Step

PUBLISHED = {"from": "accepted", "to": "published"}
WITHIN = {"from": "published", "to": "settled", "within": "20s"}

TOPOLOGY = """\
envctl: topology/v1
name: shop
components:
  bus: {kind: kafka, version: "4.1", topics: {orders.placed: {partitions: 6}, payments.settled: {partitions: 6}}}
  payments:
    kind: service
    source: services/payments
    command: [payments]
    consumes: {orders.placed: {group: payments}}
    publishes: [payments.settled]
"""


def test_everything_that_was_accepted_is_there(history):
    for n in range(5):
        history.order(f"o{n}", start=n)
        history.message("published", f"o{n}", at=n + 0.2)
    found = NoLoss.judge("no-loss", PUBLISHED, history.record())
    assert (found.outcome, found.title) == ("pass", "all 5 accepted are in published")


def test_a_lost_order_is_named_with_its_life_the_fault_and_its_trace(history):
    for n in range(3):
        history.order(f"o{n}", start=n)
        history.message("published", f"o{n}", at=n + 0.2, partition=2)
    history.message("settled", "o0", at=1.0)
    history.message("settled", "o2", at=3.0)
    history.fault("kill", 1.3, 1.4)
    history.lag(1.26, 0, partition=2, end=2)
    found = NoLoss.judge("no-loss", WITHIN, history.record())
    assert (found.outcome, found.title, found.total) == ("fail", "1 of 3 published never reached settled", 1)
    (evidence,) = found.evidence
    assert evidence.summary == (
        "o1 accepted 1.10 s, published 1.20 s to orders.placed/2@1, offset committed by payments at 1.26 s or before, "
        "never in settled; under kill (1.30 s)  trace 00000000000000000000000000000002"
    )
    assert (evidence.ids, evidence.faults, evidence.traces) == (("o1",), ("kill",), ("00000000000000000000000000000002",))


def test_offsets_that_were_committed_before_their_effects_are_named(history):
    inputs = history.directory / "inputs"
    inputs.mkdir()
    (inputs / "topology.yaml").write_text(TOPOLOGY)
    for n in range(5):
        history.message("published", f"o{n}", at=n, partition=2)
        if n not in {1, 2, 4}:
            history.message("settled", f"o{n}", at=n + 1)
    history.lag(6, 0, partition=2, end=5)
    found = NoLoss.judge("no-loss", WITHIN, history.record())
    assert found.total == 3
    assert found.evidence[0].summary.endswith("\noffsets of orders.placed/2 were committed by payments before their effects: 1–2, 4")


@given(st.sets(st.integers(0, 20)))
def test_ranges_name_every_number_once(numbers):
    parts = [part.split("–") for part in ranges(list(numbers)).split(", ") if part]
    assert [n for first, *last in parts for n in range(int(first), int((last or [first])[0]) + 1)] == sorted(numbers)


def test_a_fault_long_before_or_after_is_not_blamed(history):
    history.order("o1", start=10)
    history.empty("published")
    history.fault("early", 1, 2)
    history.fault("late", 20, 21)
    found = NoLoss.judge("no-loss", PUBLISHED, history.record())
    assert found.evidence[0].faults == ()


def test_an_unknown_outcome_is_never_a_loss_whether_it_arrived_or_not(history):
    history.order("o0")
    history.order(None, type="info")
    history.order(None, type="info")
    history.message("published", "o0")
    history.message("published", "came-of-an-unknown")
    found = NoLoss.judge("no-loss", PUBLISHED, history.record())
    assert found.outcome == "pass"
    assert found.stats["unknown_outcomes"] == 2


def test_a_message_that_comes_too_late_fails(history):
    history.message("published", "o0", at=1)
    history.message("settled", "o0", at=21.5)
    found = NoLoss.judge("no-loss", WITHIN, history.record())
    assert (found.outcome, found.title) == ("fail", "1 of 1 published reached settled later than 20s")
    assert "20.50 s after" in found.evidence[0].summary


def test_rows_only_have_to_be_there_when_they_were_read(history):
    history.message("published", "o0", at=1)
    history.row("charges", "o0")
    assert NoLoss.judge("no-loss", WITHIN | {"to": "charges"}, history.record()).outcome == "pass"


def test_what_is_not_due_yet_is_inconclusive(history):
    history.message("published", "o0", at=1)
    history.message("published", "o1", at=25)
    history.message("settled", "o0", at=2)
    found = NoLoss.judge("no-loss", WITHIN, history.record(read_at=40))
    assert found.outcome == "inconclusive"
    assert "too soon" in found.title


def test_nothing_accepted_is_no_evidence(history):
    history.empty("published")
    assert NoLoss.judge("no-loss", PUBLISHED, history.record()).outcome == "inconclusive"


def test_a_stream_that_could_not_be_read_is_inconclusive(history):
    history.order("o0")
    history.write(Step(at_ns=1, name="observe", edge="begin", detail={"stream": "published"}))
    history.write(Step(at_ns=1, name="observe", edge="end", ok=False, detail={"stream": "published", "error": "no broker"}))
    found = NoLoss.judge("no-loss", PUBLISHED, history.record())
    assert (found.outcome, found.title) == ("inconclusive", "published could not be read: no broker")


def test_answers_without_an_id_are_inconclusive(history):
    history.order("o0")
    history.order(None)
    history.message("published", "o0")
    assert NoLoss.judge("no-loss", PUBLISHED, history.record()).outcome == "inconclusive"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.lists(st.integers(0, 8), max_size=8))
def test_it_agrees_with_set_difference(histories, sent, arrived):
    with histories() as history:
        for n in sent:
            history.order(f"o{n}")
        history.empty("published")
        for n in arrived:
            history.message("published", f"o{n}")
        found = NoLoss.judge("no-loss", PUBLISHED, history.record())
        assert (found.outcome == "fail") == bool(set(sent) - set(arrived))
        assert {id for e in found.evidence for id in e.ids} == {f"o{n}" for n in set(sent) - set(arrived)}
