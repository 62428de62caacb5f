"""Asks the fraud service: with a deadline, again when it does not answer, inside a budget."""

from typing import Any

import grpc
from opentelemetry.trace import SpanKind
from shop_common import retry, telemetry
from shop_common.fraud_pb2 import CheckReply, CheckRequest

DEADLINE_S = 2.0
BUDGET_S = 8.0
METHOD = "shop.fraud.v1.Fraud/Check"
AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
_check: grpc.UnaryUnaryMultiCallable


def connect(address: str) -> None:
    """Opens the channel; it reconnects by itself."""
    global _check  # noqa: PLW0603
    options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]
    _check = grpc.insecure_channel(address, options).unary_unary(
        f"/{METHOD}", CheckRequest.SerializeToString, CheckReply.FromString
    )


def allows(order: dict[str, Any]) -> bool:
    """Whether the order may be charged.  Raises grpc.RpcError when there is no answer inside the budget."""
    request = CheckRequest(order_id=order["order_id"], customer=order["customer"], amount_cents=order["amount_cents"])

    def attempt(count: int) -> bool:
        attributes = {"rpc.system.name": "grpc", "rpc.system": "grpc", "rpc.method": METHOD}
        if count:
            attributes["http.request.resend_count"] = count
        with telemetry.span(METHOD, SpanKind.CLIENT, attributes):
            return _check(request, timeout=DEADLINE_S, metadata=list(telemetry.inject().items())).allowed

    return retry.call(attempt, lambda error: isinstance(error, grpc.RpcError) and error.code() in AGAIN, BUDGET_S)
