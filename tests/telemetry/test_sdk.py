"""A real OpenTelemetry SDK against the real intake."""

import os
import subprocess
import sys

from envctl.telemetry.store import Spans, flatten
from envctl.telemetry.traces import Edge, analyse, completeness

COUNTS = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"
PROGRAM = """
import sys
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
where = dict(endpoint=sys.argv[1], insecure=True, compression=__import__("grpc").Compression.Gzip)
resource = Resource({"service.name": "orders", "service.instance.id": "orders-0"})
meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(**where), 200)], resource=resource)
metrics.set_meter_provider(meters)
provider = TracerProvider(resource=resource)
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(**where)))
tracer = provider.get_tracer("test")
for number in range(1000):
    with tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER, attributes={"n": number, "list": ["a", "b"], "ok": True}):
        with tracer.start_as_current_span("select stock"):
            pass
provider.shutdown()
meters.shutdown()
"""


def test_what_an_sdk_sends_is_stored_whole_and_reconciled_with_its_own_counts(tmp_path):
    command = [sys.executable, "-m", "envctl.telemetry.intake", "--directory", str(tmp_path), "--host", "127.0.0.1"]
    intake = subprocess.Popen([*command, "--http-port", "0", "--grpc-port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        port = intake.stdout.readline().split()[2]
        subprocess.run([sys.executable, "-c", PROGRAM, f"127.0.0.1:{port}"], check=True, timeout=60, env={**os.environ, COUNTS: "true"})
    finally:
        intake.terminate()
        intake.wait(10)
        intake.stdout.close()
    assert flatten(tmp_path).spans == 2000
    with Spans(tmp_path) as store:
        found = completeness(store)
        assert found.whole
        assert (found.stored, dict(found.sent), found.uncounted) == (2000, {"orders-0": 2000}, ())
        assert analyse(store, [Edge("orders", "payments")], {}).breaks == ()
        span = next(store.spans("s.name = 'POST /orders'"))
        assert (span.service, span.node, span.kind, span.attrs) == (
            "orders", "orders-0", "server", {"n": 0, "list": ["a", "b"], "ok": True}
        )
        assert len(store.trace(span.trace_id)) == 2
