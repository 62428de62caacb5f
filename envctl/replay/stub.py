"""Stands in for a service that is left out: `python -m envctl.replay.stub --examples FILE [--http PORT] [--grpc PORT]`.

It answers from declared examples and invents nothing: a request that no example covers gets 501 or UNIMPLEMENTED, with the
request in the message, and is counted.  `/ready` and the gRPC health service say that it serves.  Counts go to stdout
as JSON lines, at most once a second and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envctl.errors import EnvctlError, UsageError
from envctl.replay.failing import Failing
from envctl.replay.grpcjson import Method, compile_protos
from envctl.replay.matching import answer, covers, path_values
from envctl.spec.examples import Examples, load_examples

if TYPE_CHECKING:
    import grpc.aio
    from aiohttp import web

HEALTH = "grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}, from the gRPC health checking protocol


class Stub:
    """Answers, and counts what was and what wasn't covered."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self.counts: Counter[str] = Counter()
        self.failing = Failing()
        self.methods: dict[str, Method] = compile_protos([examples.proto]) if examples.proto else {}
        self._wires = [(one, self._response(one.method, one.response)) for one in examples.grpc]

    def _response(self, name: str, response: Any) -> bytes:
        method = self.methods.get(name)
        if method is None:
            raise UsageError(f"{self.examples.proto} declares no unary method {name}")
        return method.encode(method.response, response)

    async def http(self, request: web.Request) -> web.Response:
        """The answer to an HTTP request."""
        from aiohttp import web

        if request.path == "/ready":
            return web.json_response({"ready": True, "stub": True})
        if how := self.failing.draw():
            return await self.failing.http(how)
        text = await request.text()
        body = _parsed(text)
        for example in self.examples.http:
            if example.method == request.method and (example.body is None or covers(example.body, body)):
                values = path_values(example.path, request.path_qs)
                if values is not None:
                    self.counts[f"{example.method} {example.path}"] += 1
                    return _response(example.status, example.headers, answer(example, values))
        self.counts["unmatched"] += 1
        message = f"no example covers {request.method} {request.path_qs} {text[:500]}".rstrip()
        log({"unmatched": message})
        return web.json_response({"error": message, "stub": True}, status=501)

    async def grpc(self, name: str, wire: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        """The answer to a call."""
        import grpc

        if name == HEALTH:
            return SERVING
        if how := self.failing.draw():
            return await self.failing.grpc(how, context)
        method = self.methods.get(name)
        request = method.decode(method.request, wire) if method else {}
        for example, response in self._wires:
            if example.method == name and covers(example.request, request):
                self.counts[name] += 1
                return response
        self.counts["unmatched"] += 1
        message = f"no example covers {name} {json.dumps(request)[:500]}"
        log({"unmatched": message})
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, message)
        raise AssertionError("abort raises")


def log(event: dict[str, Any]) -> None:
    """One JSON line."""
    sys.stdout.write(json.dumps({"stub": event}) + "\n")
    sys.stdout.flush()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def _response(status: int, headers: Any, body: Any) -> web.Response:
    from aiohttp import web

    if body is None or isinstance(body, str):
        return web.Response(status=status, headers=headers, text=body)
    return web.json_response(body, status=status, headers=headers)


async def _serve_http(stub: Stub, port: int) -> web.AppRunner:
    from aiohttp import web

    runner = web.AppRunner(app := web.Application(), access_log=None)
    app.router.add_route("*", "/{path:.*}", stub.http)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()
    return runner


async def _serve_grpc(stub: Stub, port: int) -> grpc.aio.Server:
    import grpc.aio

    class Calls(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
            name = str(handler_call_details.method).lstrip("/")

            async def handle(wire: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
                return await stub.grpc(name, wire, context)

            return grpc.unary_unary_rpc_method_handler(handle)

    server = grpc.aio.server(handlers=(Calls(),))
    server.add_insecure_port(f"0.0.0.0:{port}")
    await server.start()
    return server


async def serve(stub: Stub, http_port: int | None, grpc_port: int | None) -> None:
    """Answers until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    http = await _serve_http(stub, http_port) if http_port is not None else None
    grpc = await _serve_grpc(stub, grpc_port) if grpc_port is not None else None
    told_to_fail = await stub.failing.serve()
    log({"serves": {"http": http_port, "grpc": grpc_port}})
    told: dict[str, int] = {}
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)
        if stub.counts != told:
            told = dict(stub.counts)
            log({"counts": told})
    told_to_fail.close()
    if grpc is not None:
        await grpc.stop(1.0)
    if http is not None:
        await http.cleanup()


def main() -> int:
    """The command line; errors go to stderr with their exit code."""
    parser = argparse.ArgumentParser(prog="envctl.replay.stub", description="Answers from declared examples.")
    parser.add_argument("--examples", type=Path, required=True)
    parser.add_argument("--http", type=int)
    parser.add_argument("--grpc", type=int)
    options = parser.parse_args()
    try:
        asyncio.run(serve(Stub(load_examples(options.examples)), options.http, options.grpc))
    except EnvctlError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
