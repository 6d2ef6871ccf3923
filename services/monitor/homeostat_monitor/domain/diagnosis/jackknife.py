"""How sure a difference is where neighbouring rows resemble each other.

Rows in time order are cut into runs; what leaving out one run at a time does to the difference
says how much it rests on a few stretches of time (delete-a-group jackknife: Kunsch, The jackknife
and the bootstrap for general stationary observations, Annals of Statistics 1989).
"""

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.diagnosis.rows import Mask
from homeostat_monitor.domain.diagnosis.trees import Coded, Measure

Floats = NDArray[np.float64]


def runs_of(coded: Coded, count: int) -> NDArray[np.intp]:
    """Each row's run within its sample; rows of a sample are in the order of their event times.

    The first ``count`` are one half, the later ones the other: what wanders is at one place at the
    end of a run and at the beginning of the next, so that runs in turn would judge themselves.
    """
    runs = np.empty(len(coded), dtype=np.intp)
    for sample in (coded.is_now, ~coded.is_now):
        rows = int(sample.sum())
        runs[sample] = np.arange(rows) * 2 * count // max(rows, 1)
    return runs


def z_of(
    coded: Coded, branch: Mask, judged: Mask, runs: NDArray[np.intp], measure: Measure
) -> float:
    """In standard errors, the larger of those of independent rows and of the jackknife."""
    count = (int(runs.max()) + 1) // 2
    inside = _sums(coded, branch & judged, runs, count)
    rest = _sums(coded, ~branch & judged, runs, count)
    whole, others = inside.sum(axis=0), rest.sum(axis=0)
    independent = float(measure.z(whole, whole + others))
    if independent <= 0:
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        before, now = measure.contrast(whole, others).tolist()
        left_out = measure.contrast(whole - inside, others - rest)
        around = (left_out - left_out.mean(axis=0)) ** 2
        # What lies in one run only cannot be left out: nothing is known of how it varies.
        variance = float(np.nan_to_num(around.sum(), nan=np.inf)) * (count - 1) / count
    statistic = float((now - before) / np.sqrt(max(variance, 1e-300)))
    return min(independent, _normal(statistic, 2 * (count - 1)))


def _normal(statistic: float, freedom: int) -> float:
    """As unlikely a value of a normal variable: the variance comes from few runs only."""
    from scipy.special import ndtri, stdtr  # noqa: PLC0415 - scipy takes a second to import

    return -float(ndtri(stdtr(freedom, -statistic)))


def _sums(coded: Coded, rows: Mask, runs: NDArray[np.intp], count: int) -> Floats:
    """[runs, 2 samples, 3]: rows, sum and sum of squares of the values."""
    flat = runs[rows] % count * 2 + coded.is_now[rows]
    values = coded.values[rows]
    counted = [np.bincount(flat, each, minlength=2 * count) for each in (None, values, values**2)]
    stacked: Floats = np.stack(counted, axis=-1).astype(np.float64)
    return stacked.reshape(count, 2, 3)
