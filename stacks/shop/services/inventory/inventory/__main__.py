"""inventory: reserves stock for what has been paid."""

import threading

from shop_common import db, kafka
from shop_common.http import serve

pool = db.pool()
settled = kafka.Subscriber("inventory", "payments.settled", dead="inventory.dead")


def reserve(message: kafka.Message) -> None:
    """Once for each order; what is not in stock is on back order."""
    order = kafka.event(message, order_id=str, status=str, sku=str, quantity=int)
    if order["status"] != "charged":
        return
    with db.transaction(pool, "INSERT reservation") as connection:
        new = connection.execute(
            "insert into reservation (order_id, sku, quantity) values (%(order_id)s, %(sku)s, %(quantity)s)"
            " on conflict (order_id) do nothing returning order_id", order
        ).fetchone()
        if new:
            taken = connection.execute(
                "update stock set reserved = reserved + %(quantity)s"
                " where sku = %(sku)s and on_hand - reserved >= %(quantity)s returning sku", order
            ).fetchone()
            if not taken:
                connection.execute("update reservation set status = 'back order' where order_id = %(order_id)s", order)


def follow_payments(stop: threading.Event) -> None:
    """A member of the group `inventory`."""
    for batch in settled.batches(stop):
        settled.process(batch, reserve)
        settled.commit(batch)


serve(ready=lambda: db.alive(pool) and settled.joined, workers=[follow_payments])
