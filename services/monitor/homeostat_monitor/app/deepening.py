"""Looking at the rows behind an alert: which segments, which columns that were left out."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.alerts.alert import LOSS_RULES, Alert, State, Subject
from homeostat_monitor.domain.diagnosis import Diagnosis
from homeostat_monitor.domain.diagnosis.completing import Looked, bare
from homeostat_monitor.domain.diagnosis.found import found_segments
from homeostat_monitor.domain.diagnosis.residuals import context_residuals
from homeostat_monitor.domain.diagnosis.rows import PastRows
from homeostat_monitor.domain.errors import MonitorError
from homeostat_monitor.domain.segments.expressions import Expression
from homeostat_monitor.domain.segments.nodes import CONTEXT_PREFIX

# Of either sample: enough for a segment of one percent, and bounded in memory.
MOST_ROWS = 50_000
_FEWEST_LOSSES = 50


class LedgerAway(MonitorError):
    """The rows can't be had now; the message says why."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which rows of a version; times in microseconds UTC."""

    subject: Subject
    event_before_us: int
    # Nothing that became known later is looked at.
    known_at_most_us: int
    event_from_us: int | None = None
    labelled_only: bool = False
    # The newest.
    most_rows: int = MOST_ROWS


@dataclass(frozen=True, slots=True)
class ReadRows:
    """Rows in the order of their event times."""

    rows: PastRows
    event_times_us: NDArray[np.int64]
    # Of the first truth; 0 where it is unknown.
    known_at_us: NDArray[np.int64]


class Past(Protocol):
    """The ledger. Every call raises LedgerAway."""

    async def reached_us(self) -> int | None:
        """Up to which watermark everything is archived and joined; None: nothing was promised."""
        ...

    async def rows(self, span: Span) -> ReadRows: ...


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows since the alert began, and before."""

    now: PastRows
    before: PastRows


async def read_samples(alert: Alert, *, past: Past) -> Samples:
    """The rows that were known when the alert was judged. LedgerAway, also while the ledger has
    not come so far yet."""
    mark = alert.moment.watermark_us
    reached = await past.reached_us()
    if reached is None or reached < mark:
        raise LedgerAway(f"the ledger has come to {reached}, the alert was judged at {mark}")
    if alert.rule in LOSS_RULES:
        return await _by_known_at(alert, mark, past)
    since = alert.since_us
    now = await past.rows(Span(alert.subject, mark, mark, event_from_us=since))
    before = await past.rows(Span(alert.subject, since, mark))
    return Samples(now.rows, before.rows)


async def _by_known_at(alert: Alert, mark: int, past: Past) -> Samples:
    """What truths tell began when the first of them became known, not when they were predicted."""
    newest = await past.rows(Span(alert.subject, mark, mark, labelled_only=True))
    is_now = newest.known_at_us >= alert.since_us
    now, before = newest.rows.only(is_now), newest.rows.only(~is_now)
    if len(before) < len(now) and len(newest.rows) == MOST_ROWS:
        earliest = int(newest.event_times_us[0])
        older = await past.rows(Span(alert.subject, earliest, mark, labelled_only=True))
        was_known = older.known_at_us < alert.since_us
        before = older.rows.only(was_known)
    return Samples(now, before)


def look(samples: Samples, within: Expression | None = None) -> Looked:
    """Takes a second of a core: not for the event loop. ``within``: the alert's own segment."""
    now, before = (
        each if within is None else each.only(within.mask(each.columns, len(each)))
        for each in (samples.now, samples.before)
    )
    unused = [name for name in now.columns if name.startswith(CONTEXT_PREFIX)]
    loss, loss_before = _mean(now), _mean(before)
    return Looked(
        segments=found_segments(now, before),
        residuals=context_residuals(now, before, unused=unused, is_multiclass=_is_multiclass(now)),
        rows=len(now),
        loss=loss,
        loss_before=loss_before,
    )


def retold(alert: Alert, diagnosis: Diagnosis) -> Alert:
    """Told once more: nothing new happened, more is known of why."""
    return replace(alert, state=State.DIAGNOSED, diagnosis=diagnosis, revision=alert.revision + 1)


def diagnosis_of(alert: Alert) -> Diagnosis:
    """What the sums said."""
    return alert.diagnosis or bare(alert.cause, alert.since_us)


def _mean(rows: PastRows) -> float | None:
    known = rows.losses[np.isfinite(rows.losses)]
    return float(known.mean()) if len(known) >= _FEWEST_LOSSES else None


def _is_multiclass(rows: PastRows) -> bool:
    """Classes beyond 0 and 1: there the score is not the truth's expectation."""
    truths = rows.truths[np.isfinite(rows.truths)]
    losses = rows.losses[np.isfinite(rows.losses)]
    are_classes = bool(np.isin(losses, (0.0, 1.0)).all() and (truths == np.floor(truths)).all())
    return are_classes and bool(len(truths)) and float(truths.max()) > 1
