"""Whether the error depends on a column that the model does not use."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.diagnosis import ContextResidual
from homeostat_monitor.domain.diagnosis.rows import Codes, PastRows, cut_of

Floats = NDArray[np.float64]

# Over all columns of one diagnosis; a remark about a column costs a person an afternoon.
_LEVEL = 0.01
# Less than this share of the variance is no reason to change a model.
_LEAST_EXPLAINED = 0.005
_LEAST_ROWS = 200
_LEAST_PER_BIN = 5
# Residuals beyond so many deviations are pulled in: one outlier is no dependence.
_MOST_DEVIATIONS = 4.0


def context_residuals(
    now: PastRows,
    before: PastRows,
    *,
    unused: Sequence[str],
    is_multiclass: bool = False,
    most: int = 5,
) -> list[ContextResidual]:
    """Columns of ``unused`` on which the residuals depend now, the strongest first.

    The residual is truth less score; of a multiclass model the loss. What a column explains is
    epsilon squared (Kelley, An unbiased correlation ratio measure, PNAS 1935): the part of the
    variance between the column's bins, less what chance puts there. It is told where an F test
    says so at 1 % over all columns.
    """
    samples = [(each, _residuals(each, is_multiclass)) for each in (now, before)]
    found = []
    for name in unused:
        columns = [each.columns[name] for each in (now, before) if name in each.columns]
        cut = cut_of(columns) if name in now.columns else None
        if cut is None:
            continue
        (explained, p_value), (explained_before, _) = (
            _explained(residuals, cut.codes(rows.columns.get(name), len(rows)), cut.width + 1)
            for rows, residuals in samples
        )
        if p_value < _LEVEL / len(unused) and explained >= _LEAST_EXPLAINED:
            text = _text(name, explained, explained_before, is_multiclass)
            found.append(ContextResidual(name, explained, explained_before, text))
    return sorted(found, key=lambda each: (-each.explained, each.context))[:most]


def _residuals(rows: PastRows, is_multiclass: bool) -> Floats:
    residuals = rows.losses if is_multiclass else rows.truths - rows.scores
    known = residuals[np.isfinite(residuals)]
    if not len(known):
        return residuals
    reach = _MOST_DEVIATIONS * float(known.std())
    return np.clip(residuals, known.mean() - reach, known.mean() + reach)


def _explained(residuals: Floats, codes: Codes, width: int) -> tuple[float, float]:
    """Share of the variance between the bins, and how likely chance puts as much there."""
    known = np.isfinite(residuals)
    values, bins = residuals[known], codes[known].astype(np.intp)
    counts = np.bincount(bins, minlength=width)
    thin = counts[bins] < _LEAST_PER_BIN
    values, bins = values[~thin], bins[~thin]
    counts = np.bincount(bins, minlength=width)
    groups, rows = int((counts > 0).sum()), len(values)
    if rows < _LEAST_ROWS or groups < 2 or rows <= groups:
        return 0.0, 1.0
    values = values - values.mean()
    total = float(values @ values)
    held = counts > 0
    between = float((np.bincount(bins, values, width)[held] ** 2 / counts[held]).sum())
    within = max(total - between, 0.0) / (rows - groups)
    if total <= 0 or within <= 0:
        return 0.0, 1.0
    explained = max(0.0, (between - (groups - 1) * within) / total)
    return explained, _tail(between / (groups - 1) / within, groups - 1, rows - groups)


def _tail(statistic: float, above: int, below: int) -> float:
    from scipy.special import fdtrc  # noqa: PLC0415 - not at start; scipy.stats takes 2 s

    return float(fdtrc(above, below, statistic))


def _text(name: str, explained: float, explained_before: float, is_multiclass: bool) -> str:
    plain = name.removeprefix("context.")
    what = "the loss" if is_multiclass else "truth less score"
    return (
        f"{what[0].upper()}{what[1:]} depends on {plain}, a column you left out: it explains "
        f"{explained:.1%} of the variance now, {explained_before:.1%} before."
    )
