"""From alarms to a table: recall, delay, false alerts, cost; with 95 % intervals."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from benchmarks.monitor.looking import Looked
from numpy.typing import NDArray

# Alarms within so many rows of the last count as one.
_ONE_ALERT_ROWS = 1000
_SOON_ROWS = 2000
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One detector on one episode."""

    false_alerts: int
    calm_rows: int
    # NaN where it was not seen.
    delay_rows: float
    rows: int
    look_seconds: float
    fit_seconds: float


@dataclass(frozen=True, slots=True)
class Line:
    """One detector on all of them."""

    detector: str
    episodes: int
    recall: float
    recall_within_2000: float
    recall_interval: tuple[float, float]
    median_delay_rows: float
    false_alerts_per_100k: float
    rows_per_second: float
    fit_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def scored(looked: Iterable[Looked]) -> list[Line]:
    """A line per detector that occurs."""
    by_detector: dict[str, list[_Outcome]] = {}
    for each in looked:
        for detector, alarms in each.alarms.items():
            by_detector.setdefault(detector, []).append(_outcome(each, alarms))
    return [_line(detector, outcomes) for detector, outcomes in by_detector.items()]


def _outcome(looked: Looked, alarms: Sequence[int]) -> _Outcome:
    begins = looked.episode.begins
    false_alerts, last = 0, -_ONE_ALERT_ROWS
    for row in alarms:
        if row < begins and row - last >= _ONE_ALERT_ROWS:
            false_alerts, last = false_alerts + 1, row
    delay = next((row - begins for row in alarms if row >= begins), np.nan)
    return _Outcome(
        false_alerts,
        begins,
        delay,
        looked.episode.rows,
        looked.look_seconds,
        looked.fit_seconds,
    )


def _line(detector: str, outcomes: Sequence[_Outcome]) -> Line:
    delays = np.array([each.delay_rows for each in outcomes])
    seen = delays[np.isfinite(delays)]
    soon = delays <= _SOON_ROWS
    return Line(
        detector,
        len(outcomes),
        round(len(seen) / len(delays), 3),
        round(float(soon.mean()), 3),
        _interval(soon),
        float(np.median(seen)) if len(seen) else float("nan"),
        round(1e5 * sum(o.false_alerts for o in outcomes) / sum(o.calm_rows for o in outcomes), 2),
        round(sum(o.rows for o in outcomes) / max(sum(o.look_seconds for o in outcomes), 1e-9)),
        round(float(np.mean([o.fit_seconds for o in outcomes])), 3),
    )


def _interval(hits: NDArray[np.bool_]) -> tuple[float, float]:
    """95 %, by drawing the episodes again."""
    draw = np.random.default_rng(0)
    means = hits[draw.integers(0, len(hits), (_RESAMPLES, len(hits)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return round(float(low), 3), round(float(high), 3)


def table(lines: Sequence[Line]) -> str:
    """Markdown."""
    head = (
        "| detector | episodes | recall | within 2,000 (95 %) | median delay | "
        "false alerts / 100k | rows/s | fit, s |\n|---|---|---|---|---|---|---|---|"
    )
    rows = [
        f"| {each.detector} | {each.episodes} | {each.recall:.2f} | {each.recall_within_2000:.2f} "
        f"({each.recall_interval[0]:.2f}-{each.recall_interval[1]:.2f}) | "
        f"{each.median_delay_rows:.0f} | {each.false_alerts_per_100k:.1f} | "
        f"{each.rows_per_second:,} | {each.fit_seconds:.2f} |"
        for each in lines
    ]
    return "\n".join([head, *rows])
