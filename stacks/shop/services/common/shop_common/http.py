"""HTTP: a small server around plain functions."""

import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shop_common import retry, telemetry

Worker = Callable[[threading.Event], None]  # works until the event is set
active = telemetry.meter.create_up_down_counter("http.server.active_requests")
duration = telemetry.meter.create_histogram("http.server.request.duration", "s")
log = logging.getLogger("shop")


class Problem(Exception):  # noqa: N818 (it is an answer)
    """An answer that is not a success.  503 says that the caller may try again."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True)
class Call:
    """One request, read completely."""

    request: Request
    body: Any = None

    def field(self, name: str, kind: type) -> Any:
        """A required field of the body.  Raises Problem when it is missing or of another type."""
        value = self.body.get(name) if isinstance(self.body, dict) else None
        if type(value) is not kind:
            raise Problem(422, f"{name} must be of type {kind.__name__}")
        return value


def route(method: str, path: str, handler: Callable[[Call], Any]) -> Route:
    """A traced endpoint.  `handler` runs in a thread and returns what is answered as JSON, or (status, that)."""

    async def endpoint(request: Request) -> JSONResponse:
        labels = {"http.request.method": method, "http.route": path}
        active.add(1, labels)
        try:
            parent = telemetry.extract(request.headers)
            with telemetry.timed(duration, labels), telemetry.span(f"{method} {path}", SpanKind.SERVER, labels, parent) as span:
                status, answer = await answer_to(request, handler)
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    telemetry.failed(span, str(status))
                return JSONResponse(answer, status)
        finally:
            active.add(-1, labels)

    return Route(path, endpoint, methods=[method])


async def answer_to(request: Request, handler: Callable[[Call], Any]) -> tuple[int, Any]:
    """Status and body; what can't work now is a 503, so that callers know that they may try again."""
    try:
        body = await request.json() if await request.body() else None
    except ValueError:
        return 400, {"detail": "the body is not JSON"}
    try:
        answer = await run_in_threadpool(handler, Call(request, body))
    except Problem as problem:
        return problem.status, {"detail": str(problem)}
    except ConnectionError as error:
        log.warning("%s %s: %s", request.method, request.url.path, error)
        return 503, {"detail": "try again"}
    return answer if isinstance(answer, tuple) else (200, answer)


def serve(*routes: Route, ready: Callable[[], bool], workers: Sequence[Worker] = ()) -> None:
    """Serves until SIGTERM; then stops accepting, answers what is open, lets the workers finish, and exports the rest."""

    async def readiness(_: Request) -> JSONResponse:
        works = await run_in_threadpool(ready)
        return JSONResponse({"ready": works}, 200 if works else 503)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        stop = threading.Event()
        threads = [threading.Thread(target=keep_working, args=(worker, stop), daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        yield
        stop.set()
        for thread in threads:
            thread.join(timeout=3)
        telemetry.stop()

    telemetry.start()
    app = Starlette(routes=[*routes, Route("/ready", readiness)], lifespan=lifespan)
    uvicorn.run(
        app, host="0.0.0.0", port=int(os.environ.get("PORT", "8080")), http="httptools", ws="none", log_level="warning",
        access_log=False, timeout_keep_alive=30, timeout_graceful_shutdown=3,
    )


def keep_working(worker: Worker, stop: threading.Event) -> None:
    """Runs a worker until `stop`; one that fails starts again after a growing wait.  Its work is safe to repeat."""
    failures = 0
    while not stop.is_set():
        try:
            worker(stop)
            failures = 0
        except Exception:
            log.exception("worker %s failed and starts again", getattr(worker, "__name__", worker))
            failures = min(failures + 1, 6)
            stop.wait(retry.delay(failures, base_s=0.1, cap_s=5))
