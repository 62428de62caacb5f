"""catalog: what there is to buy, and for how much."""

from typing import Any

from shop_common import db
from shop_common.http import Call, Problem, route, serve

from catalog import cache

PAGE = 20
pool = db.pool()


def page(call: Call) -> dict[str, Any]:
    """Answers GET /products?page=1."""
    number = call.request.query_params.get("page", "1")
    if not number.isdecimal() or not 1 <= int(number) <= 100_000:
        raise Problem(400, "page must be a number from 1")
    with db.transaction(pool, "SELECT product") as connection:
        items = connection.execute(
            "select sku, name, price_cents from product order by sku limit %s offset %s", [PAGE, (int(number) - 1) * PAGE]
        ).fetchall()
    return {"page": int(number), "items": items}


def product(call: Call) -> dict[str, Any]:
    """Answers GET /products/{sku}."""
    sku = call.request.path_params["sku"]
    found = cache.through(f"product:{sku}", lambda: load(sku))
    if found is None:
        raise Problem(404, f"no product {sku}")
    return found


def load(sku: str) -> dict[str, Any] | None:
    """A product as the database has it."""
    with db.transaction(pool, "SELECT product") as connection:
        return connection.execute("select sku, name, price_cents from product where sku = %s", [sku]).fetchone()


def reprice(call: Call) -> dict[str, Any]:
    """Answers PUT /products/{sku} {"price_cents": 1200}."""
    sku, price = call.request.path_params["sku"], call.field("price_cents", int)
    if price < 0:
        raise Problem(422, "price_cents must not be negative")
    with db.transaction(pool, "UPDATE product") as connection:
        changed = connection.execute(
            "update product set price_cents = %s where sku = %s returning sku, name, price_cents", [price, sku]
        ).fetchone()
    cache.invalidate(f"product:{sku}")
    if changed is None:
        raise Problem(404, f"no product {sku}")
    return changed


serve(
    route("GET", "/products", page),
    route("GET", "/products/{sku}", product),
    route("PUT", "/products/{sku}", reprice),
    ready=lambda: db.alive(pool),  # the cache may be gone
)
