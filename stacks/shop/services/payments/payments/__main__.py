"""payments: charges each order once, when the fraud check allows it."""

import os
import threading

from shop_common import db, kafka, outbox
from shop_common.http import serve

from payments import fraud

pool = db.pool()
placed = kafka.Subscriber("payments", "orders.placed", dead="payments.dead", workers=12)


def charge(message: kafka.Message) -> None:
    """Charge, ledger and the event that tells of them are one transaction; a second message of an order changes nothing."""
    order = kafka.event(message, order_id=str, customer=str, sku=str, quantity=int, amount_cents=int)
    if known(order["order_id"]):
        return
    allowed = fraud.allows(order)
    status = "charged" if allowed else "declined"
    with db.transaction(pool, "INSERT charge") as connection:
        new = connection.execute(
            "insert into charge (order_id, customer, amount_cents, status) values (%s, %s, %s, %s)"
            " on conflict (order_id) do nothing returning id",
            [order["order_id"], order["customer"], order["amount_cents"], status],
        ).fetchone()
        if new and allowed:
            connection.execute("insert into ledger (order_id, amount_cents) values (%(order_id)s, %(amount_cents)s)", order)
        if new:
            outbox.add(connection, "payments.settled", order["customer"], {**order, "status": status})


def known(order_id: str) -> bool:
    """Whether an order has been settled: saves the fraud check when a message comes again."""
    with db.transaction(pool, "SELECT charge") as connection:
        return connection.execute("select id from charge where order_id = %s", [order_id]).fetchone() is not None


def follow_orders(stop: threading.Event) -> None:
    """A member of the group `payments`: first the effects, then the offsets."""
    for batch in placed.batches(stop):
        placed.process(batch, charge)
        placed.commit(batch)


fraud.connect(os.environ["FRAUD_ADDRESS"])
serve(
    ready=lambda: db.alive(pool) and placed.joined,
    workers=[follow_orders, outbox.relay],
)
