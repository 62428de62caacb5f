"""reporting: a read model of orders and payments, read from the standby."""

import threading
from typing import Any

from shop_common import db, kafka
from shop_common.http import Call, route, serve

primary = db.pool(size=2)
standby = db.pool("STANDBY_URL")
events = kafka.Subscriber("reporting", "orders.placed", "payments.settled", dead="reporting.dead")


def record(message: kafka.Message) -> None:
    """The two topics have no order between them, so each fills in its own columns."""
    order = kafka.event(message, **FIELDS[message.topic()])
    with db.transaction(primary, "UPSERT order_view") as connection:
        connection.execute(UPSERT[message.topic()], order)


PLACED = {"order_id": str, "customer": str, "sku": str, "quantity": int, "amount_cents": int}
FIELDS = {"orders.placed": PLACED, "payments.settled": {**PLACED, "status": str}}
UPSERT = {
    "orders.placed": """
        insert into order_view (order_id, customer, sku, quantity, amount_cents)
        values (%(order_id)s, %(customer)s, %(sku)s, %(quantity)s, %(amount_cents)s) on conflict do nothing
        """,
    "payments.settled": """
        insert into order_view (order_id, customer, sku, quantity, amount_cents, status)
        values (%(order_id)s, %(customer)s, %(sku)s, %(quantity)s, %(amount_cents)s, %(status)s)
        on conflict (order_id) do update set status = excluded.status
        """,
}


def of_customer(call: Call) -> dict[str, Any]:
    """Answers GET /customers/{customer}/orders: the newest hundred."""
    return {"orders": read(
        "select order_id::text, sku, quantity, amount_cents, status from order_view where customer = %s order by seen desc limit 100",
        [call.request.path_params["customer"]],
    )}


def everything(_: Call) -> list[dict[str, Any]]:
    """Answers GET /orders."""
    return read("select order_id::text, customer, amount_cents, status from order_view order by seen limit 100000", [])


def read(query: str, values: list[Any]) -> list[dict[str, Any]]:
    """Rows from the standby, or from the primary while there is none."""
    with db.transaction(standby, "SELECT order_view") as connection:
        return connection.execute(query, values).fetchall()


def follow(stop: threading.Event) -> None:
    """A member of the group `reporting`."""
    for batch in events.batches(stop):
        events.process(batch, record)
        events.commit(batch)


serve(
    route("GET", "/customers/{customer}/orders", of_customer),
    route("GET", "/orders", everything),
    ready=lambda: db.alive(primary) and events.joined,
    workers=[follow],
)
