import asyncio
import gzip
import http.client
import os
import resource
import signal
import socket
import subprocess
import sys

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from envctl.telemetry import http_intake, raw
from envctl.telemetry.intake import well_framed

GRPC_PATH = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
HEADERS = {"content-type": "application/x-protobuf"}
CHUNKED = b"POST /v1/traces HTTP/1.1\r\ncontent-type: application/x-protobuf\r\ntransfer-encoding: chunked\r\n\r\n"


def export_request(name="GET /", spans=3) -> bytes:
    message = ExportTraceServiceRequest()
    scope = message.resource_spans.add().scope_spans.add()
    for _ in range(spans):
        scope.spans.add(trace_id=os.urandom(16), span_id=os.urandom(8), name=name)
    return message.SerializeToString()


class Running:
    def __init__(self, directory, **options):
        self.directory = directory
        command = [sys.executable, "-m", "envctl.telemetry.intake", "--directory", str(directory), "--host", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*command, "--http-port", "0", "--grpc-port", "0"], stdout=subprocess.PIPE, text=True, **options
        )
        word, http_port, grpc_port = self.process.stdout.readline().split()
        assert word == "ready"
        self.http_port, self.grpc_port = int(http_port), int(grpc_port)

    def post(self, body, path="/v1/traces", headers=HEADERS, **options):
        link = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        link.request("POST", path, body=body, headers=headers, **options)
        answer = link.getresponse()
        return answer.status, answer.read(), answer

    def stored(self, kind="traces"):
        return [body for _, body in raw.read(raw.path_of(self.directory, kind))]

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def intake(tmp_path):
    running = Running(tmp_path)
    yield running
    running.end()


def test_what_is_acknowledged_is_in_the_file(intake):
    body = export_request()
    status, answer, _ = intake.post(body)
    assert status == 200
    assert ExportTraceServiceResponse.FromString(answer) == ExportTraceServiceResponse()
    assert intake.stored() == [body]


def test_gzip_and_chunked_bodies_are_kept_as_plain_requests(intake):
    body = export_request()
    assert intake.post(gzip.compress(body), headers=HEADERS | {"content-encoding": "gzip"})[0] == 200
    pieces = iter([body[:7], body[7:]])
    assert intake.post(pieces, headers=HEADERS | {"transfer-encoding": "chunked"}, encode_chunked=True)[0] == 200
    assert intake.stored() == [body, body]


def test_each_signal_has_its_file(intake):
    for kind in raw.SIGNALS:
        assert intake.post(b"", path=f"/v1/{kind}")[0] == 200
        assert intake.stored(kind) == [b""]


@pytest.mark.parametrize(("body", "path", "headers", "status"), [
    (b"hello", "/v1/traces", HEADERS, 400),
    (b"", "/v1/other", HEADERS, 404),
    (b"{}", "/v1/traces", {"content-type": "application/json"}, 415),
    (b"not gzip", "/v1/traces", HEADERS | {"content-encoding": "gzip"}, 400),
    (gzip.compress(b"\n" * (http_intake.MAX_BODY + 1)), "/v1/traces", HEADERS | {"content-encoding": "gzip"}, 413),
])
def test_what_is_no_request_is_refused_and_not_kept(intake, body, path, headers, status):
    assert intake.post(body, path, headers)[0] == status
    assert intake.stored() == []


def test_pipelined_requests_in_pieces_are_all_answered(intake):
    body = export_request()
    one = b"POST /v1/traces HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection(("127.0.0.1", intake.http_port), timeout=10) as link:
        wire = one * 3
        for at in range(0, len(wire), 11):
            link.sendall(wire[at : at + 11])
        seen = b""
        while seen.count(b"200 OK") < 3:
            seen += link.recv(4096)
    assert intake.stored() == [body] * 3


def test_grpc_requests_are_kept_and_acknowledged_compressed_or_not(intake):
    body = export_request()
    with grpc.insecure_channel(f"127.0.0.1:{intake.grpc_port}") as channel:
        call = channel.unary_unary(GRPC_PATH)
        assert call(body, timeout=10) == b""
        assert call(body, timeout=10, compression=grpc.Compression.Gzip) == b""
        with pytest.raises(grpc.RpcError) as caught:
            call(b"hello", timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert intake.stored() == [body, body]


def test_after_a_kill_the_next_intake_goes_on_behind_the_last_whole_record(tmp_path):
    first, body = Running(tmp_path), export_request()
    assert first.post(body)[0] == 200
    first.end(signal.SIGKILL)
    with raw.path_of(tmp_path, "traces").open("ab") as file:
        file.write(b"\0\0\1\0torn")
    second = Running(tmp_path)
    assert second.post(body)[0] == 200
    second.end()
    assert second.stored() == [body, body]


def test_what_cannot_be_written_is_not_acknowledged_and_leaves_no_trace(tmp_path):
    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    running = Running(tmp_path, preexec_fn=limited, stderr=subprocess.DEVNULL)
    small, large = export_request(spans=1), export_request(spans=200)
    assert running.post(small)[0] == 200
    status, _, answer = running.post(large)
    assert (status, answer.headers["retry-after"]) == (503, "1")
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(GRPC_PATH)(large, timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert running.post(small)[0] == 200
    assert running.stored() == [small, small]
    running.end()


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self):
        super().__init__()
        self.out, self.closed = b"", False

    def write(self, data):
        self.out += data

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True


def connected(handler, pressure=None):
    connection, wire = http_intake.Connection(handler, pressure or http_intake.Pressure()), Wire()
    connection.connection_made(wire)
    return connection, wire


def test_too_much_in_hand_is_answered_with_busy_and_forgotten():
    pressure = http_intake.Pressure(limit=1000)
    connections, wires = zip(*(connected(lambda *_: 200, pressure) for _ in range(2)), strict=True)
    for connection in connections:
        connection.data_received(b"POST /v1/traces HTTP/1.1\r\ncontent-length: 5000\r\n\r\n" + b"x" * 600)
    assert not wires[0].closed
    assert wires[1].closed
    assert wires[1].out.startswith(b"HTTP/1.1 503 ")
    for connection in connections:
        connection.connection_lost(None)
    assert pressure.pending == 0


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_every_sequence_of_first_fields_is_well_framed(parts):
    message = ExportTraceServiceRequest()
    for part in parts:
        message.resource_spans.add().schema_url = part.hex()
    whole = message.SerializeToString()
    assert well_framed(whole)
    assert not well_framed(whole + b"\x12\x00")
    if whole:
        assert not well_framed(whole[:-1])


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers(1, 50))
def test_chunks_join_to_what_was_sent_however_they_arrive(parts, step):
    wire = b"".join(b"%x ;note=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nx: y\r\n\r\n"
    seen = []
    connection, transport = connected(lambda _, body: seen.append(body) or 200)
    request = CHUNKED + wire
    for at in range(0, 2 * len(request), step):
        connection.data_received((request * 2)[at : at + step])
    assert seen == [b"".join(parts)] * 2
    assert not transport.closed


@pytest.mark.parametrize("size", [b"-6", b"+5", b"0x5", b"1_0", b" 5", b"", b"g", b"5 5", b"000000005"])
def test_a_chunk_size_is_hexadecimal_digits_and_nothing_else(size):
    with pytest.raises(http_intake.RefusalError) as caught:
        http_intake.take_chunk(size + b"\r\nabcde\r\n0\r\n\r\n", 100)
    assert caught.value.status == 400


@pytest.mark.parametrize(("request_", "status"), [
    (b"POST / HTTP/1.1\r\ncontent-length: \xb2\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (http_intake.MAX_BODY + 1), 413),
    (b"POST / HTTP/1.1\r\nx: " + b"y" * http_intake.MAX_HEAD + b"\r\n\r\n", 431),
    (b"POST / HTTP/1.1\r\nx: " + b"y" * http_intake.MAX_HEAD, 431),
    (CHUNKED + b"-6\r\n0\r\n\r\n", 400),
    (CHUNKED + b"2\r\nabcde\r\n0\r\n\r\n", 400),
    (CHUNKED + b"ffffffff\r\nabc", 413),
    (CHUNKED + b"3\r\nabc\r\n%x\r\n" % http_intake.MAX_BODY, 413),
    (CHUNKED + b"5;" + b"x" * http_intake.MAX_HEAD, 400),
    (CHUNKED + b"0\r\nx:" + b"x" * http_intake.MAX_HEAD, 400),
])
def test_what_no_request_may_be_is_answered_and_the_connection_closed(request_, status):
    connection, wire = connected(lambda *_: 200)
    connection.data_received(request_)
    assert wire.out.startswith(b"HTTP/1.1 %d " % status)
    assert wire.closed
