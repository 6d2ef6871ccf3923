"""A receiver of OTLP over gRPC, as a collector is: keeps spans, metric names and log counts."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True, slots=True)
class SeenSpan:
    """One span, with what it continues and what it is linked to."""

    service: str
    name: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    linked_spans: frozenset[bytes]
    attributes: dict[str, str]


@dataclass(slots=True)
class Received:
    """What came in so far."""

    address: str = ""
    spans: list[SeenSpan] = field(default_factory=list)
    metrics: dict[str, set[str]] = field(default_factory=dict)
    logs: dict[str, int] = field(default_factory=dict)

    def causes(self, span: SeenSpan) -> list[SeenSpan]:
        """The spans that this one continues or is linked to, and theirs, nearest first."""
        by_id = {each.span_id: each for each in self.spans}
        found: list[SeenSpan] = []
        ahead = [span]
        while ahead:
            here = ahead.pop(0)
            for cause in (here.parent_id, *here.linked_spans):
                each = by_id.get(cause)
                if each is not None and each not in found:
                    found.append(each)
                    ahead.append(each)
        return found


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, received: Received) -> None:
        self._received = received

    def Export(self, request, context):  # noqa: N802 - the protocol's name
        for resource in request.resource_spans:
            service = _service(resource.resource)
            for scope in resource.scope_spans:
                self._received.spans += [_span(service, each) for each in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, received: Received) -> None:
        self._received = received

    def Export(self, request, context):  # noqa: N802
        for resource in request.resource_metrics:
            names = self._received.metrics.setdefault(_service(resource.resource), set())
            for scope in resource.scope_metrics:
                names |= {each.name for each in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, received: Received) -> None:
        self._received = received

    def Export(self, request, context):  # noqa: N802
        for resource in request.resource_logs:
            service = _service(resource.resource)
            count = sum(len(scope.log_records) for scope in resource.scope_logs)
            self._received.logs[service] = self._received.logs.get(service, 0) + count
        return logs_service_pb2.ExportLogsServiceResponse()


def _service(resource) -> str:
    named = {each.key: each.value.string_value for each in resource.attributes}
    return named.get("service.name", "")


def _span(service: str, span) -> SeenSpan:
    return SeenSpan(
        service,
        span.name,
        span.trace_id,
        span.span_id,
        span.parent_span_id,
        frozenset(link.span_id for link in span.links),
        {each.key: each.value.string_value for each in span.attributes},
    )


@contextmanager
def otlp_receiver() -> Iterator[Received]:
    """Listens on loopback; ``received.address`` is an endpoint for the services' settings."""
    received = Received()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(received), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(received), server)
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Logs(received), server)
    port = server.add_insecure_port("127.0.0.1:0")
    received.address = f"http://127.0.0.1:{port}"
    server.start()
    try:
        yield received
    finally:
        server.stop(1).wait()
