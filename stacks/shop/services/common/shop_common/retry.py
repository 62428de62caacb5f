"""Retries with exponential backoff and full jitter, inside a budget of time."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Hopeless(Exception):  # noqa: N818 (it is a finding)
    """Fails however often it is tried: the data itself is wrong."""


def delay(attempt: int, base_s: float = 0.05, cap_s: float = 2.0) -> float:
    """A random wait before attempt `attempt` (1, 2, …) is repeated."""
    return random.uniform(0, min(cap_s, base_s * 2**attempt))


class Allowance:
    """Lets a share of the calls be repeated, and a few more at once, so that retries don't keep up the overload that causes them."""

    def __init__(self, share: float = 0.2, burst: int = 20) -> None:
        self._share, self._burst, self._left, self._lock = share, burst, float(burst), threading.Lock()

    def earn(self) -> None:
        """A call is made."""
        with self._lock:
            self._left = min(self._burst, self._left + self._share)

    def spend(self) -> bool:
        """Whether a call may be repeated."""
        with self._lock:
            allowed = self._left >= 1
            self._left -= allowed
            return allowed


def call(
    attempt: Callable[[int], T], retryable: Callable[[Exception], bool], budget_s: float, attempts: int = 4,
    allowance: Allowance | None = None,
) -> T:
    """Calls `attempt(resend_count)` until it returns.  Raises its error when that is final or the budget is used up."""
    end = time.monotonic() + budget_s
    if allowance:
        allowance.earn()
    for count in range(attempts):
        try:
            return attempt(count)
        except Exception as error:
            wait = delay(count + 1)
            if count + 1 == attempts or not retryable(error) or time.monotonic() + wait > end:
                raise
            if allowance and not allowance.spend():
                raise
            time.sleep(wait)
    raise AssertionError("unreachable")
