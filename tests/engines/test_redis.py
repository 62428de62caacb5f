from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from envctl.engines.base import Site
from envctl.engines.redis import RedisEngine
from envctl.model.topology import Redis


@pytest.mark.engines
@pytest.mark.cell
def test_redis_answers_with_the_settings_of_the_topology(cell: Any, site: Callable[..., Site]) -> None:
    redis = Redis(name="cache", version="7", settings={"maxmemory": "32mb"})
    cell.up(RedisEngine().realise(redis, site(redis)))
    text = (
        "import socket; s = socket.create_connection(('cache', 6379)); f = s.makefile('rb')\n"
        "s.sendall(b'set a 1\\r\\nget a\\r\\nconfig get maxmemory\\r\\n'); print(b''.join(f.readline() for _ in range(8)))"
    )
    assert cell.python(text) == r"b'+OK\r\n$1\r\n1\r\n*2\r\n$9\r\nmaxmemory\r\n$8\r\n33554432\r\n'"
