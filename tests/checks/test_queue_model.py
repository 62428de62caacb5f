from __future__ import annotations

import pytest
from checks.test_traces_complete import Telemetry

from envctl.checks.queue_model import QueueModel
from envctl.model.event import Log, Op, Step
from envctl.model.verdict import Finding
from envctl.telemetry.store import flatten

S = 1_000_000_000
TOPIC = {"topic": "orders.placed"}
SENT = {**TOPIC, "sent": "accepted"}
GROUP = {**SENT, "group": "payments"}


class Queue:
    """Orders that are accepted, published and processed."""

    def __init__(self, history):
        self.history, self.telemetry, self.sent = history, Telemetry(history), 100

    def good(self, count=5):
        for n in range(count):
            self.history.order(f"o{n}", start=n)
            self.history.message("published", f"o{n}", at=n + 0.2)
            self.process(n, n)

    def process(self, n, offset, partition="0", error=False):
        place = {"messaging.destination.name": "orders.placed", "messaging.destination.partition.id": partition,
                 "messaging.kafka.offset": offset, "messaging.operation.type": "process", "messaging.consumer.group.name": "payments"}
        self.telemetry.span("payments", f"{n + 1:032x}", f"{n + 1000:016x}", "", n + 0.5, kind="consumer", attrs=place, error=error)

    def produce(self, id, offset, type="ok", at=8.0):
        """An operation of the traffic that sends to the topic itself."""
        self.sent += 1
        common = {"op": self.sent, "process": "k", "f": "emit", "key": "k", "target": "orders.placed"}
        self.history.write(Op(at_ns=round(at * S), type="invoke", value={"protocol": "kafka", "body": {"order_id": id}}, **common))
        value = {"topic": "orders.placed", "partition": 0, "offset": offset} if type == "ok" else {"error": "refused"}
        self.history.write(Op(at_ns=round((at + 0.1) * S), type=type, value=value, **common))

    def judge(self, params=GROUP, **options) -> Finding:
        self.telemetry.close()
        flatten(self.telemetry.directory)
        return QueueModel.judge("its-id", params, self.history.record(**options))


@pytest.fixture
def queue(history):
    return Queue(history)


def test_what_was_sent_read_and_processed_passes(queue):
    queue.good()
    queue.produce("e1", 5)
    queue.history.message("published", "e1", at=8.1)
    queue.process(5, 5)
    found = queue.judge()
    assert (found.outcome, found.title) == ("pass", "6 messages of orders.placed are the log that 6 sends make, and payments processed all of them")


@pytest.mark.parametrize(("name", "plant"), [
    ("lost-write", lambda q: q.produce("e1", 3)),  # where another message was read
    ("unseen", lambda q: q.produce("e1", 9)),
    ("unseen", lambda q: q.history.order("never")),
    ("aborted-read", lambda q: (q.produce("e1", None, "fail"), q.history.message("published", "e1"), q.process(5, 5))),
    ("duplicate", lambda q: (q.history.message("published", "o1"), q.process(5, 5))),
    ("poll-skip", lambda q: (q.history.message("published", "x"), q.history.message("published", "y"), q.process(6, 6))),
    ("unseen", lambda q: q.history.message("published", "x")),
    ("inconsistent-offsets", lambda q: q.produce("e1", 3)),
])
def test_a_planted_anomaly_is_found_and_named(queue, name, plant):
    queue.good()
    plant(queue)
    found = queue.judge()
    assert found.outcome == "fail"
    assert found.stats["anomalies"][name] == 1


def test_an_anomaly_is_shown_with_the_life_of_its_message(queue):
    queue.good()
    queue.history.message("published", "o1", at=6.0)
    queue.history.fault("kill", 5.5, 6.5)
    found = queue.judge(SENT)
    assert found.title == "orders.placed is not the log that was written: 1 duplicate"
    told = found.evidence[0]
    assert "o1 accepted 1.10 s, published 1.20 s to orders.placed/0@1" in told.summary
    assert 'duplicate: key 0: "o1" stands at 1 (' in told.summary
    assert (told.ids, told.faults) == (("o1",), ("kill",))
    assert told.traces


def test_what_is_allowed_does_not_count(queue):
    queue.good()
    queue.history.message("published", "o1")
    assert queue.judge({**SENT, "allow": ["duplicate"]}).outcome == "pass"


@pytest.mark.parametrize("read", [True, False])
def test_an_unknown_outcome_may_be_there_or_not(queue, read):
    queue.good()
    queue.produce("e1", None, "info")
    if read:
        queue.history.message("published", "e1")
    assert queue.judge(SENT).outcome == "pass"


def test_spans_that_may_be_lost_with_a_killed_consumer_say_nothing(queue):
    queue.good()
    queue.history.message("published", "x", at=6)
    queue.history.write(Log(at_ns=7 * S, level="info", message="payments-0 ended", detail={"node": "payments-0", "exit_status": 137}))
    found = queue.judge()
    assert (found.outcome, found.title) == (
        "inconclusive", "1 messages have no span of their processing by payments, but spans may have been lost with payments-0, which was killed")


@pytest.mark.parametrize(("later", "words"), [(6, "poll-skip: payments failed to process it, though it processed orders.placed/0@6"), (None, "unseen: payments failed to process it")])
def test_an_attempt_that_failed_is_no_processing(queue, later, words):
    queue.good()
    queue.history.order("x", start=6)
    queue.history.message("published", "x", at=6.1)
    queue.process(6, 5, error=True)
    if later:
        queue.history.order("y", start=7)
        queue.history.message("published", "y", at=7.1)
        queue.process(7, later)
    found = queue.judge()
    assert (found.outcome, found.total) == ("fail", 1)
    assert words in found.evidence[0].summary


def test_an_attempt_that_failed_and_came_through_later_is_one(queue):
    queue.good()
    queue.history.order("x", start=6)
    queue.history.message("published", "x", at=6.1)
    queue.process(6, 5, error=True)
    queue.process(7, 5)
    assert queue.judge().outcome == "pass"


def test_a_group_that_left_no_span_says_nothing(queue):
    queue.history.order("o1")
    queue.history.message("published", "o1")
    assert queue.judge().title == "no processing of orders.placed by payments left a span"


def test_before_spans_are_there_the_rest_is_judged(history):
    history.order("o1")
    history.message("published", "o1")
    assert QueueModel.judge("its-id", GROUP, history.record()).outcome == "pass"


def test_after_they_should_be_there_their_lack_says_nothing(history):
    history.order("o1")
    history.message("published", "o1")
    history.write(Step(at_ns=41 * S, name="drain", edge="end", ok=True))
    assert QueueModel.judge("its-id", GROUP, history.record()).title == "no spans were collected"


def test_a_topic_that_was_read_too_soon_says_nothing(queue):
    queue.good()
    queue.history.order("late", start=39)
    assert queue.judge({**SENT, "within": "20s"}).outcome == "inconclusive"


def test_messages_without_an_id_say_nothing(queue):
    queue.good()
    queue.history.message("published", None)
    assert queue.judge(SENT).outcome == "inconclusive"


def test_messages_that_nobody_is_known_to_have_sent_say_nothing(queue):
    queue.history.message("published", "o1")
    found = queue.judge({"topic": "orders.placed"})
    assert (found.outcome, found.title.partition(",")[0]) == ("inconclusive", "no operation is known to have sent to orders.placed")
