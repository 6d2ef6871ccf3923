"""What the registry counts and measures: every metric with its unit and meaning."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace

from homeostat_kit.telemetry import Telemetry, span_context
from homeostat_registry.domain.facts import Registration, Stage


class Metrics:
    """The service's instruments; they cost next to nothing without an endpoint."""

    def __init__(self, telemetry: Telemetry) -> None:
        meter = telemetry.meter
        self._tracer = telemetry.tracer
        self._registered = meter.create_counter(
            "homeostat.registry.versions",
            unit="{version}",
            description="Versions registered, by the stage that they took (attribute stage).",
        )
        self._refused = meter.create_counter(
            "homeostat.registry.refusals",
            unit="{registration}",
            description="Registrations refused before they became a version (attribute reason).",
        )
        self._seconds = meter.create_histogram(
            "homeostat.registry.registration.duration",
            unit="s",
            description="From a registration's header to its outcome, upload and trial included.",
        )

    def registered(self, stage: Stage) -> None:
        """A version was written down."""
        self._registered.add(1, {"stage": stage.name.lower()})

    @contextmanager
    def registering(self, said: Registration, traceparent: str | None) -> Iterator[None]:
        """Measures one registration, and counts it if it is refused; a span below the caller's.

        Without an endpoint the caller's trace is still carried on into the events.
        """
        began = time.perf_counter()
        caller = span_context(traceparent)
        parent = trace.set_span_in_context(trace.NonRecordingSpan(caller)) if caller else None
        attributes = {
            "homeostat.model": said.model_name,
            "homeostat.run_id": said.lineage.run_id,
            "homeostat.alert_id": said.lineage.alert_id,
        }
        with self._tracer.start_as_current_span(
            "registry.register", context=parent, attributes=attributes
        ):
            try:
                yield
            except Exception as error:
                self._refused.add(1, {"reason": type(error).__name__})
                raise
            finally:
                self._seconds.record(time.perf_counter() - began)
