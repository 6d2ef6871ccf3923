"""What was measured, as one record: for the table, for JSON and for the words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from homeostat.advise.equivalence import LEAST_ROWS, LEAST_SHARE, Tolerance
from homeostat.advise.figures import Outcome, Timing
from homeostat.advise.forms import Form
from homeostat.advise.machine import Machine

# Less is within what a machine's mood explains; the registry's gate asks for it as well.
WORTH = 1.05
# Wall time beyond this share of CPU time on one thread: others used the cores.
_BUSY = 1.3


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one advice."""

    model_name: str
    version: int
    sha256: str
    machine: Machine
    rows_source: str
    row_count: int
    calibration_count: int
    rows_sha256: str
    tolerance: Tolerance
    # Rows that one run holds when it serves; what the advice on forms goes by.
    serving_rows: int
    serving_rows_reason: str
    cost_per_cpu_hour: float
    rounds: int
    outcomes: Sequence[Outcome]

    @property
    def present(self) -> Outcome:
        """The measure of all others."""
        return next(each for each in self.outcomes if each.variant.is_present)

    @property
    def was_busy(self) -> bool:
        """Whether the cores were not this measurement's alone."""
        return any(
            each.seconds_per_row > _BUSY * each.cpu_seconds_per_row for each in self.present.timings
        )

    def outcome(self, name: str) -> Outcome | None:
        """That variant's."""
        return next((each for each in self.outcomes if each.variant.name == name), None)

    def why_not_applied(self, outcome: Outcome) -> str:
        """Why `--apply` refuses it; empty where it would register it."""
        if not outcome.variant.is_file:
            return _no_file(outcome)
        if outcome.failure:
            return outcome.failure
        if outcome.variant.form is Form.INT8_DYNAMIC:
            return (
                "one range is taken over all rows of a run, so a row's answer depends on those "
                "beside it; the registry refuses that, and takes int8-by-row and int8-static"
            )
        return self._what_the_gate_misses(outcome)

    def _what_the_gate_misses(self, outcome: Outcome) -> str:
        timing, equality = outcome.at(self.serving_rows), outcome.equality
        if timing is None or not is_faster(timing):
            return f"it is not faster by more than {WORTH - 1:.0%} with {self.serving_rows} rows"
        if equality is None or equality.share < LEAST_SHARE:
            return f"the registry's gate asks for {LEAST_SHARE:.1%} of the rows to be equal"
        if equality.row_count < LEAST_ROWS:
            return (
                f"the registry's gate asks for {LEAST_ROWS} rows and there are only "
                f"{equality.row_count}"
            )
        return ""


def is_faster(timing: Timing) -> bool:
    """Clearly: by more than 5 % in three rounds of four."""
    return timing.speed_up_low > WORTH


def _no_file(outcome: Outcome) -> str:
    if outcome.variant.is_present:
        return "it serves already"
    if outcome.variant.form is Form.COMPILED:
        return "compiled trees are no ONNX file; they are reported only"
    return "it is a way to run the present file, not another file"


def as_json(report: Report, advice: Sequence[str]) -> Mapping[str, Any]:
    """Plain values; seconds, bytes and counts by name."""
    plain = asdict(report)
    plain["outcomes"] = [_outcome(report, each) for each in report.outcomes]
    plain["was_busy"] = report.was_busy
    plain["advice"] = list(advice)
    return plain


def _outcome(report: Report, outcome: Outcome) -> Mapping[str, Any]:
    found = asdict(outcome)
    if outcome.equality is not None:
        found["equality"]["share"] = outcome.equality.share
        if not math.isfinite(outcome.equality.max_score_difference):
            # JSON knows no infinity.
            found["equality"]["max_score_difference"] = None
    for plain, timing in zip(found["timings"], outcome.timings, strict=True):
        plain["rows_per_second"] = timing.rows_per_second
        plain["cpu_seconds_per_million"] = timing.cpu_seconds_per_million
        plain["cost_per_million"] = timing.cost_per_million(report.cost_per_cpu_hour)
    refusal = report.why_not_applied(outcome)
    found["can_be_applied"] = not refusal
    found["why_not_applied"] = refusal
    return found
