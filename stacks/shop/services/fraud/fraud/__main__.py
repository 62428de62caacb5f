"""fraud: scores orders, over gRPC."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry.trace import SpanKind
from shop_common import telemetry
from shop_common.fraud_pb2 import CheckReply, CheckRequest

SERVICE, METHOD = "shop.fraud.v1.Fraud", "shop.fraud.v1.Fraud/Check"
SCORING_S = float(os.environ.get("SCORING_S", "0.5"))  # a model of this quality is not faster
LIMIT_CENTS = 500_000


def check(request: CheckRequest, context: grpc.ServicerContext) -> CheckReply:
    """Large orders are not allowed."""
    parent = telemetry.extract({name: value for name, value in context.invocation_metadata() if isinstance(value, str)})
    attributes = {"rpc.system.name": "grpc", "rpc.system": "grpc", "rpc.method": METHOD}
    with telemetry.span(METHOD, SpanKind.SERVER, attributes, parent):
        time.sleep(SCORING_S)
        score = min(1.0, request.amount_cents / LIMIT_CENTS)
        return CheckReply(allowed=score < 1.0, score=score)


def main() -> None:
    """Serves until SIGTERM; then says so, answers what is open, and exports the rest."""
    telemetry.start()
    server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
    handler = grpc.unary_unary_rpc_method_handler(check, CheckRequest.FromString, CheckReply.SerializeToString)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Check": handler})])
    states = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(states, server)
    server.add_insecure_port(f"0.0.0.0:{os.environ.get('PORT', '9090')}")
    server.start()
    states.set("", health_pb2.HealthCheckResponse.SERVING)
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    end.wait()
    states.enter_graceful_shutdown()
    server.stop(grace=3).wait()
    telemetry.stop()


main()
