"""Reads the streams a scenario observes: topics, tables, answers."""

from __future__ import annotations

import json
import queue
import re
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from envctl import plugins
from envctl.engines.topics import ends_of, messages_of
from envctl.errors import EnvctlError, ResourceError
from envctl.model.event import Observation, Step
from envctl.model.scenario import Measure, Scenario, Stream
from envctl.model.topology import Kafka, Topology
from envctl.record import RecordWriter, pick
from envctl.substrates.base import Reach

READ_S = 20.0  # how long one stream may take to read
LIMITS = "-c statement_timeout=15s -c lock_timeout=5s"  # a query's, kept by the server itself

Rows = Iterable[Mapping[str, Any]]


@dataclass(slots=True)
class Collector:
    """Reads streams into the record, a round at a time."""

    reach: Reach
    topology: Topology
    scenario: Scenario
    bootstrap: str
    record: RecordWriter
    now_ns: Callable[[], int]
    epoch_ns: int  # wall clock at the run's start
    _starts: dict[str, dict[int, int]] = field(default_factory=dict)

    def remember_starts(self, topics: Iterable[str] = ()) -> None:
        """Notes where each topic (and further `topics`) ends before the run, so that only the run's own messages are observed."""
        for topic in dict.fromkeys((*(stream.topic for stream in self.scenario.streams.values() if stream.topic), *topics)):
            self._starts[topic] = ends_of(self.bootstrap, topic)

    def starts_of(self, topic: str) -> Mapping[int, int]:
        """Partition → where the topic ended before the run; of a topic that was noted."""
        return self._starts[topic]

    def round(self) -> None:
        """Reads every stream once; a stream that can't be read says so and the others are read all the same."""
        for stream in self.scenario.streams.values():
            if not stream.operation:
                self._observe(stream)
        self.record.sync()

    def observe(self, stream: Stream, name: str) -> None:
        """Reads one stream under a name of its own."""
        self._observe(replace(stream, name=name))
        self.record.sync()

    def _observe(self, stream: Stream) -> None:
        self.record.write(Step(at_ns=self.now_ns(), name="observe", edge="begin", detail={"stream": stream.name}))
        detail: dict[str, Any] = {"stream": stream.name}
        try:
            for observation in self._read(stream):
                self.record.write(observation)
        except Exception as error:  # noqa: BLE001 — drivers raise their own errors; each makes the stream unread, not the run
            detail["error"] = error.message if isinstance(error, EnvctlError) else f"{type(error).__name__}: {error}"
        self.record.write(Step(at_ns=self.now_ns(), name="observe", edge="end", ok="error" not in detail, detail=detail))

    def _read(self, stream: Stream) -> Iterator[Observation]:
        if stream.topic:
            return self._messages(stream)
        rows = _within(READ_S, self._rows if stream.sql else self._answers, stream)
        source = {"component": stream.component} | ({"database": stream.database} if stream.database else {})
        return (self._observation(stream, row, source, self.now_ns()) for row in rows)

    def _observation(self, stream: Stream, roots: Mapping[str, Any], source: Mapping[str, Any], at_ns: int) -> Observation:
        found = {name: pick(expression, roots) for name, expression in stream.fields.items()}
        return Observation(at_ns=at_ns, stream=stream.name, id=_text(found.get("id")), key=_text(found.get("key")),
                           order=found.get("order"), value=found.get("value"), source=source)

    def _messages(self, stream: Stream) -> Iterator[Observation]:
        for message in messages_of(self.bootstrap, stream.topic, starts=self._starts.get(stream.topic), within_s=READ_S):
            headers = {name: value.decode(errors="replace") for name, value in message.headers() or () if value is not None}
            key = (message.key() or b"").decode(errors="replace")
            roots = {"value": _json(message.value()), "key": key, "headers": headers}
            source = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
            if (trace_id := traced(headers.get("traceparent", ""))) is not None:
                source["trace_id"] = trace_id
            at_ns = message.timestamp()[1] * 1_000_000 - self.epoch_ns
            yield self._observation(stream, roots, source, at_ns)

    def _rows(self, stream: Stream) -> Iterator[Mapping[str, Any]]:
        from psycopg.rows import dict_row

        with connected(self.topology, stream) as connection:
            yield from connection.cursor(row_factory=dict_row).execute(stream.sql.encode())

    def _answers(self, stream: Stream) -> Iterator[Mapping[str, Any]]:
        node = next((n for n in self.reach.environment().nodes_of(stream.component) if n.state == "ready"), None)
        if node is None:
            raise ResourceError(f"no node of {stream.component} is ready")
        port = node.ports.get("http") or next(iter(node.ports.values()))
        with urllib.request.urlopen(f"http://{node.address}:{port}{stream.http}", timeout=10) as answer:
            rows = json.load(answer)
        if not isinstance(rows, list):
            raise ResourceError(f"{stream.component} answered {stream.http} with something that is not a list")
        yield from rows


@contextmanager
def connected(topology: Topology, source: Stream | Measure, *, timeout_s: float | None = None) -> Iterator[Any]:
    """A connection that only reads, to the database of a stream or a measure, whose server keeps each query's time."""
    import psycopg

    component = topology.components[source.component]
    endpoints = plugins.load("envctl.engines", component.kind)().endpoints(component)
    limits = LIMITS if timeout_s is None else f"-c statement_timeout={round(1000 * timeout_s)}"
    wait_s = 5 if timeout_s is None else max(2, round(timeout_s))  # libpq takes less than two for two
    silent_ms = round(1000 * (timeout_s or 0))  # 0: what the system has
    with psycopg.connect(endpoints[f"{source.database}.url"], connect_timeout=wait_s, options=limits, tcp_user_timeout=silent_ms) as connection:
        connection.read_only = True  # not the session: the address asks for one that may write, to find the primary
        yield connection


def _within(seconds: float, read: Callable[[Stream], Rows], stream: Stream) -> list[Mapping[str, Any]]:
    """All rows of a stream.  Raises what reading raises, and ResourceError when it takes too long: its thread is left behind then."""
    found: queue.SimpleQueue[list[Mapping[str, Any]] | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            found.put(list(read(stream)))
        except Exception as error:  # noqa: BLE001 — raised again where it is waited for
            found.put(error)

    threading.Thread(target=work, name=f"observe {stream.name}", daemon=True).start()
    try:
        rows = found.get(timeout=seconds)
    except queue.Empty:
        raise ResourceError(f"{stream.component} did not answer within {seconds:g} s") from None
    if isinstance(rows, Exception):
        raise rows
    return rows


def traced(traceparent: str) -> str | None:
    """The trace id of a W3C `traceparent` header; None where it is missing or not one (a service under test may send anything)."""
    found = re.fullmatch(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*", traceparent)
    return found[1] if found else None


def bootstrap_of(topology: Topology, selected: tuple[str, ...]) -> str:
    """Bootstrap servers of the environment's Kafka, as seen from inside; empty without one."""
    for component in topology.components.values():
        if isinstance(component, Kafka) and component.name in selected:
            return str(plugins.load("envctl.engines", "kafka")().endpoints(component)["bootstrap"])
    return ""


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _json(value: bytes | None) -> Any:
    try:
        return json.loads(value or b"null")
    except ValueError:
        return (value or b"").decode(errors="replace")
