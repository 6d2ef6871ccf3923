"""The figures that a person's thresholds are held against: of a closed window, and of truths."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from homeostat_monitor.domain.judges import Finding
from homeostat_monitor.domain.judges.distance import distances, expected_divergence
from homeostat_monitor.domain.performance.rolling import Metric
from homeostat_monitor.domain.policies.policy import PolicyRule
from homeostat_monitor.domain.policies.rules import Measured
from homeostat_monitor.domain.windows.bins import NumberBins
from homeostat_monitor.domain.windows.layout import SCORE, Layout
from homeostat_monitor.domain.windows.sums import Counts
from homeostat_monitor.domain.windows.window import Window

_HOUR_US = 3_600_000_000
# What a finding's statistic is as a policy's metric.
_STATISTICS: Mapping[str, str] = MappingProxyType(
    {"median_delay_seconds": "label_delay_seconds", "estimated_loss": "estimated_loss"}
)
_MISSING = "missing_truth_share"
# Chance that a calm window passes a distance's threshold: of the minutes of a month hardly one.
_BY_CHANCE = 1e-6


def rows_needed(rule: PolicyRule, layout: Layout, reference: Counts) -> int:
    """How many rows a window must have for a rule: its own ``least_rows``, and for a distance so
    many that chance alone hardly passes the threshold. A window like the reference has a distance
    too, the larger the fewer its rows (judges.distance).

    Nobody waits for more rows than the reference has: below the distance that two such samples
    have by chance no number of rows helps.
    """
    levels = [each for each in (rule.warning, rule.critical) if each is not None and each > 0]
    is_distance = rule.metric == "js_distance" and rule.feature in layout.names
    above = rule.comparison is not None and rule.comparison.is_above
    if not (is_distance and above and levels):
        return rule.least_rows
    held = layout.histogram(rule.feature, reference)
    rows = int(held.sum())
    if not rows:
        return rule.least_rows
    from scipy.special import chdtri  # noqa: PLC0415 - scipy takes a while to import: not at start

    # The bins that the reference lacks are one more.
    most = float(chdtri(int((held > 0).sum()), _BY_CHANCE))
    part = min(levels) ** 2 / expected_divergence(most) - 1 / rows
    present = rows / max(rows + int(layout.nulls(rule.feature, reference)), 1)
    return max(rule.least_rows, math.ceil(1 / max(part, 1 / rows) / present))


def of_window(
    rule: PolicyRule, layout: Layout, reference: Counts, window: Window
) -> Measured | None:
    """What a rule asks for of a window's sums; None where these do not tell.

    The reference is the whole one's, also for a segment. Rates of arrival and distances have none.
    """
    metric, feature = rule.metric, rule.feature
    value, usual = math.nan, math.nan
    if metric == "null_rate" and feature in layout.names:
        value = _null_rate(layout, feature, window.sums)
        usual = _null_rate(layout, feature, reference)
    elif metric == "js_distance" and feature in layout.names:
        value = _distance(layout, feature, reference, window.sums)
    elif metric == "mean_score":
        value, usual = _mean_score(layout, window.sums), _mean_score(layout, reference)
    elif metric == "arrival_rate":
        value = window.rows * _HOUR_US / max(window.end_us - window.start_us, 1)
    else:
        return None
    return Measured(metric, value, usual, window.rows, feature, rule.segment)


def of_findings(findings: Iterable[Finding], rows: int) -> Iterator[Measured]:
    """Delay and coverage of labels and the estimated loss, as their own rules measured them."""
    for each in findings:
        if each.statistic == _MISSING:
            yield Measured("label_coverage", 1.0 - each.observed, 1.0 - each.reference, rows)
        elif each.statistic in _STATISTICS:
            metric = _STATISTICS[each.statistic]
            yield Measured(metric, each.observed, each.reference, rows, segment=each.segment)


def of_metrics(metrics: Sequence[Metric]) -> Iterator[Measured]:
    """Rolling metrics of the newest truths."""
    for each in metrics:
        if each.span == "newest":
            yield Measured(each.name, each.value, each.reference, each.rows)


def _null_rate(layout: Layout, feature: str, sums: Counts) -> float:
    nulls = int(layout.nulls(feature, sums))
    rows = nulls + int(layout.histogram(feature, sums).sum())
    return nulls / rows if rows else math.nan


def _distance(layout: Layout, feature: str, reference: Counts, sums: Counts) -> float:
    """Jensen-Shannon, base 2, 0 to 1."""
    measured, _ = distances(
        layout.histogram(feature, reference), layout.histogram(feature, sums)[None, :]
    )
    return float(measured[0])


def _mean_score(layout: Layout, sums: Counts) -> float:
    """By the middles of the bins that scores are counted in."""
    bins = layout.bins[layout.names.index(SCORE)]
    counts = layout.histogram(SCORE, sums)
    rows = int(counts.sum())
    if not isinstance(bins, NumberBins) or not len(bins.edges) or not rows:
        return math.nan
    edges = bins.edges.astype(np.float64)
    middles = np.concatenate([edges[:1], (edges[:-1] + edges[1:]) / 2, edges[-1:]])
    return float(counts @ middles / rows)
