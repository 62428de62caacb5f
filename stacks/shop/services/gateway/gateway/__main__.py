"""gateway: the only door.  Passes requests on to the service that knows, and repeats what is safe to repeat."""

import os
from typing import Any

from shop_common.client import Client
from shop_common.http import Call, Problem, route, serve

catalog = Client(os.environ["CATALOG_URL"])
orders = Client(os.environ["ORDERS_URL"])
reporting = Client(os.environ["REPORTING_URL"])


def passed_on(to: Client, method: str, path: str) -> Any:
    """A handler that asks the same of another service."""

    def handler(call: Call) -> tuple[int, Any]:
        url = call.request.url
        kept = {"Idempotency-Key": call.request.headers["idempotency-key"]} if "idempotency-key" in call.request.headers else {}
        answer = to.call(method, f"{url.path}?{url.query}".rstrip("?"), path, call.body, kept)
        try:
            return answer.status, answer.json()
        except ValueError:
            raise Problem(502, "the answer is not JSON") from None

    return route(method, path, handler)


serve(
    passed_on(catalog, "GET", "/products"),
    passed_on(catalog, "GET", "/products/{sku}"),
    passed_on(orders, "POST", "/orders"),
    passed_on(orders, "GET", "/orders/{id}"),
    passed_on(reporting, "GET", "/customers/{customer}/orders"),
    ready=lambda: True,  # it holds nothing; what is behind it may come and go
)
