"""What the registry counts and measures: every metric with its unit and meaning."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from homeostat_kit.telemetry import Telemetry
from homeostat_registry.domain.facts import Stage


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
    def registering(self) -> Iterator[None]:
        """Measures one registration, and counts it if it is refused; a span of its own."""
        began = time.perf_counter()
        with self._tracer.start_as_current_span("registry.register"):
            try:
                yield
            except Exception as error:
                self._refused.add(1, {"reason": type(error).__name__})
                raise
            finally:
                self._seconds.record(time.perf_counter() - began)
