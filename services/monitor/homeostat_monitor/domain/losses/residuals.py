"""Truth less score, on a scale from 0 to 1, and bands of scores in which it is compared.

Within a band of scores a shift of the inputs alone hardly moves it, if the scores mean what they
say; a change of what follows from the inputs does.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.losses.truths import Task, Truths

Floats = NDArray[np.float64]

# Quantile bands of the hold-out's scores, at most; fewer where one would hold too few rows.
_MOST_BANDS = 5
_FEWEST_ROWS = 200
# Errors of a regression have long tails; in deviations from their mean.
_CLIP = 4.0
_TAILS = (0.01, 0.99)


@dataclass(frozen=True, slots=True)
class Residuals:
    """What is compared with: made of the hold-out once."""

    task: Task
    # Of a residual in its own unit; 0 and 1 for classification.
    mean: float
    deviation: float
    # Inner edges of the bands, rising.
    edges: Floats
    # Per band the mean of the scaled residual.
    means: Floats

    @classmethod
    def of(cls, rows: Truths, task: Task) -> Self:
        """From rows that are all finite, at least one."""
        raw = raw_residuals(rows, task)
        mean, deviation = 0.0, 1.0
        if task is Task.REGRESSION:
            low, high = np.quantile(raw, _TAILS)
            usual = np.clip(raw, low, high)
            mean, deviation = float(usual.mean()), float(usual.std()) or max(float(abs(mean)), 1e-9)
        bands = max(min(_MOST_BANDS, len(raw) // _FEWEST_ROWS), 1)
        inner = np.linspace(0, 1, bands + 1)[1:-1]
        edges = np.unique(np.quantile(rows.scores, inner, method="higher"))
        first = cls(task, mean, deviation, edges, np.full(len(edges) + 1, 0.5))
        scaled, band = first.scaled(rows), first.bands(rows)
        counts = np.bincount(band, minlength=len(edges) + 1)
        sums = np.bincount(band, weights=scaled, minlength=len(edges) + 1)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), 0.5)
        return cls(task, mean, deviation, edges, means)

    def scaled(self, rows: Truths) -> Floats:
        """Each in 0..1; 0.5 is no residual (of a regression: the hold-out's mean error)."""
        raw = raw_residuals(rows, self.task)
        if self.task is not Task.REGRESSION:
            return np.clip((raw + 1.0) / 2.0, 0.0, 1.0)
        z = np.clip((raw - self.mean) / self.deviation, -_CLIP, _CLIP)
        scaled: Floats = (z + _CLIP) / (2.0 * _CLIP)
        return scaled

    def bands(self, rows: Truths) -> NDArray[np.intp]:
        """Each row's band, 0 .. len(edges)."""
        return np.searchsorted(self.edges, rows.scores, side="right")

    def centred(self, scaled: Floats, band: NDArray[np.intp]) -> Floats:
        """As if each band's hold-out mean were 0.5: scores may then move from band to band."""
        return np.clip(scaled - self.means[band] + 0.5, 0.0, 1.0)

    @property
    def unit(self) -> float:
        """A whole step of the scale in the residual's own unit."""
        return 2.0 * _CLIP * self.deviation if self.task is Task.REGRESSION else 2.0


def raw_residuals(rows: Truths, task: Task) -> Floats:
    """Truth less score; of several classes: whether the decision was right less its confidence."""
    if task is Task.MULTICLASS:
        right: Floats = (rows.decisions == rows.truths).astype(np.float64)
        return right - rows.scores
    return rows.truths - rows.scores


def usable(rows: Truths, task: Task) -> NDArray[np.bool_]:
    """Rows with a finite score and truth, a probability where it has to be one."""
    mask = np.isfinite(rows.scores) & np.isfinite(rows.truths)
    if task is Task.MULTICLASS:
        mask &= np.isfinite(rows.decisions)
    if task is not Task.REGRESSION:
        mask &= (rows.scores >= 0.0) & (rows.scores <= 1.0)
    if task is Task.BINARY:
        mask &= (rows.truths == 0.0) | (rows.truths == 1.0)
    return mask
