# ruff: noqa: INP001 (a program, not a package)
"""Writes checkout.jsonl beside itself: 60 customers browse, order, look at their order, order again, look at all of theirs.

orders.jsonl is the same without the looks at one order, which can't be sent while orders are not answered: for outages of the database.

Deterministic.  One customer's operations are 1.2 s apart and refer to the answers before them.  One order in twelve is for a
hundred pieces; where they are dear, that is more than the fraud check allows, and the order is declined.
"""

import json
import random
from pathlib import Path

CUSTOMERS, ROUNDS, RATE = 60, 25, 50


def order(customer: str, rng: random.Random) -> dict[str, object]:
    """An order for something on the page that the customer saw last."""
    quantity = 100 if rng.randrange(12) == 0 else rng.randint(1, 3)
    body = {"customer": customer, "sku": f"{{{{browse.items[{rng.randrange(20)}].sku}}}}", "quantity": quantity}
    return {"op": "place_order", "http": "POST /orders", "key": customer, "headers": {"Idempotency-Key": "{{uuid}}"}, "body": body}


def operation(customer: str, step: int, rng: random.Random) -> dict[str, object]:
    """What a customer does in a round of the visit."""
    if step % 5 == 0:
        return {"op": "browse", "http": f"GET /products?page={rng.randint(1, 100)}", "key": customer}
    if step % 5 in (1, 3):
        return order(customer, rng)
    if step % 5 == 2:
        return {"op": "order_status", "http": "GET /orders/{{place_order.order_id}}", "key": customer}
    return {"op": "my_orders", "http": f"GET /customers/{customer}/orders", "key": customer}


def main() -> None:
    """Customers begin at different steps of a visit, but first of all each one browses."""
    rng, lines, blind = random.Random(17), [], []
    for index in range(CUSTOMERS * ROUNDS):
        turn, number = divmod(index, CUSTOMERS)
        step = 0 if turn == 0 else turn + number % 5 * (turn > 5)
        found = operation(f"c{number + 1}", step, rng)
        lines.append(json.dumps({"at": round(index / RATE, 2), **found}) + "\n")
        blind += lines[-1:] if found["op"] != "order_status" else []
    Path(__file__).with_name("checkout.jsonl").write_text("".join(lines), encoding="utf-8")
    Path(__file__).with_name("orders.jsonl").write_text("".join(blind), encoding="utf-8")


main()
