"""The figures that a person's thresholds are held against: of a closed window, and of truths."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from homeostat_monitor.domain.bins import NumberBins
from homeostat_monitor.domain.judges import Finding
from homeostat_monitor.domain.judges.distance import distances
from homeostat_monitor.domain.layout import SCORE, Layout
from homeostat_monitor.domain.performance import Metric
from homeostat_monitor.domain.policy import Policy
from homeostat_monitor.domain.policy_rules import Measured
from homeostat_monitor.domain.sums import Counts
from homeostat_monitor.domain.windows import Window

_HOUR_US = 3_600_000_000
# What a finding's statistic is as a policy's metric.
_STATISTICS: Mapping[str, str] = MappingProxyType(
    {"median_delay_seconds": "label_delay_seconds", "estimated_loss": "estimated_loss"}
)
_MISSING = "missing_truth_share"


def of_window(
    policy: Policy, layout: Layout, reference: Counts, window: Window, segment: str
) -> Iterator[Measured]:
    """What the segment's rules ask for of a window's sums.

    The reference is the whole one's, also for a segment. Rates of arrival and distances have none.
    """
    wanted = {(each.metric, each.feature) for each in policy.rules if each.segment == segment}
    for metric, feature in sorted(wanted):
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
            continue
        yield Measured(metric, value, usual, window.rows, feature, segment)


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
