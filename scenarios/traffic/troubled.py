# ruff: noqa: INP001 (a program, not a package)
"""Writes sale.jsonl, malformed.jsonl and prices.jsonl beside itself: the shop in days that are not like others.

sale: almost everybody orders the same three products.  malformed: between the visits of orders.jsonl, messages come over Kafka that no consumer can
handle, each under a key of its own: broken, of the wrong form, or with values that only the database refuses.  prices: clerks change prices again and
again and look at them, while passers-by look at them too and impatient customers order something, and look at once how their order is.

Deterministic.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ON_SALE = ("p000011", "p000012", "p000013")
REPRICED = ("p000101", "p000102", "p000103", "p000104", "p000105")
NO_ORDER = "not-an-order"  # where the database wants a UUID


def write(name: str, operations: Iterator[dict[str, Any]], rate: int) -> None:
    """A traffic file of operations that follow each other evenly."""
    lines = (json.dumps({"at": round(index / rate, 3), **each}) + "\n" for index, each in enumerate(operations))
    (HERE / name).write_text("".join(lines), encoding="utf-8")


def order(customer: str, sku: str, quantity: int) -> dict[str, Any]:
    """An order of a product that the customer knows."""
    return {"op": "place_order", "http": "POST /orders", "key": customer, "headers": {"Idempotency-Key": "{{uuid}}"},
            "body": {"customer": customer, "sku": sku, "quantity": quantity}}


def sale(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Rounds of 60 customers, who browse, order and look at their orders in turns."""
    for turn in range(10):
        for number in range(60):
            customer, step = f"c{number + 1}", (turn + number) % 5
            if step == 0:
                yield {"op": "browse", "http": f"GET /products?page={rng.randint(1, 100)}", "key": customer}
            elif step == 4:
                yield {"op": "my_orders", "http": f"GET /customers/{customer}/orders", "key": customer}
            elif rng.randrange(12) == 0:
                yield order(customer, f"p{rng.randint(1000, 1999):06}", 100)
            else:
                yield order(customer, rng.choice(ON_SALE), rng.randint(1, 3))


def spoilt(key: str, rng: random.Random, sound: dict[str, Any]) -> str:
    """A message without order: the last two kinds look well, and only the database knows that there can be no such order."""
    return rng.choice((
        "", "no JSON", '{"order_id": "', "[1, 2, 3]", "null", json.dumps({**sound, "order_id": 17}), json.dumps({"order_id": key}),
        *[json.dumps(sound)] * 6, *[json.dumps({**sound, "order_id": f"{key}\x00"})] * 2,
    ))


def malformed(rng: random.Random) -> Iterator[dict[str, Any]]:
    """The visits, and a message of one topic or the other between any fifteen operations of theirs."""
    sound = {"order_id": NO_ORDER, "customer": "c1", "sku": "p000001", "quantity": 1, "amount_cents": 1147}
    for index, line in enumerate((HERE / "orders.jsonl").read_text(encoding="utf-8").splitlines()):
        yield {name: value for name, value in json.loads(line).items() if name != "at"}
        if index % 15 == 14:
            key, settled = f"spoilt-{index // 15 + 1}", index // 15 % 2
            message = spoilt(key, rng, {**sound, "status": "charged"} if settled else sound)
            name, topic = ("malformed_settlement", "payments.settled") if settled else ("malformed_order", "orders.placed")
            yield {"op": name, "kafka": topic, "key": key, "body": message}


def prices(rng: random.Random) -> Iterator[dict[str, Any]]:
    """At first each clerk sets a price; a price never comes twice."""
    for number in range(2400):
        clerk, sku, turn = number // 4 % 5, REPRICED[number // 4 % 5], number // 40
        passer, customer = f"reader{number // 4 % 7}", f"c{number // 4 % 40 + 1}"
        setting = {"op": "set_price", "http": f"PUT catalog/products/{sku}", "key": f"clerk{clerk}", "body": {"price_cents": 1000 + number}}
        showing = {"op": "show_price", "http": f"GET /products/{sku}"}
        if turn == 0:
            yield setting if number % 4 == 0 and number < 20 else {"op": "browse", "http": f"GET /products?page={rng.randint(1, 100)}", "key": customer}
        elif number % 4 == 0:
            yield setting if number // 20 % 2 else {**showing, "key": f"clerk{clerk}"}
        elif number % 4 == 1:
            yield {**showing, "http": f"GET /products/{REPRICED[(number // 4 + turn) % 5]}", "key": passer}
        elif number % 4 == 2:
            yield order(customer, f"p{rng.randint(200, 900):06}", rng.randint(1, 3))
        else:
            yield {"op": "order_status", "http": "GET /orders/{{place_order.order_id}}", "key": customer}


def main() -> None:
    """Writes all three."""
    write("sale.jsonl", sale(random.Random(18)), 50)
    write("malformed.jsonl", malformed(random.Random(19)), 50)
    write("prices.jsonl", prices(random.Random(20)), 40)


main()
