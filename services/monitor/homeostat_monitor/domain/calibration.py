"""From a version's reference and its model's policy to everything that is fixed by them."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.detection import Detector, Mode
from homeostat_monitor.domain.detection.budget import Budget, Part, level_per_look
from homeostat_monitor.domain.detection.mode import ModeChoice, choose_mode
from homeostat_monitor.domain.detection.multiscale import multiscale
from homeostat_monitor.domain.detection.ordered import ordered
from homeostat_monitor.domain.detection.quality import quality
from homeostat_monitor.domain.diagnosis.natural import Natural, natural_of
from homeostat_monitor.domain.errors import UnusableReference
from homeostat_monitor.domain.policies.policy import DEFAULT, Policy
from homeostat_monitor.domain.profile import (
    OF_A_SEGMENT,
    Norm,
    Pristine,
    VersionProfile,
)
from homeostat_monitor.domain.segments.expressions import BadExpression, Expression, parse
from homeostat_monitor.domain.windows.bins import NumberBins
from homeostat_monitor.domain.windows.history import levels_of
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.windows.sums import Counter
from homeostat_monitor.domain.windows.window import (
    HOUR_US,
    TYPICAL_ROWS,
    Window,
    pane_length_us,
    window_length_us,
)

# A segment with fewer rows in the reference has no norm: all rows are none of it, since a segment
# may differ from them by nature. With fewer in the hold-out its losses are learned live.
_FEWEST_SEGMENT_ROWS = 500
# Of the reference, to see which features go together.
_FEWEST_BLOCKS = 12


def profile_of(
    reference: ReferenceRows, *, length_us: int | None = None, policy: Policy = DEFAULT
) -> VersionProfile:
    """Calibrates all detectors. ``length_us`` fixes the window; UnusableReference without rows."""
    if not reference.rows:
        raise UnusableReference("the reference profile has no rows")
    counts = ReferenceCounts(reference)
    choice = _mode(reference, counts, policy)
    length = length_us or _length(choice.mode, reference.event_times_us)
    expressions, remarks = _expressions(policy)
    if length_us is None and choice.mode is Mode.TIME_ORDERED:
        remarks += _of_length(length, reference.rows)
    detectors: dict[str, tuple[Pristine, ...]] = {}
    norms: dict[str, Norm] = {}
    for name, expression in (("", None), *expressions.items()):
        counted = counts if expression is None else counts_of_segment(expression, reference, counts)
        if counted is None:
            remarks.append(_without_norm(name))
            detectors[name] = ()
            continue
        norms[name] = _norm(counted, choice.mode, length)
        made = list(_detectors(counted, choice.mode, length, policy, name))
        detectors[name] = tuple(Pristine(each, each.to_bytes()) for each in made)
        if not name:
            remarks += [text for each in made for text in getattr(each, "remarks", ())]
    times = reference.event_times_us
    span = max(int(times.max() - times.min()), 1)
    bins = counts.layout.bins[-1]
    if not isinstance(bins, NumberBins):
        raise TypeError("scores are numbers")
    return VersionProfile(
        layout=counts.layout,
        counter=Counter(counts.layout),
        length_us=length,
        mode=choice.mode,
        mode_reason=choice.reason,
        reference=counts.whole,
        reference_by_class=norms[""].by_class,
        norms=norms,
        detectors=detectors,
        expressions=expressions,
        history_levels=levels_of(length, reference.rows / span),
        score_bins=bins,
        holdout=reference.holdout,
        segment_holdouts=_holdouts(reference, expressions),
        remarks=(*choice.remarks, *dict.fromkeys(remarks)),
        budget_per_month=policy.false_alarms_per_month,
        policy_revision=policy.revision,
    )


def _holdouts(
    reference: ReferenceRows, expressions: Mapping[str, Expression]
) -> dict[str, Holdout]:
    found: dict[str, Holdout] = {}
    for name, expression in expressions.items():
        of_segment = reference.holdout.of(expression.mask(reference.features, reference.rows))
        if of_segment is not None and len(of_segment.losses) >= _FEWEST_SEGMENT_ROWS:
            found[name] = of_segment
    return found


def _norm(counts: ReferenceCounts, mode: Mode, length_us: int) -> Norm:
    return Norm(counts.whole, counts.sums_by_class(), _natural(counts, mode, length_us))


def _natural(counts: ReferenceCounts, mode: Mode, length_us: int) -> Natural | None:
    """How far the reference's own windows go; in i.i.d. mode rows are their own measure."""
    if mode is Mode.IID:
        return None
    starts, groups = np.unique(counts.event_times_us // length_us, return_inverse=True)
    sums = counts.grouped(groups.astype(np.intp), len(starts))
    windows = [
        Window(start, start + length_us, each)
        for start, each in zip((starts * length_us).tolist(), sums, strict=True)
    ]
    # The largest blocks of which there are a dozen that do not overlap.
    blocks = [each.sums[::2] for each in counts.blocks() if len(each.sums) >= 2 * _FEWEST_BLOCKS]
    return natural_of(counts.layout, windows, blocks[-1] if blocks else None)


def _mode(reference: ReferenceRows, counts: ReferenceCounts, policy: Policy) -> ModeChoice:
    choice = choose_mode(reference, counts)
    if policy.mode is None or policy.mode is choice.mode:
        return choice
    return ModeChoice(
        policy.mode, f"the policy fixes it; by itself: {choice.mode}, {choice.reason}"
    )


def _length(mode: Mode, event_times_us: NDArray[np.int64]) -> int:
    return pane_length_us(event_times_us) if mode is Mode.IID else window_length_us(event_times_us)


def _of_length(length_us: int, rows: int) -> list[str]:
    """Whoever waits for the first window should know how long, and why."""
    if rows >= TYPICAL_ROWS:
        return []
    days = length_us / (24 * HOUR_US)
    return [
        f"windows are {days:g} days long, for the reference has only {rows} rows: nothing is "
        f"judged before the first is over; cure: push the version with {TYPICAL_ROWS} rows or more"
    ]


def _expressions(policy: Policy) -> tuple[dict[str, Expression], list[str]]:
    found: dict[str, Expression] = {}
    remarks: list[str] = []
    for each in policy.segments:
        try:
            found[each.name] = parse(each.expression)
        except BadExpression as error:
            remarks.append(f"{OF_A_SEGMENT}{each.name} is not judged: {error}")
    return found, remarks


def counts_of_segment(
    expression: Expression, reference: ReferenceRows, whole: ReferenceCounts
) -> ReferenceCounts | None:
    """A segment's own rows of the reference, in the bins of the whole; None: they are too few to
    say what is normal of it, or it is over a context, which the reference does not hold."""
    rows = expression.mask(reference.features, reference.rows)
    if rows.sum() < _FEWEST_SEGMENT_ROWS:
        return None
    return ReferenceCounts(reference, rows=rows, layout=whole.layout)


def _without_norm(segment: str) -> str:
    return (
        f"{OF_A_SEGMENT}{segment} has fewer than {_FEWEST_SEGMENT_ROWS} rows in the reference, or "
        "is over a context, which the reference does not hold: its inputs, scores and arrivals are "
        "not watched, its loss and thresholds of your own are; cure: push the version with more "
        "rows of it, or name it by the model's inputs"
    )


def _detectors(
    counts: ReferenceCounts, mode: Mode, length_us: int, policy: Policy, segment: str
) -> Iterator[Detector]:
    budget = Budget(policy.false_alarms_per_month, len(policy.segments))
    inputs = level_per_look(budget.of(Part.INPUTS), length_us)
    other = level_per_look(budget.of(Part.QUALITY), length_us)
    if mode is Mode.IID:
        yield multiscale(counts, level_per_look=inputs, segment=segment)
    else:
        yield ordered(counts, length_us=length_us, level_per_look=inputs, segment=segment)
    yield quality(counts, length_us=length_us, level_per_look=other, segment=segment)
