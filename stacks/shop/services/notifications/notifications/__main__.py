"""notifications: tells customers how their payment went.

What fails for now goes through the topic `notifications.retry`, and in the end to `notifications.dead`; it does not hold up the
others.
"""

import threading
import time

from shop_common import db, kafka
from shop_common.http import serve

RETRY, DEAD = "notifications.retry", "notifications.dead"
WAITS_S = (0, 1, 2, 4, 8)  # before the first try, the second and so on
pool = db.pool()
settled = kafka.Subscriber("notifications", "payments.settled", dead=DEAD)
retries = kafka.Subscriber("notifications-retry", RETRY, dead=DEAD, batch=1)


def notify(message: kafka.Message) -> None:
    """Sends one notice for an order and status; what fails is tried again later, but not for ever."""
    order = kafka.event(message, order_id=str, status=str, customer=str, amount_cents=int)
    text = f"Order {order['order_id']} has been {order['status']}: {order['amount_cents'] / 100:.2f}"
    try:
        with db.transaction(pool, "INSERT notice") as connection:
            connection.execute(
                "insert into notice values (%s, %s, %s, %s) on conflict do nothing",
                [order["order_id"], order["status"], order["customer"], text],
            )
    except ConnectionError as error:
        attempts = attempts_of(message) + 1
        kafka.copy(message, RETRY if attempts < len(WAITS_S) else DEAD, repr(error), attempts=str(attempts))


def attempts_of(message: kafka.Message) -> int:
    """How often it has been tried."""
    said = kafka.headers(message).get("attempts", "")
    return int(said) if said.isdecimal() else 0


def follow_payments(stop: threading.Event) -> None:
    """A member of the group `notifications`."""
    for batch in settled.batches(stop):
        settled.process(batch, notify)
        settled.commit(batch)


def follow_retries(stop: threading.Event) -> None:
    """Handles what had failed when its time has come; all waits are short, so one may hold up the next."""
    for batch in retries.batches(stop):
        for message in batch:
            _, since_ms = message.timestamp()
            wait_s = WAITS_S[min(attempts_of(message), len(WAITS_S) - 1)]
            stop.wait(since_ms / 1000 + wait_s - time.time())
        if not stop.is_set():
            retries.process(batch, notify)
            retries.commit(batch)


serve(ready=lambda: db.alive(pool) and settled.joined, workers=[follow_payments, follow_retries])
