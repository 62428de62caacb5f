"""Traces and metrics over OTLP; where to, how often and under which name is said by the standard OTEL_* variables."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode

tracer = trace.get_tracer("shop")
meter = metrics.get_meter("shop")


def start() -> None:
    """Begins to export.  Metrics come first: the span exporter counts what it sends, so that loss is seen."""
    os.environ.setdefault("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def stop() -> None:
    """Exports what is left."""
    trace.get_tracer_provider().shutdown()
    metrics.get_meter_provider().shutdown()


def inject(current: Span | None = None) -> dict[str, str]:
    """The W3C trace context of a span (default: the current one), as headers."""
    headers: dict[str, str] = {}
    propagate.inject(headers, trace.set_span_in_context(current) if current else None)
    return headers


def extract(headers: Mapping[str, str]) -> context.Context:
    """The sender's trace context."""
    return propagate.extract(headers, context.Context())


def span(name: str, kind: SpanKind, attributes: Mapping[str, Any], parent: context.Context | None = None) -> AbstractContextManager[Span]:
    """A span around a block, current inside it; an exception that leaves the block marks it as failed."""
    return tracer.start_as_current_span(name, parent, kind, dict(attributes))


def failed(current: Span, reason: str) -> None:
    """Marks a span as failed without an exception."""
    current.set_attribute("error.type", reason)
    current.set_status(StatusCode.ERROR, reason)


@contextmanager
def timed(histogram: Histogram, attributes: Mapping[str, str]) -> Iterator[None]:
    """Records how long a block took, in seconds."""
    begin = time.monotonic()
    try:
        yield
    finally:
        histogram.record(time.monotonic() - begin, dict(attributes))
