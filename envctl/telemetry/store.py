"""Raw OTLP requests as a SQLite file: spans, links and metric points, each once.

Flattening streams (memory does not grow with the record) and drops what exporters sent twice: a span is its (trace, span).
`docs/record.md` describes the tables.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

from envctl.telemetry import raw

FILE = "telemetry.sqlite"
FORM = 1  # raise it when the tables become different; an older file is made again
KINDS = ("unset", "internal", "server", "client", "producer", "consumer")  # OTLP's numbers
_BATCH = 2000
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # made once: making one costs more than using it
_SCHEMA = """
create table spans (
  trace_id text, span_id text, parent_id text, name text, kind text, service text, node text,
  start_ns integer, end_ns integer, error integer, message text, attrs text, local integer, primary key (trace_id, span_id)) without rowid;
create table links (trace_id text, span_id text, to_trace text, to_span text, primary key (trace_id, span_id, to_trace, to_span))
  without rowid;
create table points (
  metric text, service text, node text, start_ns integer, time_ns integer, value real, count integer, attrs text,
  primary key (metric, node, service, attrs, start_ns, time_ns)) without rowid;
create table meta (name text primary key, value integer);
"""


@dataclass(frozen=True, slots=True)
class Flattened:
    """What flattening found.  `undecodable` requests and what can't be told apart make trace findings uncertain."""

    spans_received: int  # with repetitions
    spans: int  # stored
    points: int
    undecodable: int


def flatten(directory: Path) -> Flattened:
    """Makes `telemetry.sqlite` of a telemetry directory from its raw files, whole or not at all."""
    target = directory / FILE
    temporary = target.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    base = sqlite3.connect(temporary, isolation_level=None)
    try:
        base.executescript(f"pragma journal_mode = off; pragma synchronous = off; pragma user_version = {FORM}; {_SCHEMA}")
        base.execute("begin")
        counter = _Counter()
        _insert(base, "insert or ignore into spans values (?,?,?,?,?,?,?,?,?,?,?,?,?)", _span_rows(directory, counter))
        _insert(base, "insert or ignore into links values (?,?,?,?)", _link_rows(directory))
        _insert(base, "insert or ignore into points values (?,?,?,?,?,?,?,?)", _point_rows(directory, counter))
        found = Flattened(counter.spans, _count(base, "spans"), _count(base, "points"), counter.undecodable)
        meta = {"spans_received": found.spans_received, "undecodable": found.undecodable, "begin_ns": _begin_ns(directory)}
        base.executemany("insert into meta values (?, ?)", meta.items())
        base.execute("create index by_start on spans (start_ns)")
        base.execute("create index by_target on links (to_trace, to_span)")
        base.execute("commit")
    finally:
        base.close()
    temporary.replace(target)
    return found


def _begin_ns(directory: Path) -> int:
    """When the first request was received, Unix ns; 0 without any."""
    firsts = (next(raw.read(raw.path_of(directory, signal)), None) for signal in raw.SIGNALS)
    return min((first[0] for first in firsts if first), default=0)


class _Counter:
    spans = 0
    undecodable = 0


def _count(base: sqlite3.Connection, table: str) -> int:
    count: int = base.execute(f"select count(*) from {table}").fetchone()[0]  # noqa: S608  (a name of ours)
    return count


def _insert(base: sqlite3.Connection, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    rows = iter(rows)
    while batch := list(islice(rows, _BATCH)):
        base.executemany(statement, batch)


def _requests(path: Path, kind: Any, counter: _Counter, start: int = 0) -> Iterator[Any]:
    from google.protobuf.message import DecodeError

    for _, body in raw.read(path, start):
        try:
            yield kind.FromString(body)
        except DecodeError:
            counter.undecodable += 1


def _span_rows(directory: Path, counter: _Counter) -> Iterator[tuple[Any, ...]]:
    for service, node, span in _spans(directory, counter):
        counter.spans += 1
        yield (
            span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.name, KINDS[min(span.kind, 5)], service, node,
            span.start_time_unix_nano, span.end_time_unix_nano, int(span.status.code == 2), span.status.message,
            _encode(_attributes(span.attributes)), int(span.flags & _KNOWN == _LOCAL),
        )


def _link_rows(directory: Path) -> Iterator[tuple[str, str, str, str]]:
    for _, _, span in _spans(directory, _Counter()):
        for link in span.links:
            yield span.trace_id.hex(), span.span_id.hex(), link.trace_id.hex(), link.span_id.hex()


def handled(directory: Path, group: str, *, start: int, since_ns: int) -> set[tuple[str, str, int]]:
    """(topic, partition, offset) of messages that a consumer group has processed, by its spans without an error.

    Of those whose requests stand from the position `start` on in the raw file, and that began after `since_ns` (Unix ns).
    """
    found = set()
    for _, _, span in _spans(directory, _Counter(), start):
        if KINDS[min(span.kind, 5)] == "consumer" and span.status.code != 2 and span.start_time_unix_nano > since_ns:
            attrs = _attributes(span.attributes)
            if attrs.get("messaging.consumer.group.name") == group and isinstance(offset := attrs.get("messaging.kafka.offset"), int):
                found.add((str(attrs.get("messaging.destination.name")), str(attrs.get("messaging.destination.partition.id")), offset))
    return found


def _spans(directory: Path, counter: _Counter, start: int = 0) -> Iterator[tuple[str, str, Any]]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    for request in _requests(raw.path_of(directory, "traces"), ExportTraceServiceRequest, counter, start):
        for resource in request.resource_spans:
            service, node = _who(resource.resource)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    yield service, node, span


def _point_rows(directory: Path, counter: _Counter) -> Iterator[tuple[Any, ...]]:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    for request in _requests(raw.path_of(directory, "metrics"), ExportMetricsServiceRequest, counter):
        for resource in request.resource_metrics:
            service, node = _who(resource.resource)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    shape = metric.WhichOneof("data")
                    for point in getattr(metric, shape).data_points if shape else ():
                        attrs = _encode(dict(sorted(_attributes(point.attributes).items())))
                        value, count = _measured(shape, point)
                        yield metric.name, service, node, point.start_time_unix_nano, point.time_unix_nano, value, count, attrs


def _measured(shape: str, point: Any) -> tuple[float, int]:
    """(value, count): a number and 1, or a histogram's sum and how many values it has."""
    if shape in ("gauge", "sum"):
        return float(point.as_int if point.WhichOneof("value") == "as_int" else point.as_double), 1
    return float(point.sum), int(point.count)


def _who(resource: Any) -> tuple[str, str]:
    attributes = _attributes(resource.attributes)
    service = str(attributes.get("service.name", "unknown"))
    node = attributes.get("service.instance.id") or attributes.get("host.name") or service
    return service, str(node)


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: pair.value.string_value or _value(pair.value) for pair in pairs}  # most are texts: the short way


_KNOWN, _LOCAL = 0x300, 0x100  # OTLP's SpanFlags: the SDK says whether the parent is remote, and it is not
_PLAIN = frozenset({"string_value", "int_value", "double_value", "bool_value"})


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    inner = getattr(value, kind)
    if kind in _PLAIN:
        return inner
    if kind == "array_value":
        return [_value(one) for one in inner.values]
    if kind == "kvlist_value":
        return _attributes(inner.values)
    return inner.hex() if kind == "bytes_value" else inner


@dataclass(frozen=True, slots=True)
class Span:
    """One span as it was exported.  Times are Unix nanoseconds of the service's clock."""

    trace_id: str
    span_id: str
    parent_id: str  # empty: a root
    name: str
    kind: str  # one of KINDS
    service: str
    node: str
    start_ns: int
    end_ns: int
    error: bool
    message: str
    attrs: Mapping[str, Any]
    local: bool = False  # its parent, if any, is a span of the same process, as its SDK says


_COLUMNS = "s.trace_id, s.span_id, s.parent_id, s.name, s.kind, s.service, s.node, s.start_ns, s.end_ns, s.error, s.message, s.attrs, s.local"


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a metric; a histogram's `value` is its sum and `count` how many values it has."""

    metric: str
    service: str
    node: str
    start_ns: int
    time_ns: int
    value: float
    count: int
    attrs: Mapping[str, Any]


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)


class Spans:
    """Reads a flattened store; opened read-only, so that a record that is judged again stays as it is; made again where an older version made it."""

    def __init__(self, path: Path) -> None:
        """`path` is a `telemetry.sqlite` or the directory that holds one.  Raises FileNotFoundError."""
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(path)
        self._base = _opened(path)
        if self._base.execute("pragma user_version").fetchone()[0] < FORM:
            self._base.close()
            flatten(path.parent)
            self._base = _opened(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._base.close()

    def query(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Rows of a query of our own over the tables (`docs/record.md`)."""
        return self._base.execute(sql, values)

    def spans(self, where: str = "1", *values: object) -> Iterator[Span]:
        """Spans by their start; `where` is SQL over the columns, spans being `s`."""
        for row in self.query(f"select {_COLUMNS} from spans s where {where} order by s.start_ns", *values):  # noqa: S608
            values_by_name = dict(zip(Span.__slots__, row, strict=True))
            yield Span(**values_by_name | {"error": bool(row[9]), "attrs": json.loads(row[11]), "local": bool(row[12])})

    def trace(self, trace_id: str) -> tuple[Span, ...]:
        """All spans of a trace, by their start."""
        return tuple(self.spans("s.trace_id = ?", trace_id))

    def processing(self, topic: str, partition: int | str, offset: int) -> tuple[Span, ...]:
        """The spans that processed one message."""
        return tuple(self.spans(
            "s.kind = 'consumer' and json_extract(s.attrs, '$.\"messaging.destination.name\"') = ?"
            " and json_extract(s.attrs, '$.\"messaging.destination.partition.id\"') = ?"
            " and json_extract(s.attrs, '$.\"messaging.kafka.offset\"') = ?", topic, str(partition), offset,
        ))

    def points(self, metric: str) -> Iterator[Point]:
        """All points of a metric, by time."""
        sql = "select metric, service, node, start_ns, time_ns, value, count, attrs from points where metric = ? order by time_ns"
        for row in self.query(sql, metric):
            yield Point(**dict(zip(Point.__slots__, row, strict=True)) | {"attrs": json.loads(row[7])})

    def meta(self, name: str) -> int:
        """What flattening noted: `spans_received`, `undecodable`, `begin_ns` (the first request, Unix ns)."""
        row = self._base.execute("select value from meta where name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0
