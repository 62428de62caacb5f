"""How many spans a second the intake takes, whether any is lost, and in how much memory.

A client process sends pre-encoded requests (15 attributes a span) over kept-alive HTTP connections or gRPC, at a fixed rate;
afterwards the spans in the file are counted against those that were sent.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench import Figure, show
from envctl.telemetry import raw

TITLE = "OTLP intake"
SUSTAINED_S, PEAK_S, LIMIT_MB = 60.0, 10.0, 150
GRPC_PATH = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def request(batch: int) -> bytes:
    """One export request of `batch` spans."""
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for _ in range(batch):
        span = spans.add(
            trace_id=os.urandom(16), span_id=os.urandom(8), parent_span_id=os.urandom(8), name="GET /products",
            kind=2, start_time_unix_nano=time.time_ns(), end_time_unix_nano=time.time_ns(),
        )
        for number in range(15):
            span.attributes.add(key=f"http.attribute.{number}").value.string_value = f"value-{number}"
    return message.SerializeToString()


def send_http(port: int, body: bytes, count: int, rate: float) -> tuple[int, float]:
    """Sends `count` requests, `rate` a second (0: at once).

    Gives how many were acknowledged, and the seconds from the first request, on a connection that stands, to the last answer.
    """
    link = socket.create_connection(("127.0.0.1", port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = f"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: {len(body)}\r\n\r\n"
    wire, begin, good = head.encode() + body, time.monotonic(), 0
    for number in range(count):
        pace(begin, number, rate)
        link.sendall(wire)
        good += link.recv(4096).startswith(b"HTTP/1.1 200")
    return good, time.monotonic() - begin


def send_grpc(port: int, body: bytes, count: int, rate: float) -> tuple[int, float]:
    """As `send_http`, over gRPC with eight requests in flight."""
    import grpc

    good, flying = 0, []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(GRPC_PATH)
        grpc.channel_ready_future(channel).result(30)
        begin = time.monotonic()
        for number in range(count):
            pace(begin, number, rate)
            flying.append(call.future(body, timeout=30))
            if len(flying) == 8:
                good += flying.pop(0).code() is grpc.StatusCode.OK
        good += sum(one.code() is grpc.StatusCode.OK for one in flying)
        return good, time.monotonic() - begin


def pace(begin: float, number: int, rate: float) -> None:
    """Waits until the request is due."""
    if rate and (left := begin + number / rate - time.monotonic()) > 0:
        time.sleep(left)


def cpu_and_peak(pid: int) -> tuple[float, float]:
    """CPU seconds and peak resident megabytes of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(peak.split()[1]) / 1024


def measure(protocol: str, batch: int, spans_per_s: float, seconds: float) -> dict[str, Any]:
    """One measurement against a fresh intake."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "envctl.telemetry.intake", "--directory", directory, "--host", "127.0.0.1"]
        server = subprocess.Popen([*command, "--http-port", "0", "--grpc-port", "0"], stdout=subprocess.PIPE, text=True)
        assert server.stdout
        try:
            _, http_port, grpc_port = server.stdout.readline().split()
            send, port = (send_http, int(http_port)) if protocol == "http" else (send_grpc, int(grpc_port))
            body, count = request(batch), int((spans_per_s or 20_000) * seconds / batch)
            before = cpu_and_peak(server.pid)[0]
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                good, took = pool.apply(send, (port, body, count, spans_per_s / batch))
            after, peak = cpu_and_peak(server.pid)
        finally:
            server.terminate()
            server.wait()
        stored = sum(len(one) == len(body) for _, one in raw.read(Path(directory, "traces.bin"))) * batch
    return {
        "protocol": protocol, "batch": batch, "asked_per_s": spans_per_s or "as fast as possible", "sent": count * batch,
        "acknowledged": good * batch, "stored": stored, "lost": count * batch - stored,
        "spans_per_s": round(stored / took), "cpu_cores": round((after - before) / took, 2), "peak_mb": round(peak, 1),
    }


def flattened(spans: int) -> dict[str, Any]:
    """Flattening `spans` spans (in requests of 512) to SQLite, in a process of its own."""
    code = "import sys, pathlib; from envctl.telemetry.store import flatten; print(flatten(pathlib.Path(sys.argv[1])).spans);"
    code += "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    with tempfile.TemporaryDirectory() as directory:
        writer = raw.RawWriter(Path(directory, "traces.bin"))
        for _ in range(spans // 512):
            writer.append(request(512), time.time_ns())
        writer.close()
        begin = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code, directory], stdout=subprocess.PIPE, text=True, check=True)
        took = time.monotonic() - begin
    stored, peak_kb = (int(word) for word in done.stdout.split())
    return {"flattened": stored, "lost": spans // 512 * 512 - stored, "spans_per_s": round(stored / took), "peak_mb": round(peak_kb / 1024, 1)}


def figure(row: dict[str, Any], rate: float, seconds: float) -> Figure:
    """Good when nothing is lost, memory stays within the limit, and the rate was really sent."""
    met = row["lost"] == 0 and row["peak_mb"] <= LIMIT_MB and row["spans_per_s"] >= 0.99 * rate
    return Figure(
        f"{row['protocol']}, {row['batch']} spans a request, {rate:,.0f} spans/s asked for {seconds:.0f} s",
        f"{row['spans_per_s']:,}/s, {row['lost']} of {row['sent']:,} lost, {row['peak_mb']:.0f} MB, {row['cpu_cores']} cores",
        f"all, 0 lost, ≤ {LIMIT_MB} MB", met,
    )


def figures() -> list[Figure]:
    """Sustained and peak rates over both protocols; then flattening what was kept."""
    rows = [
        figure(measure(protocol, batch, rate, seconds), rate, seconds)
        for rate, seconds, batches in ((10_000, SUSTAINED_S, (512,)), (50_000, PEAK_S, (512, 20))) for batch in batches for protocol in ("http", "grpc")
    ]
    flat = flattened(200_000)
    return [*rows, Figure("flattened to SQLite after the run", f"{flat['spans_per_s']:,} spans/s, {flat['lost']} lost, {flat['peak_mb']:.0f} MB",
                          f"0 lost, ≤ {LIMIT_MB} MB", flat["lost"] == 0 and flat["peak_mb"] <= LIMIT_MB)]


if __name__ == "__main__":
    show(figures())
