"""What an answer, or the lack of one, says about an operation: `ok`, `fail` (known not to have happened) or `info` (unknown).

The rules, which `docs/record.md` repeats for readers: an operation without effect (GET, HEAD, OPTIONS) that did not succeed has
failed; a refusal (4xx) is a failure; a time-out is always unknown, and so is everything that went wrong after a request with
an effect may have been sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Type = Literal["ok", "fail", "info"]
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_BODY = 64 << 10  # characters of an answer that the record keeps
_GRPC_REFUSALS = frozenset({
    "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "UNAUTHENTICATED", "FAILED_PRECONDITION",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "ABORTED",
})


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation ended; `value` is what the record keeps, `answer` what later templates may refer to."""

    type: Type
    value: Any
    answer: Any = None


def not_sent(reason: str) -> Outcome:
    """An operation that envctl could not start; it says nothing about the product."""
    return Outcome("fail", {"error": f"not sent: {reason}", "sent": False})


def timed_out(timeout_s: float) -> Outcome:
    """No answer in time."""
    return Outcome("info", {"error": f"no answer within {timeout_s:g} s"})


def of_http_status(method: str, status: int) -> Type:
    """2xx and 3xx are ok; 4xx (but 408) and 501 refuse; other answers to requests with an effect leave it unknown."""
    if status < 400:
        return "ok"
    refused = status < 500 and status != 408
    return "fail" if refused or status == 501 or method in SAFE_METHODS else "info"


def of_lost_connection(method: str) -> Type:
    """The connection broke after it was made: the request may have been read."""
    return "fail" if method in SAFE_METHODS else "info"


def of_grpc_code(code: str, details: str) -> Type:
    """By the meanings in the gRPC status code documentation; UNAVAILABLE is a failure only where no connection was made."""
    if code == "OK":
        return "ok"
    unmade = code == "UNAVAILABLE" and details.startswith("failed to connect")
    return "fail" if code in _GRPC_REFUSALS or unmade else "info"
