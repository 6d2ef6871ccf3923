"""Every metric of this service, with unit and meaning; read when they are exported, not before."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homeostat_inference.edges.board_layout import Word
from homeostat_inference.edges.slot_relay import SlotRelay
from homeostat_inference.edges.status import Status

# A number, and whose it is.
Observed = tuple[float, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Metric:
    """Numbers that are read."""

    name: str
    unit: str
    meaning: str
    read: Callable[[], Iterable[Observed]]
    # Counters only grow; the others are read as they stand.
    is_counter: bool = True


def keeper_metrics(status: Status) -> Sequence[Metric]:
    """What is told of the server: of each worker, of each journal, of each version."""
    return (*_of_workers(status), *_of_journals(status), *_of_versions(status), *_losses(status))


def _of_workers(status: Status) -> Sequence[Metric]:
    def of(word: Word, scale: float = 1.0) -> Callable[[], Iterable[Observed]]:
        return lambda: [
            (each.counts.of(word) * scale, {"slot": each.name}) for each in status.slots
        ]

    def memory() -> Iterable[Observed]:
        return [(each.memory_bytes, {"slot": each.name}) for each in status.slots]

    def restarts() -> Iterable[Observed]:
        return [(each.restart_count, {"slot": each.name}) for each in status.slots]

    return (
        _counter("requests", "{request}", "answered", of(Word.REQUESTS)),
        _counter("rows", "{row}", "predicted", of(Word.ROWS)),
        _counter("refused", "{request}", "refused", of(Word.REFUSED)),
        _counter("failed", "{request}", "lost by our own fault", of(Word.FAILED)),
        _counter("runs", "{run}", "of models", of(Word.RUNS)),
        _counter("run.duration", "s", "spent in models", of(Word.RUN_NS, 1e-9)),
        _counter("queue.duration", "s", "requests' waits for their run", of(Word.QUEUE_NS, 1e-9)),
        _gauge("batch.rows.max", "{row}", "of one run", of(Word.BATCH_ROWS_MAX)),
        _gauge("rows_in_hand", "{row}", "taken on and not yet answered", of(Word.ROWS_IN_HAND)),
        _counter("loads", "{load}", "of versions", of(Word.LOADS)),
        _counter("journal.records", "{record}", "kept", of(Word.JOURNAL_RECORDS)),
        _counter("journal.groups", "{group}", "records kept at once", of(Word.JOURNAL_GROUPS)),
        _counter("journal.refused", "{record}", "disk or quota full", of(Word.JOURNAL_REFUSED)),
        _gauge("worker.memory", "By", "resident", memory),
        _counter("worker.restarts", "{restart}", "whatever the reason", restarts),
    )


def _of_journals(status: Status) -> Sequence[Metric]:
    def of(read: Callable[[SlotRelay], float]) -> Callable[[], Iterable[Observed]]:
        return lambda: [(read(each), {"slot": name}) for name, each in status.relays.items()]

    return (
        _gauge("journal.size", "By", "on disk", of(lambda each: each.size_bytes)),
        _gauge("journal.unsent", "By", "not acknowledged yet", of(lambda each: each.unsent_bytes)),
        _gauge(
            "journal.held",
            "s",
            "oldest file waits to be archived",
            of(lambda e: e.forgetting.held_seconds),
        ),
        _counter("relay.records", "{record}", "acknowledged", of(lambda each: each.records_count)),
        _counter("relay.resent", "{epoch}", "sent all again", of(lambda e: e.resent_epochs_count)),
        _counter(
            "relay.skipped", "{record}", "too large to send", of(lambda e: e.steps.skipped_count)
        ),
    )


def _of_versions(status: Status) -> Sequence[Metric]:
    def batches() -> Iterable[Observed]:
        return [
            (count, {"model": name, "version": str(version), "slot": each.name, "rows_up_to": upto})
            for each in status.slots
            for (name, version), counts in each.counts.models().items()
            for upto, count in _cumulated(counts.batch_rows)
        ]

    def rows() -> Iterable[Observed]:
        return [
            (counts.rows, {"model": name, "version": str(version), "slot": each.name})
            for each in status.slots
            for (name, version), counts in each.counts.models().items()
        ]

    def failed_loads() -> Iterable[Observed]:
        return [(each.failed_loads_count, {"slot": each.name}) for each in status.slots]

    return (
        _counter("model.rows", "{row}", "run", rows),
        _counter("model.batches", "{run}", "runs by rows, cumulated", batches),
        _counter("failed_loads", "{load}", "of versions that should serve", failed_loads),
    )  # fmt: skip


def _cumulated(buckets: Sequence[int]) -> Iterable[tuple[str, int]]:
    total = 0
    for at, count in enumerate(buckets):
        total += count
        yield ("+Inf" if at == len(buckets) - 1 else str(1 << at)), total


def _losses(status: Status) -> Sequence[Metric]:
    def losses() -> Iterable[Observed]:
        return [(count, {"loss": name}) for name, count in status.loss_counts().items()]

    return (_gauge("losses", "{loss}", "lost or refused since the start, by name", losses),)


def _counter(name: str, unit: str, meaning: str, read: Callable[[], Iterable[Observed]]) -> Metric:
    return Metric(f"homeostat.inference.{name}", unit, meaning, read)


def _gauge(name: str, unit: str, meaning: str, read: Callable[[], Iterable[Observed]]) -> Metric:
    return Metric(f"homeostat.inference.{name}", unit, meaning, read, is_counter=False)


def observe(meter: Any, metrics: Iterable[Metric]) -> None:
    """Registers them with an OpenTelemetry meter."""
    from opentelemetry.metrics import Observation  # noqa: PLC0415

    for each in metrics:
        make = meter.create_observable_counter if each.is_counter else meter.create_observable_gauge
        make(
            each.name,
            callbacks=[lambda _, read=each.read: [Observation(value, of) for value, of in read()]],
            unit=each.unit,
            description=each.meaning,
        )
