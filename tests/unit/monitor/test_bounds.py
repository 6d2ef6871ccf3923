"""What is skipped because a bound says that it cannot matter, cannot matter; and what is faster
gives the same numbers."""

import numpy as np
import pytest

from homeostat_monitor.domain.detection.looking import _MARGIN, _SELDOM
from homeostat_monitor.domain.detection.tails import log_chi2, log_mean, log_tail
from homeostat_monitor.domain.windows.bins import NumberColumn, number_bins
from homeostat_monitor.domain.windows.sums import _FEW_GROUPS, _added

ROWS = 100_000


def counts_of_cells(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """k of m window rows, r of n reference rows; from hardly any to nearly all."""
    n = np.exp(rng.uniform(0, 12, ROWS)).round()
    m = np.exp(rng.uniform(0, 9, ROWS)).round()
    rare = np.minimum(rng.integers(0, 6, ROWS), n)
    r = np.where(rng.random(ROWS) < 0.3, rare, (n * rng.beta(0.5, 0.5, ROWS)).round())
    near = np.minimum(m, (m * r / n + np.exp(rng.uniform(0, 6, ROWS))).round())
    k = np.where(rng.random(ROWS) < 0.5, near, rng.integers(0, m.astype(int) + 1, ROWS))
    return k.astype(np.float64), m, r, n


def pearson(k: np.ndarray, m: np.ndarray, r: np.ndarray, n: np.ndarray) -> np.ndarray:
    of, rest = k + r, m + n - k - r
    varies = (of > 0) & (rest > 0)
    scale = np.where(varies, of * rest * m * n, 1.0)
    found: np.ndarray = np.where(varies, (k * n - r * m) ** 2 * (m + n) / scale, 0.0)
    return found


def test_no_cell_is_less_likely_than_its_statistic_allows() -> None:
    k, m, r, n = counts_of_cells(np.random.default_rng(1))
    more, statistic = k * n > m * r, pearson(k, m, r, n)
    log_p = log_tail(k, m, r, n, more)
    varies = statistic > 0
    assert (log_p >= -statistic - _MARGIN)[varies].all()
    seldom = varies & more & (2 * (k + r) <= m + n) & (m <= n)
    assert seldom.sum() > ROWS / 10
    assert (log_p >= -_SELDOM * statistic - _MARGIN)[seldom].all()
    # That all of k rows are of the cell is rarer than that k of more rows are.
    assert (log_p >= k * np.log((r + 1) / (n + 1)) - 1e-6)[more].all()


def test_no_mean_and_no_histogram_is_less_likely_than_its_statistic_allows() -> None:
    rng = np.random.default_rng(2)
    z, skew, kurt = rng.uniform(-12, 12, ROWS), rng.normal(0, 3, ROWS), rng.normal(0, 9, ROWS)
    of_mean = log_mean(z, np.ones(ROWS), rng.uniform(1, 4000, ROWS), skew, kurt)
    assert (of_mean >= np.minimum(np.log(2) - z**2 / 2, 0) - 1e-9).all()
    statistic, freedom = rng.uniform(0, 500, ROWS), rng.integers(0, 250, ROWS).astype(float)
    bound = -(statistic - np.maximum(freedom, 1)) / 2
    assert (log_chi2(statistic, freedom) >= np.minimum(bound, 0) - 1e-9).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_many_rows_fall_into_the_bins_that_few_do(kind: type) -> None:
    rng = np.random.default_rng(3)
    values = (rng.normal(size=4000) * 20).round().astype(kind)
    bins = number_bins(NumberColumn(values[:1000]))
    if kind is not np.int64:
        values[::7], values[::11], values[::13], values[::17] = np.nan, np.inf, -np.inf, -0.0
    nulls = rng.random(4000) < 0.1
    whole = bins.assign(NumberColumn(values, nulls))
    parts = [
        bins.assign(NumberColumn(values[i : i + 9], nulls[i : i + 9])) for i in range(0, 4000, 9)
    ]
    assert whole.tolist() == np.concatenate(parts).tolist()


@pytest.mark.parametrize("groups", [1, 2, _FEW_GROUPS, _FEW_GROUPS + 1])
def test_sums_of_groups_are_exact_however_many_there_are(groups: int) -> None:
    rng = np.random.default_rng(groups)
    weights = rng.integers(-(2**40), 2**40, (30, 8192)).astype(np.float64)
    of = rng.integers(0, groups, 8192)
    expected = [[int(each[of == group].sum()) for each in weights] for group in range(groups)]
    assert _added(weights, of, groups).tolist() == expected
