from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from envctl.model.environment import Node
from envctl.model.event import Step
from envctl.model.scenario import Scenario, Stream, Traffic
from envctl.model.topology import Topology
from envctl.runner import collect
from envctl.runner.collect import Collector, traced

ROWS = Stream("rows", sql="select 1", component="db", database="d", fields={"id": "id"})
LISTED = Stream("listed", http="/orders", component="web", fields={"id": "id"})


@contextmanager
def listening(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """A port whose connections are given to `serve`, one after the other."""

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                try:
                    serve(connection)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def round_of(stream: Stream, port: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What one round of collecting writes."""
    events: list[Any] = []
    node = Node("web-0", "web", "service", "a", "127.0.0.1", "ready", 1, 0.0, 1, None, {"http": port})
    environment = SimpleNamespace(nodes_of=lambda _: [node])
    engine = SimpleNamespace(endpoints=lambda _: {"d.url": f"postgresql://u:p@127.0.0.1:{port}/d?target_session_attrs=read-write"})
    monkeypatch.setattr(collect.plugins, "load", lambda *_: lambda: engine)
    topology = Topology("t", Path("t.yaml"), (), {"db": SimpleNamespace(kind="postgres")})  # type: ignore[dict-item]
    scenario = Scenario("s", Path("s.yaml"), Traffic(Path("t"), "web", None, None), streams={stream.name: stream})
    record = SimpleNamespace(write=events.append, sync=lambda: None)
    reach: Any = SimpleNamespace(environment=lambda: environment)
    Collector(reach, topology, scenario, "", record, lambda: 7, 0).round()  # type: ignore[arg-type]
    return events


def dribble(connection: socket.socket) -> None:
    """An answer that never pauses, and doesn't end in the time it has."""
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n[")
    for _ in range(50):
        threading.Event().wait(0.02)
        connection.sendall(b" ")


def hang(connection: socket.socket) -> None:
    """A server that takes a connection and says nothing, as a stopped process does."""
    connection.recv(4096)
    threading.Event().wait(1)


@pytest.mark.parametrize(("stream", "serve"), [(LISTED, dribble), (LISTED, hang), (ROWS, hang)])
def test_a_source_that_never_ends_its_answer_makes_its_stream_unread(stream: Stream, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "READ_S", 0.3)
    with listening(serve) as port:
        events = round_of(stream, port, monkeypatch)
    assert isinstance(events[-1], Step)
    assert (events[-1].ok, events[-1].detail["error"]) == (False, f"{stream.component} did not answer within 0.3 s")


def test_the_answer_of_a_component_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n" + b'[{"id": 1}, {"id": 2}]'
    with listening(lambda connection: connection.recv(4096) and connection.sendall(answer)) as port:
        events = round_of(LISTED, port, monkeypatch)
    assert [event.id for event in events[1:-1]] == ["1", "2"]
    assert events[-1].ok


def test_a_query_asks_the_server_for_its_limits_and_may_write_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bytes] = []

    def handshake(connection: socket.socket) -> None:
        connection.recv(4096)  # may it be TLS?
        connection.sendall(b"N")
        said.append(connection.recv(4096))
        settings = b"".join(b"S" + (len(text) + 4).to_bytes(4, "big") + text for text in (
            b"server_version\x0018\x00", b"client_encoding\x00UTF8\x00", b"default_transaction_read_only\x00off\x00", b"in_hot_standby\x00off\x00"))
        connection.sendall(b"R\x00\x00\x00\x08\x00\x00\x00\x00" + settings + b"Z\x00\x00\x00\x05I")  # welcome; ready
        said.append(connection.recv(4096))

    with listening(handshake) as port:
        assert not round_of(ROWS, port, monkeypatch)[-1].ok
    assert b"options\x00-c statement_timeout=15s -c lock_timeout=5s\x00" in said[0]
    assert b"default_transaction_read_only" not in said[0]  # libpq would refuse such a session where one that may write is asked for
    assert said[1].startswith(b"Q")
    assert b"BEGIN READ ONLY" in said[1]


def test_a_message_is_traced_by_its_traceparent() -> None:
    assert traced("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("header", ["", "none", "00", "00-0af7-b7ad6b7169203331-01", "00-" + "g" * 32 + "-b7ad6b7169203331-01"])
def test_a_malformed_traceparent_is_none_and_no_error(header: str) -> None:
    assert traced(header) is None
