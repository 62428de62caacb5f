"""orders: takes orders.  An order and the event that tells of it are one transaction."""

import os
import threading
import uuid
from typing import Any

from shop_common import db, kafka, outbox
from shop_common.client import Client
from shop_common.http import Call, Problem, route, serve

pool = db.pool()
catalog = Client(os.environ["CATALOG_URL"], timeout_s=0.7, budget_s=1.2)  # less than whoever asks us waits
settlements = kafka.Subscriber("orders", "payments.settled", dead="orders.dead")


def place(call: Call) -> tuple[int, dict[str, Any]]:
    """Answers POST /orders {"customer", "sku", "quantity"}; with the same Idempotency-Key the same order is answered again."""
    key = call.request.headers.get("idempotency-key")
    if not key:
        raise Problem(400, "the header Idempotency-Key is missing")
    customer, sku, quantity = call.field("customer", str), call.field("sku", str), call.field("quantity", int)
    if not 1 <= quantity <= 100:
        raise Problem(422, "quantity must be from 1 to 100")
    order = {
        "order_id": str(uuid.uuid4()), "customer": customer, "sku": sku, "quantity": quantity,
        "amount_cents": quantity * price_of(sku),
    }
    with db.transaction(pool, "INSERT orders") as connection:
        # The customer's row is locked, so that the events of one customer are in the order of the commits.
        if not connection.execute("select id from customer where id = %s for no key update", [customer]).fetchone():
            raise Problem(422, f"no customer {customer}")
        new = connection.execute(
            "insert into orders (id, customer, sku, quantity, amount_cents, idempotency_key)"
            " values (%(order_id)s, %(customer)s, %(sku)s, %(quantity)s, %(amount_cents)s, %(key)s)"
            " on conflict (idempotency_key) do nothing returning id",
            {**order, "key": key},
        ).fetchone()
        if new:
            outbox.add(connection, "orders.placed", customer, order)
        stored = find(connection, "idempotency_key", key)
    if (stored["customer"], stored["sku"], stored["quantity"]) != (customer, sku, quantity):
        raise Problem(422, "the Idempotency-Key belongs to another order")
    return 201 if new else 200, stored


def price_of(sku: str) -> int:
    """In cents, now."""
    answer = catalog.call("GET", f"/products/{sku}", "/products/{sku}")
    if answer.status != 200:
        raise Problem(422 if answer.status == 404 else 503, f"no price for {sku}")
    return answer.json()["price_cents"]


def show(call: Call) -> dict[str, Any]:
    """Answers GET /orders/{id}."""
    with db.transaction(pool, "SELECT orders") as connection:
        order = find(connection, "id::text", call.request.path_params["id"])
    if order is None:
        raise Problem(404, "no such order")
    return order


def find(connection: Any, column: str, value: str) -> dict[str, Any] | None:
    """An order by one of its unique columns."""
    columns = "id::text as order_id, customer, sku, quantity, amount_cents, status"
    return connection.execute(f"select {columns} from orders where {column} = %s", [value]).fetchone()  # noqa: S608 (our own names)


def settle(message: kafka.Message) -> None:
    """The payment's outcome becomes the order's status, once."""
    event = kafka.event(message, order_id=str, status=str)
    with db.transaction(pool, "UPDATE orders") as connection:
        connection.execute(
            "update orders set status = %(status)s where id = %(order_id)s and status = 'placed'", event
        )


def follow_settlements(stop: threading.Event) -> None:
    """A member of the group `orders`."""
    for batch in settlements.batches(stop):
        settlements.process(batch, settle)
        settlements.commit(batch)


serve(
    route("POST", "/orders", place),
    route("GET", "/orders/{id}", show),
    ready=lambda: db.alive(pool),  # orders are taken without Kafka: the outbox waits
    workers=[outbox.relay, follow_settlements],
)
