"""notifications: tells customers how their payment went.

What fails for now goes through the topic `notifications.retry`, what can't ever work to `notifications.dead`; neither holds up
the others.
"""

import threading
import time

import psycopg
from shop_common import db, kafka, telemetry
from shop_common.http import serve

RETRY, DEAD = "notifications.retry", "notifications.dead"
DELAYS_S = (1, 2, 4, 8)
pool = db.pool()
settled = kafka.Subscriber("notifications", "payments.settled")
retries = kafka.Subscriber("notifications-retry", RETRY, batch=1)
lock = threading.Lock()
producer = kafka.producer()


def notify(message: kafka.Message) -> None:
    """Sends one notice for an order and status, or puts the message where it belongs."""
    try:
        order = kafka.event(message)
        text = f"Order {order['order_id']} has been {order['status']}: {order['amount_cents'] / 100:.2f}"
        notice = [order["order_id"], order["status"], order["customer"], text]
    except (ValueError, KeyError, TypeError) as error:
        put(DEAD, message, 0, repr(error))
        return
    try:
        with db.transaction(pool, "INSERT notice") as connection:
            connection.execute("insert into notice values (%s, %s, %s, %s) on conflict do nothing", notice)
    except psycopg.DataError as error:
        put(DEAD, message, 0, repr(error))
    except ConnectionError as error:
        attempts = int(kafka.headers(message).get("attempts", "0")) + 1
        put(RETRY if attempts <= len(DELAYS_S) else DEAD, message, attempts, repr(error))


def put(topic: str, message: kafka.Message, attempts: int, reason: str) -> None:
    """Copies a message to another topic, and waits until it is there."""
    carried = {**kafka.headers(message), **telemetry.inject(), "attempts": str(attempts), "reason": reason[:200]}
    if topic == RETRY:
        carried["not-before"] = str(time.time() + DELAYS_S[attempts - 1])
    with lock:
        kafka.deliver(producer, topic, message.key(), message.value(), carried)


def follow_payments(stop: threading.Event) -> None:
    """A member of the group `notifications`."""
    for batch in settled.batches(stop):
        settled.process(batch, notify)
        settled.commit(batch)


def follow_retries(stop: threading.Event) -> None:
    """Handles what had failed when its time has come; all waits are short, so one may hold up the next."""
    for batch in retries.batches(stop):
        for message in batch:
            stop.wait(max(0.0, float(kafka.headers(message)["not-before"]) - time.time()))
        if not stop.is_set():
            retries.process(batch, notify)
            retries.commit(batch)


serve(ready=lambda: db.alive(pool) and settled.joined, workers=[follow_payments, follow_retries])
