"""An HTTP client with time limits and retries."""

from typing import Any

import httpx
from opentelemetry.trace import SpanKind

from shop_common import retry, telemetry


class Client:
    """Calls another service.  What is safe to repeat is repeated inside the budget: GET, or with an Idempotency-Key."""

    def __init__(self, base_url: str, timeout_s: float = 1.0, budget_s: float = 3.0) -> None:
        self._client = httpx.Client(base_url=base_url, timeout=timeout_s, limits=httpx.Limits(max_connections=40))
        self._budget_s = budget_s

    def call(self, method: str, path: str, route: str, body: Any = None, headers: dict[str, str] | None = None) -> httpx.Response:
        """The answer.  Raises ConnectionError when there is none, or when it says that the service can't work now."""
        repeatable = method == "GET" or "Idempotency-Key" in (headers or {})

        def attempt(count: int) -> httpx.Response:
            attributes = {"http.request.method": method, "url.template": route, "server.address": self._client.base_url.host}
            if count:
                attributes["http.request.resend_count"] = count
            with telemetry.span(f"{method} {route}", SpanKind.CLIENT, attributes) as span:
                try:
                    answer = self._client.request(method, path, json=body, headers={**(headers or {}), **telemetry.inject()})
                except httpx.TransportError as error:
                    raise ConnectionError(f"{method} {self._client.base_url}{path}: {error!r}") from error
                span.set_attribute("http.response.status_code", answer.status_code)
                if answer.status_code in (502, 503, 504):
                    raise ConnectionError(f"{method} {self._client.base_url}{path}: status {answer.status_code}")
                if answer.status_code >= 400:
                    telemetry.failed(span, str(answer.status_code))
                return answer

        return retry.call(attempt, lambda error: repeatable and isinstance(error, ConnectionError), self._budget_s)
