"""Cache-aside in Redis.  The cache may be slow or gone: then everything works without it."""

import json
import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any

import redis
from opentelemetry.trace import SpanKind
from shop_common import telemetry

TTL_S = 30  # bounds how long an entry is stale whose invalidation was lost with the cache
BLOCKED_S = 5  # longer than any transaction lasts: see `invalidate`
REST_S = 1.0  # how long a cache that failed is left alone
client = redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=0.1, socket_connect_timeout=0.1, max_connections=40)
lookups = telemetry.meter.create_counter("shop.cache.lookups")
log = logging.getLogger("shop")
_resting_until = 0.0


def through(key: str, load: Callable[[], Any]) -> Any:
    """The cached value, or the loaded one, which is then cached (not when it is None)."""
    found = _try("GET", lambda: client.get(key))
    lookups.add(1, {"hit": bool(found)})
    if found:
        return json.loads(found)
    value = load()
    if value is not None:
        ttl = round(TTL_S * random.uniform(0.8, 1.0))  # not all at once
        _try("SET", lambda: client.set(key, json.dumps(value), ex=ttl, nx=True))
    return value


def invalidate(key: str) -> None:
    """Call it after the change is committed.

    The empty entry counts as a miss, and for a while keeps out readers that loaded the old value before the commit.
    """
    _try("SET", lambda: client.set(key, "", ex=BLOCKED_S))


def _try(operation: str, action: Callable[[], Any]) -> Any:
    global _resting_until  # noqa: PLW0603
    if time.monotonic() < _resting_until:
        return None
    with telemetry.span(operation, SpanKind.CLIENT, {"db.system.name": "redis", "db.operation.name": operation}) as span:
        try:
            return action()
        except redis.RedisError as error:
            telemetry.failed(span, type(error).__name__)
            log.warning("cache: %s", error)
            _resting_until = time.monotonic() + REST_S
            return None
