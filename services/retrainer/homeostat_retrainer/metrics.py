"""The retrainer's metrics: name, unit, meaning."""

from opentelemetry.metrics import Meter

from homeostat_retrainer.domain.runs import Ended, Run


class Metrics:
    """Instruments, held so that counting is one call."""

    def __init__(self, meter: Meter) -> None:
        self._due = meter.create_counter(
            "homeostat.retrainer.runs_due", "{run}", "Runs that became due or were skipped."
        )
        self._runs = meter.create_counter(
            "homeostat.retrainer.runs", "{run}", "Runs that ended, by trigger and outcome."
        )
        self._seconds = meter.create_histogram(
            "homeostat.retrainer.run_duration", "s", "From a run's begin to its end."
        )
        self._fits = meter.create_counter(
            "homeostat.retrainer.fits", "{model}", "Candidates trained, kept or not."
        )
        self._errors = meter.create_counter(
            "homeostat.retrainer.candidate_errors", "{model}", "Candidates that came to nothing."
        )
        self._waits = meter.create_counter(
            "homeostat.retrainer.peer_waits", "{try}", "Tries that found a peer away."
        )

    def due(self, runs: int) -> None:
        """Runs that were noted."""
        self._due.add(runs)

    def ended(self, run: Run, ended: Ended, seconds: float) -> None:
        """A run with its outcome."""
        labels = {
            "model": run.model_name,
            "trigger": run.trigger.value,
            "outcome": ended.outcome.value,
        }
        self._runs.add(1, labels)
        self._seconds.record(seconds, labels)
        self._fits.add(ended.fit_count, {"model": run.model_name})
        self._errors.add(
            sum(bool(each.error) for each in ended.candidates), {"model": run.model_name}
        )

    def peer_away(self) -> None:
        """A run waits for registry or ledger."""
        self._waits.add(1)
