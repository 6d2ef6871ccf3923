"""Which mode a version is judged in: are blocks of its reference more unlike than chance allows?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.detection.calendar import DAY_US, WEEK_US
from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues
from homeostat_monitor.domain.windows.layout import SCORE, Counts
from homeostat_monitor.domain.windows.reference import ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.windows.window import HOUR_US

Mask = NDArray[np.bool_]

# Fewer rows cannot show that they are alike: the careful mode then.
_FEWEST_ROWS = 1000
# Chance that a reference in random order is taken for one in order of time.
_LEVEL = 1e-3
# Blocks may differ by so much more than chance: as little does the budget of the i.i.d. mode no
# harm, and with enough rows everything is significant.
_INFLATION = 1.1
# Chi-squared wants at least so many rows expected per bin and block.
_THIN = 5.0
# Of rows that are seldom equal at random, equal neighbours are one row written twice.
_SELDOM_EQUAL = 0.01
_YEAR_US = 365 * DAY_US


@dataclass(frozen=True, slots=True)
class ModeChoice:
    """The mode, one sentence why, and what the reference is too short to know."""

    mode: Mode
    reason: str
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Dispersion:
    """How much more blocks of so many rows differ in a feature than rows in random order would."""

    feature: str
    rows: int
    inflation: float
    p_value: float


def choose_mode(reference: ReferenceRows, counts: ReferenceCounts) -> ModeChoice:
    """I.i.d. only where contiguous blocks are no more unlike than chance allows.

    Pearson's chi-squared test of homogeneity of blocks by bins, per feature and for the scores, at
    every block size that the reference has blocks of; Bonferroni over all of them. Rows written
    twice in a row are taken once.
    """
    remarks = _remarks(reference)
    if reference.rows < _FEWEST_ROWS:
        reason = f"{reference.rows} rows are too few to show that their order does not matter"
        return ModeChoice(Mode.TIME_ORDERED, reason, remarks)
    once = _written_once(reference)
    if not once.all():
        counts = ReferenceCounts(reference, rows=once, layout=counts.layout)
        twice = f"{int((~once).sum())} rows of the reference repeat the row before them"
        remarks = (*remarks, twice)
    found = list(_dispersions(counts))
    if not found:
        reason = "no feature varies enough to show whether the order of rows matters"
        return ModeChoice(Mode.TIME_ORDERED, reason, remarks)
    level = _LEVEL / len(found)
    unlike = [each for each in found if each.p_value < level and each.inflation > _INFLATION]
    if not unlike:
        least = min(found, key=lambda each: (each.p_value, each.feature))
        reason = (
            f"contiguous blocks are as alike as rows in random order: at most {_told(least)}, "
            f"p {least.p_value:.2g} in {len(found)} tests"
        )
        return ModeChoice(Mode.IID, reason, remarks)
    reason = f"contiguous blocks differ more than chance allows: {_told(_worst(unlike))}"
    return ModeChoice(Mode.TIME_ORDERED, reason, remarks)


def _worst(found: Sequence[_Dispersion]) -> _Dispersion:
    return max(found, key=lambda each: (each.inflation, each.feature))


def _told(worst: _Dispersion) -> str:
    name = "the scores" if worst.feature == SCORE else worst.feature
    return f"those of {worst.rows} rows differ {worst.inflation:.3g} times as much in {name}"


def _dispersions(counts: ReferenceCounts) -> Iterator[_Dispersion]:
    for blocks in counts.blocks():
        for name in counts.features:
            yield from _dispersion(name, blocks.rows, counts.layout.histogram(name, blocks.sums))
    for blocks in counts.score_blocks():
        yield from _dispersion(SCORE, blocks.rows, blocks.sums)


def _dispersion(name: str, rows: int, overlapping: Counts) -> Iterator[_Dispersion]:
    """Nothing where the feature has one thick bin only. Nulls are left out: they come in bursts
    that have a judge of their own."""
    from scipy.special import chdtrc  # noqa: PLC0415 - not at start

    table = overlapping[::2].astype(np.float64)
    table = table[table.sum(axis=1) > 0]
    total = table.sum()
    if len(table) < 2:
        return
    bins = table.sum(axis=0)
    thin = bins * (table.sum(axis=1).min() / total) < _THIN
    table = np.column_stack([table[:, ~thin], table[:, thin].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    freedom = (len(table) - 1) * (table.shape[1] - 1)
    if freedom < 1:
        return
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / total
    statistic = float(((table - expected) ** 2 / expected).sum())
    yield _Dispersion(name, rows, statistic / freedom, float(chdtrc(freedom, statistic)))


def _written_once(reference: ReferenceRows) -> Mask:
    """Which rows are not the row before them written again."""
    columns = list(reference.features.values())
    half = reference.rows // 2
    at_random = np.ones(reference.rows - half, dtype=bool)
    again = np.ones(reference.rows - 1, dtype=bool)
    for column in columns:
        at_random &= _equal(column, half)
        again &= _equal(column, 1)
    if not columns or at_random.mean() > _SELDOM_EQUAL:
        return np.ones(reference.rows, dtype=bool)
    return np.concatenate([[True], ~again])


def _equal(column: ColumnValues, lag: int) -> Mask:
    """Whether a row equals the one so many rows before; two nulls are equal."""
    values = column.codes if isinstance(column, CategoryColumn) else column.values
    nulls = np.zeros(len(values), dtype=bool) if column.nulls is None else column.nulls
    if values.dtype.kind == "f":
        nulls = nulls | np.isnan(values)
    same = (values[lag:] == values[:-lag]) & ~nulls[lag:] & ~nulls[:-lag]
    equal: Mask = same | (nulls[lag:] & nulls[:-lag])
    return equal


def _sorted_by(reference: ReferenceRows) -> Iterator[str]:
    """Number features that never fall or never rise, and are no constants."""
    for name, column in reference.features.items():
        if isinstance(column, CategoryColumn):
            continue
        later, earlier = column.values[1:], column.values[:-1]
        never_falls, never_rises = (later >= earlier).all(), (later <= earlier).all()
        if never_falls != never_rises:
            yield (
                f"the reference is sorted by {name}: if that is not the order of time, what its "
                "blocks explain is too much"
            )


def _remarks(reference: ReferenceRows) -> tuple[str, ...]:
    if not reference.rows:
        return ()
    return (*_sorted_by(reference), *_too_short(reference))


def _too_short(reference: ReferenceRows) -> tuple[str, ...]:
    times = reference.event_times_us
    span = int(times.max() - times.min())
    if not span:
        return (
            "all rows of the reference have the same event time: what it knows of time is none",
        )
    if span < DAY_US:
        length = f"{span / HOUR_US:.1f} hours"
        return (f"the reference spans {length}: it cannot know the hours of a day",)
    days = f"the reference spans {span / DAY_US:.0f} days: it cannot know"
    if span < WEEK_US:
        return (f"{days} the days of a week",)
    if span < _YEAR_US:
        return (f"{days} the seasons of a year; alarms of other months may be seasons",)
    return ()
