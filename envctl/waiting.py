"""Waiting for a condition with a deadline, and being told to wait no longer."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


def until(condition: Callable[[], bool], timeout_s: float, *, poll_s: float = 0.05) -> bool:
    """Asks again and again until the condition holds or the time is over; True when it held."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll_s)
    return True


def end_when_told(status: int) -> None:
    """From now on SIGTERM ends this process with `status` as an exception would, and so does SIGHUP: what has been begun is taken back.

    Only the first is heard: another one would end the taking back half-way.  The handler raises an instance, which `sys.exit` does not before Python 3.12.  The client for Kafka carries on what is raised
    in one of its callbacks, but makes a SystemError of what is no instance yet.
    """

    def end(*_: object) -> NoReturn:
        end_when_done()
        raise SystemExit(status)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


def end_when_done() -> None:
    """From now on SIGTERM and SIGHUP are not heard: what is left to do is done to its end."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def unheard() -> Iterator[Callable[[], None]]:
    """SIGINT and SIGTERM are not heard before the function that is given is called, or the end: for what must not be begun by halves.

    A handler that raises in the middle of `subprocess.Popen` would leave a process that nobody knows.
    """
    came: list[int] = []
    told: dict[int, Any] = {}  # the handlers that were there

    def hear() -> None:
        try:
            while told:
                signal.signal(*told.popitem())
        finally:  # should one come just now whose handler is there already
            while told:
                signal.signal(*told.popitem())
        while came:
            signal.raise_signal(came.pop())

    if threading.current_thread() is threading.main_thread():  # no other one is interrupted
        told = {number: signal.signal(number, lambda number, _: came.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield hear
    finally:
        hear()
