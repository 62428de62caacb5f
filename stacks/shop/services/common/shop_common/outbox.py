"""The transactional outbox: an event is written with the change it tells of, and a relay carries it to Kafka.

The service's database needs the table `outbox` (id, topic, key, value, headers).
"""

import json
import threading
from functools import partial
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb

from shop_common import db, kafka, telemetry

PAUSE_S = 0.05
BATCH = 200


def add(connection: Connection, topic: str, key: str, event: dict[str, Any]) -> None:
    """Writes an event in the caller's transaction, with the current trace context."""
    connection.execute(
        "insert into outbox (topic, key, value, headers) values (%s, %s, %s, %s)",
        [topic, key, json.dumps(event), Jsonb(telemetry.inject())],
    )


def relay(stop: threading.Event) -> None:
    """Sends what is in the outbox, in its order, and removes what the brokers have.

    Only the holder of the database's lock relays, so replicas neither double nor reorder.  A relay that dies between sending and
    removing leaves events that are sent again: consumers are idempotent.
    """
    producer = kafka.producer()
    with psycopg.connect(db.url(), autocommit=True) as connection:
        while not stop.is_set() and not _lock(connection):
            stop.wait(1)
        while not stop.is_set():
            if not _relay_some(connection, producer, stop):
                stop.wait(PAUSE_S)


def _lock(connection: Connection) -> bool:
    return bool(connection.execute("select pg_try_advisory_lock(hashtext('outbox'))").fetchone()[0])


def _relay_some(connection: Connection, producer: kafka.Producer, stop: threading.Event) -> int:
    rows = connection.execute("select id, topic, key, value, headers from outbox order by id limit %s", [BATCH]).fetchall()
    sent: list[int] = []
    for number, topic, key, value, headers in rows:
        kafka.send(producer, topic, key, value, headers, partial(sent.append, number))
    if rows:
        kafka.finish(producer, stop)
        connection.execute("delete from outbox where id = any(%s)", [sent])
        if len(sent) < len(rows) and not stop.is_set():
            raise RuntimeError(f"Kafka refused {len(rows) - len(sent)} events")
    return len(rows)
