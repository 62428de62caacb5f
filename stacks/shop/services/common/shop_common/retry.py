"""Retries with exponential backoff and full jitter, inside a budget of time."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def delay(attempt: int, base_s: float = 0.05, cap_s: float = 2.0) -> float:
    """A random wait before attempt `attempt` (1, 2, …) is repeated."""
    return random.uniform(0, min(cap_s, base_s * 2**attempt))


def call(attempt: Callable[[int], T], retryable: Callable[[Exception], bool], budget_s: float, attempts: int = 4) -> T:
    """Calls `attempt(resend_count)` until it returns.  Raises its error when that is final or the budget is used up."""
    end = time.monotonic() + budget_s
    for count in range(attempts):
        try:
            return attempt(count)
        except Exception as error:
            wait = delay(count + 1)
            if count + 1 == attempts or not retryable(error) or time.monotonic() + wait > end:
                raise
            time.sleep(wait)
    raise AssertionError("unreachable")
