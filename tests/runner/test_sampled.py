"""Conditions that are made of samples: depth, saturation, declared measures, and when they are unknown."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from envctl.errors import ResourceError
from envctl.model.environment import Node
from envctl.model.event import Sample
from envctl.model.scenario import Measure
from envctl.model.topology import Resources, Service, Topology
from envctl.runner.live import Live
from envctl.runner.measuring import MeasureSampler
from envctl.runner.sampled import Newest, capacity_of
from envctl.spec.conditions import parse_condition
from envctl.substrates.base import Completed

S = 1_000_000_000
TOPOLOGY = Topology("t", Path("t.yaml"), (), {"web": Service(name="web", resources=Resources(cpus=0.5, memory_bytes=1000))})


def seen(*samples: tuple[str, float | None, dict[str, Any]], at_s: float = 1) -> Live:
    live = Live(lambda: round(at_s * S), newest=Newest(capacity_of(TOPOLOGY)))
    for measure, value, attrs in samples:
        live.sample(Sample(at_ns=S, measure=measure, value=value, attrs=attrs))
    return live


def lag(group: str, partition: int, value: float | None) -> tuple[str, float | None, dict[str, Any]]:
    return "kafka.consumer_group.lag", value, {"group": group, "topic": "orders.retry", "partition": partition}


def depth(value: float | None) -> tuple[str, float | None, dict[str, Any]]:
    return "kafka.topic.depth", value, {"topic": "dead", "partition": 0}


def use(measure: str, node: str, value: float | None) -> tuple[str, float | None, dict[str, Any]]:
    return measure, value, {"node": node}


@pytest.mark.parametrize(("text", "samples", "value"), [
    ("depth(orders.retry) < 5", [lag("a", 0, 2), lag("a", 1, 3), lag("b", 0, 1), lag("b", 1, 1)], 5),
    ("depth(orders.retry) < 5", [lag("a", 0, 2), lag("b", 0, None)], None),
    ("depth(dead) < 5", [depth(7), lag("a", 0, 2)], 7),
    ("depth(dead) < 5", [], None),
    ("cpu(web) < 90 %", [use("process.cpu", "web-0", 0.1), use("process.cpu", "web-1", 0.4), use("process.cpu", "other-0", 5)], 0.8),
    ("cpu(web-0) < 90 %", [use("process.cpu", "web-0", 0.1), use("process.cpu", "web-1", 0.4)], 0.2),
    ("cpu(web) < 90 %", [use("process.cpu", "web-0", 0.1), use("process.cpu", "web-1", None)], None),
    ("memory(web) < 90 %", [use("process.memory", "web-0", 250)], 0.25),
    ("connections(db) < 90 %", [use("postgres.connections_used", "db-0", 0.3), use("postgres.connections_used", "db-1", 0.1)], 0.3),
    ("value(queue) < 5", [("value", 4, {"name": "queue"}), ("value", 9, {"name": "other"})], 4),
])
def test_measures_are_made_of_the_newest_samples(text: str, samples: list[Any], value: float | None) -> None:
    assert seen(*samples).value(parse_condition(text)) == (value if value is None else pytest.approx(value))


def test_a_sample_that_is_too_old_or_from_before_the_healing_says_nothing() -> None:
    sample = ("value", 4, {"name": "queue"})
    condition = parse_condition("value(queue) < 5")
    assert seen(sample, at_s=10).meets(condition) is True
    assert seen(sample, at_s=12).meets(condition) is None
    assert seen(sample, at_s=10).meets(condition, since_ns=2 * S) is None
    assert seen(lag("a", 0, 2), at_s=12).meets(parse_condition("lag(a) < 5")) is None


class Web(BaseHTTPRequestHandler):
    """Answers by what it is asked."""

    def do_GET(self) -> None:
        body = b'{"queue": {"depth": 7}, "word": "many"}'
        self.send_response(503 if self.path == "/broken" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for byte in body:
            self.wfile.write(bytes([byte]))
            if self.path == "/dribbles":
                self.wfile.flush()
                threading.Event().wait(0.05)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def reach() -> Iterator[Any]:
    """A node that listens on the loopback, and runs commands."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        node = Node("web-0", "web", "service", "a", "127.0.0.1", "ready", 1, 0.0, 1, None, {"http": server.server_port})
        outputs = {"seven": Completed(0, "7\n", ""), "fails": Completed(3, "7", "no disk"), "words": Completed(0, "a lot", "")}
        yield SimpleNamespace(environment=lambda: SimpleNamespace(nodes=(node,)), run=lambda _node, argv, timeout_s: outputs[argv[0]])  # noqa: ARG005
        server.shutdown()


def asked(reach: Any, **fields: Any) -> float | None:
    (reading,) = MeasureSampler(Measure("m", **{"component": "web", "timeout_s": 0.5, **fields}), reach, TOPOLOGY).sample()
    return reading.value


@pytest.mark.parametrize(("fields", "value"), [
    ({"http": "/", "take": "response.queue.depth"}, 7), ({"http": "/", "take": "response.status"}, 200), ({"http": "/broken", "take": "response.status"}, 503),
    ({"command": ("seven",), "take": "stdout"}, 7), ({"command": ("fails",), "take": "status"}, 3),
])
def test_a_declared_measure_is_one_number(reach: Any, fields: dict[str, Any], value: float) -> None:
    assert asked(reach, **fields) == value
    assert 0 < (asked(reach, http="/", take="latency") or 0) < 0.5


@pytest.mark.parametrize("fields", [
    {"http": "/broken", "take": "latency"}, {"http": "/", "take": "response.queue.missing"}, {"http": "/", "take": "response.word"},
    {"command": ("fails",), "take": "stdout"}, {"command": ("words",), "take": "stdout"}, {"http": "/dribbles", "take": "response.status"},
    {"component": "nobody", "http": "/", "take": "response.status"},
])
def test_one_that_is_no_number_or_not_in_time_is_unknown(reach: Any, fields: dict[str, Any]) -> None:
    with pytest.raises((ResourceError, ValueError, TimeoutError)):
        asked(reach, **fields)
    (reading,) = MeasureSampler(Measure("m", component="web"), reach, TOPOLOGY).unknown()
    assert (reading.value, reading.attrs) == (None, {"name": "m"})
