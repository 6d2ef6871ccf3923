"""An episode through production code: sums, detector, first alarm, case, diagnosis."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from benchmarks.diagnosing.episodes import ROW_US, Episode

from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.detection.multiscale import multiscale
from homeostat_monitor.domain.diagnosis import Case, Diagnosis, LossEvidence
from homeostat_monitor.domain.diagnosis.judging import diagnose
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses.truths import Truths
from homeostat_monitor.domain.losses.watch import LossSignal, LossWatch
from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn
from homeostat_monitor.domain.windows.reference import ReferenceCounts
from homeostat_monitor.domain.windows.sums import Rows, count
from homeostat_monitor.domain.windows.window import Window

PANE_ROWS = 25
# Panes that a diagnosis looks back on.
_HISTORY = 240
# One false alarm in 200,000 rows, as under the referee.
_LEVEL_PER_LOOK = PANE_ROWS / 200_000


@dataclass(frozen=True, slots=True)
class Judged:
    """An alarm with its diagnosis; ``at_row`` of the stream."""

    episode: Episode
    rule: Rule
    at_row: int
    diagnosis: Diagnosis


def judged(episode: Episode) -> Judged | None:
    """None where nothing alarms after the change, or where a false alarm came before it."""
    counts = ReferenceCounts(episode.reference)
    windows = panes(counts, episode)
    found = multiscale(counts, level_per_look=_LEVEL_PER_LOOK).feed(windows)
    breached = [at for at, each in enumerate(found) if any(one.is_breach for one in each)]
    if episode.cause == "concept":
        return _of_losses(episode, counts, windows, found)
    after = [at for at in breached if windows[at].end_us > episode.change_at * ROW_US]
    if not after:
        return None
    at = after[0]
    findings = found[at]
    rule = min((each for each in findings if each.is_breach), key=_rank).rule
    case = _case(counts, windows, at, rule, findings)
    return Judged(episode, rule, windows[at].end_us // ROW_US, diagnose(case))


def _rank(finding: Finding) -> tuple[float, float]:
    return (1.0 if finding.p_value is None else finding.p_value), -finding.excess


def _case(
    counts: ReferenceCounts,
    windows: Sequence[Window],
    at: int,
    rule: Rule,
    findings: Sequence[Finding],
    loss: LossEvidence | None = None,
) -> Case:
    return Case(
        rule=rule,
        segment="",
        mode=Mode.IID,
        layout=counts.layout,
        reference=counts.whole,
        findings=findings,
        windows=windows[max(at + 1 - _HISTORY, 0) : at + 1],
        at_us=windows[at].end_us,
        loss=loss,
        reference_by_class=counts.sums_by_class(),
    )


def panes(counts: ReferenceCounts, episode: Episode) -> list[Window]:
    """The stream's rows in panes, a row a second."""
    rows = len(episode.scores) // PANE_ROWS * PANE_ROWS
    groups = np.arange(rows) // PANE_ROWS
    columns = [_cut(each, rows) for each in episode.columns.values()]
    sums = count(counts.layout, Rows(groups, rows // PANE_ROWS, columns, episode.scores[:rows]))
    length = PANE_ROWS * ROW_US
    return [Window(at * length, (at + 1) * length, each) for at, each in enumerate(sums)]


def _cut(column: ColumnValues, rows: int) -> ColumnValues:
    if isinstance(column, NumberColumn):
        return NumberColumn(column.values[:rows])
    return CategoryColumn(column.codes[:rows], column.dictionary)


def _of_losses(
    episode: Episode,
    counts: ReferenceCounts,
    windows: Sequence[Window],
    found: Sequence[Sequence[Finding]],
) -> Judged | None:
    watch = LossWatch.seeded(episode.reference.holdout, is_binary=True)
    at = np.arange(1, len(episode.losses) + 1, dtype=np.int64) * ROW_US
    truths = Truths(at, at, episode.losses, episode.scores, episode.scores > 0.5, episode.truths)
    rises = [each for each in watch.feed(truths) if each.signal is LossSignal.ROSE]
    after = [each for each in rises if each.at_us > episode.change_at * ROW_US]
    if not after:
        return None
    rise = after[0]
    now = min(rise.at_us // ROW_US, len(windows) * PANE_ROWS)
    begun = max(min(rise.since_us // ROW_US, now - 1), 0)
    pane = max(int(now) // PANE_ROWS - 1, 0)
    loss = _evidence(episode, rise.since_us, rise.observed, rise.reference, slice(begun, now))
    case = _case(counts, windows, pane, Rule.PERFORMANCE, found[pane], loss)
    return Judged(episode, Rule.PERFORMANCE, int(now), diagnose(case))


def _evidence(
    episode: Episode, since_us: int, observed: float, reference: float, rows: slice
) -> LossEvidence:
    known = episode.reference.is_holdout
    truths = episode.reference.truths
    assert truths is not None
    now, was = episode.truths[rows].mean(), truths.mean()
    return LossEvidence(
        since_us=since_us,
        observed=observed,
        reference=reference,
        rows=rows.stop - rows.start,
        bias=float((episode.truths[rows] - episode.scores[rows]).mean()),
        reference_bias=float((truths[known] - episode.reference.scores[known]).mean()),
        priors=(1 - now, now),
        reference_priors=(1 - was, was),
    )
