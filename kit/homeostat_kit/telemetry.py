"""OpenTelemetry over OTLP where an endpoint is set; nothing at all where none is."""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry import metrics, trace

# With a dead collector the exporters' own flush and shutdown block for half a minute.
_LEAVE_SECONDS = 1.0
_METRICS_EVERY_MS = 10_000
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class Telemetry:
    """One service's instruments. Spans and metrics cost next to nothing when ``is_on`` is false."""

    meter: metrics.Meter
    tracer: trace.Tracer
    is_on: bool
    _closers: tuple[Callable[[], object], ...] = ()

    def close(self) -> None:
        """Sends what is left; gives up after a second."""
        threads = [threading.Thread(target=each, daemon=True) for each in self._closers]
        for each in threads:
            each.start()
        for each in threads:
            each.join(_LEAVE_SECONDS / len(threads))


def setup(service: str, endpoint: str | None) -> Telemetry:
    """Telemetry of ``service`` to an OTLP gRPC ``endpoint`` ("http://127.0.0.1:4317"), or none."""
    if endpoint is None:
        return Telemetry(metrics.NoOpMeter(service), trace.NoOpTracer(), is_on=False)
    return _exporting(service, endpoint)


def _exporting(service: str, endpoint: str) -> Telemetry:
    # Half a second of imports that a service without telemetry does not pay for.
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # noqa: PLC0415
        OTLPMetricExporter,
    )
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    resource = Resource.create({"service.name": f"homeostat-{service}"})
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=endpoint, insecure=True),
        export_interval_millis=_METRICS_EVERY_MS,
    )
    meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True))
    )
    close_logs = _export_logs(resource, endpoint)
    return Telemetry(
        meters.get_meter(service),
        tracers.get_tracer(service),
        is_on=True,
        _closers=(meters.shutdown, tracers.shutdown, close_logs),
    )


def _export_logs(resource: Any, endpoint: str) -> Callable[[], object]:
    import logging  # noqa: PLC0415

    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import (  # noqa: PLC0415
        OTLPLogExporter,
    )
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler  # noqa: PLC0415
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor  # noqa: PLC0415

    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_log_record_processor(
        BatchLogRecordProcessor(OTLPLogExporter(endpoint=endpoint, insecure=True))
    )
    logging.getLogger().addHandler(LoggingHandler(level=logging.INFO, logger_provider=provider))
    return provider.shutdown


def traceparent() -> str | None:
    """The current span as a W3C traceparent; None outside any."""
    context = trace.get_current_span().get_span_context()
    return traceparent_of(context) if context.is_valid else None


def traceparent_of(context: trace.SpanContext) -> str:
    """A span context as a W3C traceparent."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def span_context(value: str | None) -> trace.SpanContext | None:
    """The span that a traceparent names; None where it is absent or malformed."""
    match = _TRACEPARENT.fullmatch(value or "")
    if match is None:
        return None
    context = trace.SpanContext(
        int(match[1], 16),
        int(match[2], 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(match[3], 16)),
    )
    return context if context.is_valid else None


def links(headers: Sequence[Mapping[str, bytes]]) -> list[trace.Link]:
    """Links to the spans that the records of a batch came from, each once."""
    seen = dict.fromkeys(each["traceparent"] for each in headers if "traceparent" in each)
    contexts = (span_context(value.decode("ascii", "replace")) for value in seen)
    return [trace.Link(each) for each in contexts if each is not None]
