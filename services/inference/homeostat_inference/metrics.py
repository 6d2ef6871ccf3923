"""Every metric of this service, with unit and meaning; read when they are exported, not before."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from homeostat_inference.app.engine import Engine
from homeostat_inference.edges.journal import Journal
from homeostat_inference.edges.loading import Loader
from homeostat_inference.edges.relay import Relay


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that is read."""

    name: str
    unit: str
    meaning: str
    read: Callable[[], float]
    # Counters only grow; the others are read as they stand.
    is_counter: bool = True


def inference_metrics(
    engine: Engine, journal: Journal, relay: Relay, loader: Loader
) -> Sequence[Metric]:
    """What is told of this process."""
    counts = engine.counts

    def rows_in_hand() -> int:
        return engine.table.rows_in_hand

    return (
        _counter("requests", "{request}", "answered", lambda: counts.requests),
        _counter("rows", "{row}", "predicted", lambda: counts.rows),
        _counter("refused", "{request}", "refused", lambda: counts.refused),
        _counter("failed", "{request}", "lost by our own fault", lambda: counts.failed),
        _counter("runs", "{run}", "of models", lambda: counts.runs),
        _counter("run.duration", "s", "spent in models", lambda: counts.run_seconds),
        _gauge("rows_in_hand", "{row}", "taken on and not yet answered", rows_in_hand),
        _counter("journal.records", "{record}", "kept", lambda: journal.records_count),
        _counter("journal.groups", "{group}", "records kept at once", lambda: journal.groups_count),
        _counter(
            "journal.refused", "{record}", "disk or quota full", lambda: journal.refused_count
        ),
        _gauge("journal.size", "By", "on disk", lambda: journal.size_bytes),
        _gauge("journal.unsent", "By", "not acknowledged yet", lambda: relay.unsent_bytes),
        _gauge("journal.held", "s", "oldest file waits to be archived", lambda: relay.held_seconds),
        _counter("relay.records", "{record}", "acknowledged", lambda: relay.records_count),
        _counter("relay.resent", "{epoch}", "sent all again", lambda: relay.resent_epochs_count),
        _counter("relay.skipped", "{record}", "too large to send", lambda: relay.skipped_count),
        _counter("loads", "{load}", "of versions", lambda: loader.loads_count),
        _counter("failed_loads", "{load}", "of champions", lambda: loader.failed_loads_count),
    )


def _counter(name: str, unit: str, meaning: str, read: Callable[[], float]) -> Metric:
    return Metric(f"homeostat.inference.{name}", unit, meaning, read)


def _gauge(name: str, unit: str, meaning: str, read: Callable[[], float]) -> Metric:
    return Metric(f"homeostat.inference.{name}", unit, meaning, read, is_counter=False)


def observe(meter: Any, metrics: Iterable[Metric]) -> None:
    """Registers them with an OpenTelemetry meter."""
    from opentelemetry.metrics import Observation  # noqa: PLC0415

    for each in metrics:
        make = meter.create_observable_counter if each.is_counter else meter.create_observable_gauge
        make(
            each.name,
            callbacks=[lambda _, read=each.read: [Observation(read())]],
            unit=each.unit,
            description=each.meaning,
        )
