"""The OTLP receiver of an environment: `python -m envctl.telemetry.intake --directory DIR --host HOST`.

It appends each raw request to `DIR/{traces,metrics,logs}.bin` and only then acknowledges it; nothing is parsed but the
outermost framing (so that bytes that are no OTLP request are refused).  When it can't write or has too much in hand it
answers 503 or UNAVAILABLE, which exporters retry.  It prints `ready` once both ports listen, and ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from envctl.telemetry.http_intake import MAX_BODY, Connection, Pressure
from envctl.telemetry.raw import SIGNALS, RawWriter, Signal, path_of

if TYPE_CHECKING:
    import grpc

GRPC_METHODS: Mapping[str, Signal] = {
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": "traces",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": "metrics",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export": "logs",
}
HTTP_PATHS: Mapping[str, Signal] = {f"/v1/{signal}": signal for signal in SIGNALS}


def well_framed(body: bytes) -> bool:
    """Whether the bytes are a sequence of length-delimited fields number 1, as every OTLP export request is.

    This is the outermost level of the protobuf wire format; an empty request is one too.
    """
    at, end = 0, len(body)
    while at < end:
        if body[at] != 0x0A:
            return False
        at += 1
        size = shift = 0
        while at < end and shift < 35:
            byte = body[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        else:
            return False
        at += size
    return at == end


class Intake:
    """Accepts raw requests of all signals into one directory; the HTTP loop and the gRPC thread share it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._writers = {signal: RawWriter(path_of(directory, signal)) for signal in SIGNALS}
        self._lock = Lock()

    def accept(self, signal: Signal, body: bytes) -> int:
        """Appends a request; 200 when it is in the file, 400 when it is no request, 503 when it couldn't be written."""
        if not well_framed(body):
            return HTTPStatus.BAD_REQUEST
        try:
            with self._lock:
                self._writers[signal].append(body, time.time_ns())
        except OSError as error:
            sys.stderr.write(f"{signal} could not be written: {error}\n")
            return HTTPStatus.SERVICE_UNAVAILABLE
        return HTTPStatus.OK

    def http(self, path: str, body: bytes) -> int:
        """The handler of OTLP/HTTP."""
        signal = HTTP_PATHS.get(path)
        return HTTPStatus.NOT_FOUND if signal is None else self.accept(signal, body)

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()


def grpc_server(intake: Intake, host: str, port: int) -> tuple[grpc.Server, int]:
    """An OTLP/gRPC server (not started) and the port it is bound to.  Raises RuntimeError when the port is taken."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    codes = {
        HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
        HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    }

    def export(signal: Signal) -> Any:
        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            status = HTTPStatus(intake.accept(signal, request))
            if status is not HTTPStatus.OK:
                context.abort(codes[status], status.phrase)
            return b""  # an empty response: everything was accepted

        return grpc.unary_unary_rpc_method_handler(handle)

    class Export(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
            signal = GRPC_METHODS.get(handler_call_details.method)
            return None if signal is None else export(signal)

    options = (("grpc.max_receive_message_length", MAX_BODY), ("grpc.so_reuseport", 0))
    # One thread: requests of all connections are appended one after the other, and what waits stays in flow-controlled sockets.
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Export()], options=options)
    return server, server.add_insecure_port(f"{host}:{port}")


async def serve(directory: Path, host: str, http_port: int, grpc_port: int) -> None:
    """Receives until SIGTERM or SIGINT.  Port 0 takes a free one; `ready HTTP GRPC` is printed with the ports."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    intake, pressure = Intake(directory), Pressure()
    http = await loop.create_server(lambda: Connection(intake.http, pressure), host, http_port, backlog=512)
    server, bound = grpc_server(intake, host, grpc_port)
    server.start()
    sys.stdout.write(f"ready {http.sockets[0].getsockname()[1]} {bound}\n")
    sys.stdout.flush()
    await stop.wait()
    http.close()
    server.stop(grace=1.0).wait()
    intake.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="envctl.telemetry.intake", description="Receives OTLP and keeps it as it is.")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--http-port", type=int, default=4318)
    parser.add_argument("--grpc-port", type=int, default=4317)
    options = parser.parse_args()
    asyncio.run(serve(options.directory, options.host, options.http_port, options.grpc_port))


if __name__ == "__main__":
    main()
