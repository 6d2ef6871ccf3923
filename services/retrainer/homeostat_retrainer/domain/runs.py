"""A run, what it tried, and how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from homeostat.ids import event_id
from homeostat_retrainer.domain.gate import Gain
from homeostat_retrainer.domain.policy import Due, Trigger


class Outcome(StrEnum):
    """How a run ended."""

    PROMOTED = "promoted"
    REJECTED = "rejected"
    AWAITS_APPROVAL = "awaits_approval"
    NO_CANDIDATE = "no_candidate"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Run:
    """One try for a better model. Its id says what it is: a second one of the same is the same."""

    run_id: str
    model_name: str
    trigger: Trigger
    # Event time of the cause; truth known then or later is not used.
    watermark_us: int
    # W: lengths of windows and of the new reference follow from it.
    reference_rows: int
    alert_id: str = ""
    follow_up_number: int = 0
    traceparent: str | None = None

    @property
    def cut_known_at_us(self) -> int:
        """Of truth known exactly at the mark, some may still be under way."""
        return self.watermark_us - 1


@dataclass(frozen=True, slots=True)
class Tried:
    """One candidate."""

    recipe: str
    window: str
    training_rows: int
    gain: Gain | None = None
    fit_seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a run, with all that is worth telling."""

    outcome: Outcome
    reasons: Sequence[str] = ()
    champion_version: int = 0
    candidate_version: int | None = None
    data_set_sha256: str = ""
    holdout_rows: int = 0
    candidates: Sequence[Tried] = field(default_factory=tuple)
    fit_count: int = 0


def run_of(
    due: Due, *, model_name: str, watermark_us: int, reference_rows: int, traceparent: str | None
) -> Run:
    """The run that the policy wants, under its id."""
    # What counts triggers by itself is one run per mark.
    cause = due.alert_id or f"{due.trigger}@{watermark_us}"
    return Run(
        event_id("run", model_name, cause, due.follow_up_number),
        model_name,
        due.trigger,
        watermark_us,
        reference_rows,
        due.alert_id,
        due.follow_up_number,
        traceparent,
    )


def requested_run(
    model_name: str, request_id: str, *, watermark_us: int, reference_rows: int
) -> Run:
    """The run that somebody asked for."""
    return Run(
        event_id("run", model_name, "request", request_id),
        model_name,
        Trigger.REQUEST,
        watermark_us,
        reference_rows,
    )
