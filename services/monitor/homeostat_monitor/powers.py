"""What a model's budget of false alarms buys, as the contract writes it."""

from collections.abc import Iterator

from homeostat.monitor.v1 import monitor_pb2 as pb
from homeostat_monitor.app.watches import fresh_losses
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.detection.budget import MONTH_US, Budget, Part, level_per_look
from homeostat_monitor.domain.detection.power import PowerLine
from homeostat_monitor.domain.errors import UnusableReference
from homeostat_monitor.domain.profile import OF_A_SEGMENT
from homeostat_monitor.domain.windows.reference import ReferenceRows
from homeostat_monitor.ports import KnownVersion

# Where the statement does not hold as it stands.
_ORDERED = (
    "in time-ordered mode neighbouring rows resemble each other: what is seen within so many rows "
    "depends on how they follow each other, and the figures are those of independent rows"
)


def power_of(
    known: KnownVersion, reference: ReferenceRows | None, within_events: int
) -> pb.GetPowerResponse:
    """The smallest change that would be seen, per feature and segment. UnusableReference."""
    # scipy takes a second to import: not at start.
    from homeostat_monitor.domain.calibration import counts_of_segment  # noqa: PLC0415
    from homeostat_monitor.domain.detection.power import power_lines  # noqa: PLC0415
    from homeostat_monitor.domain.windows.reference import ReferenceCounts  # noqa: PLC0415

    profile, policy = known.profile, known.policy
    if profile is None or reference is None:
        why = "; ".join(known.remarks) or "the version has no reference profile"
        raise UnusableReference(f"{why}; cure: push the version with its training rows")
    response = pb.GetPowerResponse(
        model_name=known.subject.model_name,
        version=known.subject.version,
        within_events=within_events,
        false_alarms_per_month=policy.false_alarms_per_month,
        looks_per_month=MONTH_US / profile.length_us,
    )
    segments = {"": None, **profile.expressions}
    budget = Budget(policy.false_alarms_per_month, len(policy.segments))
    level = level_per_look(budget.of(Part.INPUTS), profile.length_us)
    whole = ReferenceCounts(reference)
    for name, expression in segments.items():
        response.lines.append(_loss_line(known, name, within_events))
        # What the detectors were made from.
        counts = whole if expression is None else counts_of_segment(expression, reference, whole)
        if counts is None:
            # Its inputs have no detectors; the profile's remark says why, and the cure.
            continue
        for line in power_lines(counts, level, within_events):
            if line.feature not in policy.ignored_features:
                response.lines.extend(_lines(line, name))
        response.tests += len(counts.layout.names)
    response.remarks.extend(each for each in profile.remarks if each.startswith(OF_A_SEGMENT))
    if profile.mode is Mode.TIME_ORDERED:
        response.remarks.append(_ORDERED)
    response.remarks.extend(_ledger(budget))
    return response


def _ledger(budget: Budget) -> Iterator[str]:
    for line in budget.lines():
        of = "" if line.of_each_segment is None else ", for all rows and for each segment"
        yield f"the budget for {line.part}: {line.of_all_rows:.3g} a month{of} ({line.spent_by})"


def _loss_line(known: KnownVersion, segment: str, within_truths: int) -> pb.PowerLine:
    """The rise of the mean loss, against the hold-out's."""
    holdout = known.holdout_of(segment)
    smallest = None
    if holdout is not None and len(holdout.losses):
        smallest = fresh_losses(known, segment).smallest_rise(holdout.losses, within_truths)
    return pb.PowerLine(feature="", segment=segment, change="loss", smallest=smallest)


def _lines(line: PowerLine, segment: str) -> Iterator[pb.PowerLine]:
    for change in ("shift", "null_rate", "unseen_rate"):
        smallest = getattr(line, change)
        yield pb.PowerLine(feature=line.feature, segment=segment, change=change, smallest=smallest)
