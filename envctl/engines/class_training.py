"""Run in a network of its own while the class archive is made: starts brokers, makes them work, ends the first in good order."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

_WITHIN_S = 120.0
_TOPIC = "training"


def train(bootstrap: str, commands: Sequence[Sequence[str]]) -> None:
    """Starts all commands, works with the brokers, and waits until the first has ended; the others are killed."""
    with contextlib.ExitStack() as stack:
        brokers = [stack.enter_context(_running(command)) for command in commands]
        _make_topic(bootstrap, len(brokers))
        _produce(bootstrap)
        _consume(bootstrap)
        brokers[0].terminate()
        brokers[0].wait(_WITHIN_S)


@contextlib.contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def _make_topic(bootstrap: str, brokers: int) -> None:
    api: Any = import_module("confluent_kafka.admin")
    admin = api.AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    deadline = time.monotonic() + _WITHIN_S
    while len(admin.list_topics(timeout=_WITHIN_S).brokers) < brokers:
        if time.monotonic() > deadline:
            sys.exit("the brokers did not find each other")
        time.sleep(0.2)
    admin.create_topics([api.NewTopic(_TOPIC, 4, brokers)])[_TOPIC].result(_WITHIN_S)


def _produce(bootstrap: str) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": "lz4", "log_level": 0})
    for number in range(100):
        producer.produce(_TOPIC, value=str(number), key=str(number))
    if producer.flush(_WITHIN_S):
        sys.exit("the brokers accepted no messages")


def _consume(bootstrap: str) -> None:
    from confluent_kafka import Consumer

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": _TOPIC, "auto.offset.reset": "earliest", "log_level": 0})
    consumer.subscribe([_TOPIC])
    if consumer.poll(_WITHIN_S) is None:
        sys.exit("the brokers delivered no messages")
    consumer.commit(asynchronous=False)
    consumer.close()


if __name__ == "__main__":
    train(*json.loads(os.environ["ENVCTL_TRAINING"]))
