"""A feature as the diagnosis sees it: rows per bin in the reference and since the change."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.windows.bins import Bins, CategoryBins
from homeostat_monitor.domain.windows.sums import Counts, Layout

Floats = NDArray[np.float64]

# Jeffreys' prior of a share: a bin that the reference left empty is rare, not impossible.
_JEFFREYS = 0.5
# Rarer bins are pooled where windows are compared with the reference one by one.
_RARE = 0.02
# Fewer degrees of freedom than this say nothing of the windows' own variation.
_FEWEST_FREEDOM = 30
_MOST_DISPERSION = 50.0


@dataclass(frozen=True, slots=True)
class View:
    """One feature's bins, the null bin last."""

    name: str
    bins: Bins
    # Rows per bin in the reference and since the change.
    before: Floats
    after: Floats
    # By how much windows vary more than chance alone makes them, at least 1 (quasi-likelihood).
    dispersion: float = 1.0

    @property
    def expected(self) -> Floats:
        """The share of every bin in the reference; none is 0."""
        return smoothed(self.before)

    @property
    def is_category(self) -> bool:
        return isinstance(self.bins, CategoryBins)

    @property
    def values_before(self) -> Floats:
        """Rows per bin without the null bin."""
        return self.before[:-1]

    @property
    def values_after(self) -> Floats:
        """Rows per bin without the null bin."""
        return self.after[:-1]

    @property
    def distance(self) -> "Distance":
        """How far the rows since the change are from the reference."""
        return distance(self.before, self.after, self.dispersion)


@dataclass(frozen=True, slots=True)
class Distance:
    """A log-likelihood ratio against "as in the reference", and what chance makes of it."""

    # Over its degrees of freedom and the dispersion: what chance does not explain; 0 or more.
    excess: float
    p_value: float


def smoothed(counts: Floats) -> Floats:
    """Shares of bins, none 0. ``counts``: [..., bins]."""
    raised = counts + _JEFFREYS
    shares: Floats = raised / raised.sum(axis=-1, keepdims=True)
    return shares


def distance(before: Floats, after: Floats, dispersion: float = 1.0) -> Distance:
    """The G test of two samples: 2 sum n log(n / expected), chi-squared in bins - 1 degrees of
    freedom (Wilks 1938); bins that neither filled are left out."""
    from scipy.special import chdtrc  # noqa: PLC0415 - not at start

    both = before + after
    held = both > 0
    total, before_rows, after_rows = both.sum(), before.sum(), after.sum()
    if not before_rows or not after_rows or held.sum() <= 1:
        return Distance(0.0, 1.0)
    ratio = _entropy(before, both * before_rows / total) + _entropy(
        after, both * after_rows / total
    )
    statistic, freedom = 2.0 * ratio / dispersion, float(held.sum() - 1)
    return Distance(max(statistic - freedom, 0.0), float(chdtrc(freedom, max(statistic, 0.0))))


def _entropy(counts: Floats, expected: Floats) -> float:
    held = counts > 0
    return float((counts[held] * np.log(counts[held] / expected[held])).sum())


def pooled(shares: Floats, *counts: Floats) -> tuple[Floats, ...]:
    """Shares and counts ([..., bins]) with all rare bins in one, the last."""
    rare = shares < _RARE
    return tuple(
        np.concatenate([each[..., ~rare], each[..., rare].sum(axis=-1, keepdims=True)], axis=-1)
        for each in (shares, *counts)
    )


def dispersion(before: Floats, windows: Floats) -> float:
    """Pearson's statistic of windows ([windows, bins]) against the reference over its degrees of
    freedom (McCullagh and Nelder 1989, 4.5): 1 where windows are as random samples of it."""
    shares, counts = pooled(smoothed(before), windows)
    rows = counts.sum(axis=1, keepdims=True)
    counts, rows = counts[rows[:, 0] > 0], rows[rows[:, 0] > 0]
    freedom = (int((shares > 0).sum()) - 1) * len(counts)
    if freedom < _FEWEST_FREEDOM:
        return 1.0
    expected = shares * rows
    # A reference of few rows is itself uncertain: that is no variation of the windows.
    spread = 1.0 + rows / max(float(before.sum()), 1.0)
    squares = (counts - expected) ** 2 / np.maximum(expected, 1e-12) / spread
    return float(np.clip(squares[:, shares > 0].sum() / freedom, 1.0, _MOST_DISPERSION))


def extended(layout: Layout, name: str, sums: Counts) -> Floats:
    """The feature's bins and its null bin, [..., bins + 1]."""
    values = layout.histogram(name, sums).astype(np.float64)
    nulls = layout.nulls(name, sums).astype(np.float64)
    return np.concatenate([values, nulls[..., None]], axis=-1)


def log_dirichlet(alpha: Floats, counts: Floats) -> Floats:
    """Log marginal likelihood of counts in one order under Dirichlet shares (Minka 2000).
    Shapes broadcast over [..., bins]."""
    from scipy.special import gammaln  # noqa: PLC0415 - not at start

    total, rows = alpha.sum(axis=-1), counts.sum(axis=-1)
    each = gammaln(alpha + counts) - gammaln(alpha)
    marginal: Floats = gammaln(total) - gammaln(total + rows) + each.sum(axis=-1)
    return marginal


def log_mean(values: Iterable[float] | Floats) -> float:
    """Log of the mean of exponentials: hypotheses of equal prior as one."""
    each = np.asarray(list(values) if not isinstance(values, np.ndarray) else values, dtype=float)
    top = float(each.max())
    return top + float(np.log(np.exp(each - top).mean()))
