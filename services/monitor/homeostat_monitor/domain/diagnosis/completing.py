"""A diagnosis after the rows themselves were looked at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.diagnosis import (
    ContextResidual,
    Diagnosis,
    Evidence,
    SegmentShare,
    Step,
    StepKind,
)

# A dependence that grew so much is part of what happened, not only of how the model was made.
_GREW = 1.5
# Share of the rise that one segment carries, from which on it is said that it does.
_MOSTLY = 0.5


@dataclass(frozen=True, slots=True)
class Looked:
    """What the rows since and before showed."""

    segments: Sequence[SegmentShare]
    residuals: Sequence[ContextResidual]
    rows: int
    # Mean losses of rows with a truth, since and before; None: there are too few.
    loss: float | None = None
    loss_before: float | None = None


def completed(diagnosis: Diagnosis, looked: Looked) -> Diagnosis:
    """With segments, residuals, and what follows from them for a person.

    The cause and its confidence stay: where something happened does not say why.
    """
    evidence = [Evidence(diagnosis.cause, 0.0, text) for text in _said(looked)]
    first, last = _steps(diagnosis.cause, looked)
    return replace(
        diagnosis,
        segments=tuple(looked.segments),
        residuals=tuple(looked.residuals),
        evidence=(*diagnosis.evidence, *evidence),
        steps=(*first, *diagnosis.steps, *last),
        is_complete=True,
    )


def carried_on(earlier: Diagnosis | None, fresh: Diagnosis) -> Diagnosis:
    """What the rows showed when they were looked at holds on when the sums are judged anew."""
    if earlier is None or not earlier.is_complete:
        return fresh
    looked = Looked(earlier.segments, earlier.residuals, 0)
    first, last = _steps(fresh.cause, looked)
    said = {each.text for each in fresh.evidence}
    seen = [each for each in earlier.evidence if not each.weight and each.text not in said]
    return replace(
        fresh,
        segments=earlier.segments,
        residuals=earlier.residuals,
        evidence=(*fresh.evidence, *(replace(each, cause=fresh.cause) for each in seen)),
        steps=(*first, *fresh.steps, *last),
        is_complete=True,
    )


def unread(diagnosis: Diagnosis, why: str) -> Diagnosis:
    """The rows could not be had in time."""
    text = f"The rows could not be read ({why}): no segments were looked for."
    return replace(diagnosis, evidence=(*diagnosis.evidence, Evidence(diagnosis.cause, 0.0, text)))


def bare(cause: Cause, since_us: int) -> Diagnosis:
    """Of an alert that came without one."""
    return Diagnosis(cause, 0.0, since_us, since_us, since_us, (), (), ())


def _said(looked: Looked) -> list[str]:
    said = [_about(each, looked) for each in looked.segments]
    if not looked.segments:
        said.append(f"No segment stands out among {looked.rows} rows.")
    return said + [each.text for each in looked.residuals]


def _about(segment: SegmentShare, looked: Looked) -> str:
    if segment.statistic != "loss":
        return (
            f"Where {segment.expression}: {segment.row_share:.1%} of the rows, "
            f"{segment.reference:.1%} before."
        )
    text = (
        f"Where {segment.expression} ({segment.row_share:.1%} of the rows) the loss is "
        f"{segment.observed:.4g}, before {segment.reference:.4g}"
    )
    carried = _carried(segment, looked)
    return f"{text}: {carried:.0%} of the rise." if carried >= _MOSTLY else f"{text}."


def _carried(segment: SegmentShare, looked: Looked) -> float:
    """Share of the rise of the mean loss."""
    if looked.loss is None or looked.loss_before is None or looked.loss <= looked.loss_before:
        return 0.0
    rise = segment.row_share * (segment.observed - segment.reference)
    return min(1.0, rise / (looked.loss - looked.loss_before))


def _steps(cause: Cause, looked: Looked) -> tuple[list[Step], list[Step]]:
    """Before and behind what the sums alone advise."""
    first: list[Step] = []
    last: list[Step] = []
    for each in looked.residuals:
        plain = each.context.removeprefix("context.")
        step = Step(
            StepKind.RETRAIN,
            f"Add the column {plain} to the model's inputs and retrain.",
            each.text,
        )
        grew = each.explained > _GREW * each.explained_before
        # Whoever mends a broken feed first needs no other model.
        (first if grew and cause is not Cause.DATA_BREAK else last).append(step)
    if looked.segments:
        segment = looked.segments[0]
        last.append(
            Step(
                StepKind.INVESTIGATE,
                f"Look at the rows where {segment.expression}.",
                _about(segment, looked),
            )
        )
    return first, last
