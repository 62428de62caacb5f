"""Runs inside an environment of the shop: `send` a file of messages, `lock` tables until standard input ends, tell the `state`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Producer

from envctl.engines.kafka import KafkaEngine
from envctl.engines.postgres import PostgresEngine
from envctl.engines.topics import messages_of
from envctl.spec.topology import load_topology

SHOP = load_topology(Path(__file__).parents[2] / "stacks/shop/topology.yaml").components
BOOTSTRAP = KafkaEngine().endpoints(SHOP["bus"])["bootstrap"]
URLS = PostgresEngine().endpoints(SHOP["shop-db"])
STATE = {  # what each consumer did
    "payments": "select order_id::text from charge",
    "orders": "select id::text from orders where status = 'charged'",
    "inventory": "select order_id::text from reservation",
    "notifications": "select order_id::text from notice",
    "reporting": "select order_id::text from order_view",
}
LOCKS = {"payments": "charge", "orders": "orders", "inventory": "reservation", "notifications": "notice", "reporting": "order_view"}


def connect(database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(URLS[f"{database}.url"])


def send(messages: list[dict[str, Any]], orders: list[str]) -> None:
    """Messages of one key, so of one partition; `orders` are those that the orders service knows already."""
    with connect("orders") as connection:
        connection.execute("insert into customer values ('c1', 'Customer 1') on conflict do nothing")
        for order in orders:
            connection.execute("insert into orders (id, customer, sku, quantity, amount_cents, idempotency_key)"
                               " values (%s, 'c1', 'p1', 1, 100, %s)", [order, order])
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "enable.idempotence": True})
    for message in messages:
        value = None if message["value"] is None else bytes.fromhex(message["value"])
        producer.produce(message["topic"], value, "c1", headers=[("traceparent", message["traceparent"]), ("note", b"\xff")])
    assert producer.flush(30) == 0


def lock() -> None:
    connections = [connect(database) for database in LOCKS]
    for connection, table in zip(connections, LOCKS.values(), strict=True):
        connection.execute(f"lock table {table} in access exclusive mode")
    sys.stdout.write("locked")
    sys.stdout.flush()
    sys.stdin.read()


def state() -> dict[str, Any]:
    found: dict[str, Any] = {"done": {}, "dead": {}}
    for database, query in STATE.items():
        with connect(database) as connection:
            found["done"][database] = [row[0] for row in connection.execute(query)]
    for service in STATE:
        found["dead"][service] = [
            {"value": None if m.value() is None else m.value().hex(), **{name: value.decode(errors="replace") for name, value in m.headers()}}
            for m in messages_of(BOOTSTRAP, f"{service}.dead", within_s=20)
        ]
    return found


if sys.argv[1] == "send":
    send(**json.loads(Path(sys.argv[2]).read_text()))
elif sys.argv[1] == "lock":
    lock()
else:
    json.dump(state(), sys.stdout)
