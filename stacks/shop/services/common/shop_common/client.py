"""An HTTP client with time limits and retries."""

from typing import Any

import urllib3
from opentelemetry.trace import SpanKind
from urllib3 import BaseHTTPResponse

from shop_common import retry, telemetry


class Client:
    """Calls another service.  What is safe to repeat is repeated inside the budget: GET, or with an Idempotency-Key."""

    def __init__(self, base_url: str, timeout_s: float = 2.0, budget_s: float = 3.0) -> None:
        self._pool = urllib3.connection_from_url(base_url, maxsize=40, retries=False, timeout=timeout_s)
        self._budget_s, self._allowance = budget_s, retry.Allowance()

    def call(self, method: str, path: str, route: str, body: Any = None, headers: dict[str, str] | None = None) -> BaseHTTPResponse:
        """The answer.  Raises ConnectionError when there is none, or when it says that the service can't work now."""
        kept = headers or {}
        repeatable = method == "GET" or "Idempotency-Key" in kept

        def attempt(count: int) -> BaseHTTPResponse:
            attributes = {"http.request.method": method, "url.template": route, "server.address": self._pool.host}
            if count:
                attributes["http.request.resend_count"] = count
            with telemetry.span(f"{method} {route}", SpanKind.CLIENT, attributes) as span:
                try:
                    answer = self._pool.request(method, path, json=body, headers={**kept, **telemetry.inject()})
                except urllib3.exceptions.HTTPError as error:
                    raise ConnectionError(f"{method} {path}: {error}") from error
                span.set_attribute("http.response.status_code", answer.status)
                if answer.status in (502, 503, 504):
                    raise ConnectionError(f"{method} {path}: status {answer.status}")
                if answer.status >= 400:
                    telemetry.failed(span, str(answer.status))
                return answer

        return retry.call(
            attempt, lambda error: repeatable and isinstance(error, ConnectionError), self._budget_s, allowance=self._allowance
        )
