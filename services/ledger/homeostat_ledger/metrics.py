"""The ledger's metrics: name, unit, meaning."""

from opentelemetry.metrics import Meter

from homeostat_ledger.app.take_in import TakenIn


class Metrics:
    """Instruments, held so that counting is one call."""

    def __init__(self, meter: Meter) -> None:
        self._predictions = meter.create_counter(
            "homeostat.ledger.predictions", "{row}", "Predictions archived, each once."
        )
        self._duplicates = meter.create_counter(
            "homeostat.ledger.duplicate_blocks", "{block}", "Blocks that came again."
        )
        self._outcomes = meter.create_counter(
            "homeostat.ledger.outcomes", "{row}", "Truths taken in."
        )
        self._joined = meter.create_counter(
            "homeostat.ledger.joined", "{row}", "Truths that were news: first ones and corrections."
        )
        self._parked = meter.create_up_down_counter(
            "homeostat.ledger.parked", "{row}", "Truths that wait for their prediction."
        )
        self._refused = meter.create_counter(
            "homeostat.ledger.refused_records", "{record}", "Records dead-lettered."
        )
        self._expired = meter.create_counter(
            "homeostat.ledger.expired", "{row}", "Parked truths given up and dead-lettered."
        )
        self._cut_seconds = meter.create_histogram(
            "homeostat.ledger.cut_duration", "s", "From the question to the whole data set."
        )
        self._merged = meter.create_counter(
            "homeostat.ledger.merged_files", "{file}", "Small files merged into larger ones."
        )

    def taken_in(self, taken: TakenIn) -> None:
        """One poll's effect."""
        self._predictions.add(taken.predictions)
        self._duplicates.add(taken.duplicate_blocks)
        self._outcomes.add(taken.outcomes)
        self._joined.add(taken.news)
        self._parked.add(taken.parked)

    def refused(self, records: int) -> None:
        """Records that were dead-lettered."""
        self._refused.add(records)

    def expired(self, rows: int) -> None:
        """Truths that were given up."""
        self._expired.add(rows)
        self._parked.add(-rows)

    def cut(self, seconds: float) -> None:
        """A data set was cut."""
        self._cut_seconds.record(seconds)

    def merged(self, files: int) -> None:
        """Files that are no more."""
        self._merged.add(files)
