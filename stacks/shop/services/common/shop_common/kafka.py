"""Kafka: consumers that commit an offset only after its effects, and producers that lose, double and reorder nothing."""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import groupby
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from opentelemetry.trace import SpanKind

from shop_common import retry, telemetry

COMMON = {"bootstrap.servers": os.environ.get("KAFKA_BOOTSTRAP", ""), "log_level": 4, "reconnect.backoff.max.ms": 1000}
CONSUMER = {
    **COMMON, "enable.auto.commit": False, "auto.offset.reset": "earliest", "partition.assignment.strategy": "range",
    "session.timeout.ms": 6000, "heartbeat.interval.ms": 1500, "fetch.error.backoff.ms": 100,
}
PRODUCER = {**COMMON, "enable.idempotence": True, "acks": "all", "message.timeout.ms": 0, "linger.ms": 5}
MOVED = (  # the group's partitions have been dealt anew: what was not committed comes again
    KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._STATE,  # noqa: SLF001 (so the library names its own errors)
)
log = logging.getLogger("shop")
busy = telemetry.meter.create_histogram("messaging.process.duration", "s")
copying = threading.Lock()


class Subscriber:
    """A member of a consumer group.

    Its user handles a batch, then commits it.  A crash between the two repeats the batch, so effects have to be idempotent.
    A handler that raises repeats it too, except retry.Hopeless: that message goes to the topic `dead`, the others go on.
    """

    def __init__(self, group: str, *topics: str, dead: str, batch: int = 32, workers: int = 1) -> None:
        self._group, self._topics, self._dead, self._batch = group, topics, dead, batch
        self._threads = ThreadPoolExecutor(workers)
        self._owned: set[tuple[str, int]] = set()
        self.joined = False  # whether the group has given it its share

    def batches(self, stop: threading.Event) -> Iterator[list[Message]]:
        """Joins the group; messages in the order of their partitions, until `stop`; then leaves the group."""
        self._consumer = consumer = Consumer({**CONSUMER, "group.id": self._group})
        consumer.subscribe(list(self._topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)
        try:
            while not stop.is_set():
                first = consumer.poll(0.5)
                if first is not None:
                    batch = [first, *consumer.consume(self._batch - 1, timeout=0)]
                    yield [message for message in batch if self._usable(message)]
        finally:
            self.joined = False
            consumer.close()

    def process(self, batch: list[Message], handler: Callable[[Message], None]) -> None:
        """Handles each message in a span that follows its producer: those of one key in order, keys side by side."""

        def in_order(messages: list[Message]) -> None:
            for message in messages:
                self._process_one(message, handler)

        keyed = sorted(batch, key=_key)  # a stable sort keeps the order inside a key
        for _ in self._threads.map(in_order, [list(same) for _, same in groupby(keyed, _key)]):
            pass

    def commit(self, batch: list[Message]) -> None:
        """Commits the offsets behind a batch."""
        ends = {(message.topic(), message.partition()): message.offset() + 1 for message in batch}
        offsets = [TopicPartition(topic, partition, end) for (topic, partition), end in ends.items()]

        def attempt(_: int) -> None:
            try:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            except KafkaException as error:
                if error.args[0].code() not in MOVED:
                    raise

        if offsets:
            retry.call(attempt, lambda error: isinstance(error, KafkaException), budget_s=10, attempts=8)

    def _process_one(self, message: Message, handler: Callable[[Message], None]) -> None:
        labels = {"messaging.destination.name": message.topic(), "messaging.consumer.group.name": self._group}
        attributes = {
            **labels, "messaging.system": "kafka", "messaging.operation.type": "process", "messaging.operation.name": "process",
            "messaging.destination.partition.id": str(message.partition()), "messaging.kafka.offset": message.offset(),
        }
        parent = telemetry.extract(headers(message))
        name = f"process {message.topic()}"
        with telemetry.timed(busy, labels), telemetry.span(name, SpanKind.CONSUMER, attributes, parent) as span:
            try:
                handler(message)
            except retry.Hopeless as error:
                log.warning("%s at %s goes to %s: %s", message.topic(), place(message), self._dead, error)
                telemetry.failed(span, "hopeless")
                copy(message, self._dead, str(error))

    def _usable(self, message: Message) -> bool:
        if message.error() and message.error().fatal():
            raise KafkaException(message.error())
        return not message.error() and (message.topic(), message.partition()) in self._owned

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._owned = {(partition.topic, partition.partition) for partition in partitions}
        self.joined = True

    def _revoked(self, _: Consumer, __: list[TopicPartition]) -> None:
        self._owned = set()


def producer() -> Producer:
    """Acknowledged by all in-sync replicas, once, in order; tries as long as the process lives."""
    return Producer(PRODUCER)


def send(
    to: Producer, topic: str, key: str | bytes | None, value: str | bytes | None, carried: Mapping[str, str], sent: Callable[[], Any],
) -> None:
    """Hands a message over; `sent` is called when the brokers have it.

    `carried` are its headers.  The trace context among them is the parent of the span that lasts until then.
    """
    attributes = {
        "messaging.system": "kafka", "messaging.operation.type": "send", "messaging.operation.name": "send",
        "messaging.destination.name": topic, "messaging.kafka.message.key": key or "",
    }
    span = telemetry.tracer.start_span(f"send {topic}", telemetry.extract(carried), SpanKind.PRODUCER, attributes)

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error:
            log.warning("%s of %s: %s", topic, key, error)
            telemetry.failed(span, error.name())
        else:
            span.set_attribute("messaging.destination.partition.id", str(message.partition()))
            span.set_attribute("messaging.kafka.offset", message.offset())
            sent()
        span.end()

    to.produce(topic, value, key, headers=list({**carried, **telemetry.inject(span)}.items()), on_delivery=delivered)


def finish(waiting: Producer, stop: threading.Event) -> None:
    """Waits until everything handed over has been acknowledged; soon after `stop` it is given up."""
    while len(waiting) and not stop.is_set():
        waiting.poll(0.1)
    if waiting.flush(2):
        waiting.purge()
        waiting.flush(1)


@cache
def copier() -> Producer:
    """The producer of copies, made when there is something to copy."""
    return producer()


def copy(message: Message, topic: str, reason: str, **more: str) -> None:
    """Puts a message into another topic too, in the current trace, with the reason and `more` among its headers.

    Returns when the brokers have it.  Raises RuntimeError when they refuse it.
    """
    origin = {"origin": f"{message.topic()}/{place(message)}"}  # stays that of the first copy
    carried = {**origin, **headers(message), **telemetry.inject(), "reason": reason[:200], **more}
    acknowledged = threading.Event()
    with copying:
        send(copier(), topic, message.key(), message.value(), carried, acknowledged.set)
        copier().flush()
    if not acknowledged.is_set():
        raise RuntimeError(f"{topic} refused a message")


def event(message: Message, **fields: type) -> dict[str, Any]:
    """A message's value, which has at least these fields.  Raises retry.Hopeless when it is not such a JSON object."""
    try:
        value = json.loads(message.value() or b"")
        json.dumps(value, ensure_ascii=False).encode()  # JSON can say what text can't hold: half of a surrogate pair
    except (ValueError, RecursionError) as error:
        raise retry.Hopeless(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise retry.Hopeless("not an object")
    for name, kind in fields.items():
        if type(value.get(name)) is not kind or (kind is int and abs(value[name]) >= 2**63):
            raise retry.Hopeless(f"{name} must be of type {kind.__name__}")
    return value


def headers(message: Message) -> dict[str, str]:
    """A message's headers as text."""
    return {name: value.decode(errors="replace") for name, value in message.headers() or [] if value is not None}


def place(message: Message) -> str:
    """Where a message stands in its topic: partition@offset."""
    return f"{message.partition()}@{message.offset()}"


def _key(message: Message) -> bytes:
    return message.key() or b""
