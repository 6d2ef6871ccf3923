"""Do truths come as soon, and for as many predictions, as they used to?

A prediction is missed only when the usual delay is over: truths that wait in a backlog are not
missing yet.
"""

from collections.abc import Mapping
from typing import Self

import numpy as np

from homeostat_monitor.domain.judges import Finding
from homeostat_monitor.domain.labels.coverage import Coverage
from homeostat_monitor.domain.labels.delays import Delays
from homeostat_monitor.domain.losses.truths import Truths
from homeostat_monitor.domain.state import pack, unpack, unreadable

_FORM = "labels-2"
# Without a known delay predictions are counted in spans of about this.
_SPAN_US = 3_600_000_000
# With one: the delay is about so many spans.
_SPANS = 32


class LabelWatch:
    """Label delay and coverage of one version."""

    name = "labels"

    def __init__(self, length_us: int, false_alarms_per_month: float) -> None:
        """See ``seeded``."""
        self._length_us = length_us
        self._budget = false_alarms_per_month
        self._not_usable = 0
        self._delays = Delays(false_alarms_per_month / 2)
        self._coverage = Coverage(_whole_lengths(_SPAN_US, length_us))

    @classmethod
    def seeded(
        cls, holdout: Truths | None, *, length_us: int, false_alarms_per_month: float = 0.1
    ) -> Self:
        """``length_us``: of the windows in which predictions are counted. A hold-out whose truths
        were known at once tells no delay: it is learned from the first truths, as coverage is."""
        watch = cls(length_us, false_alarms_per_month)
        if holdout is None or not len(holdout):
            return watch
        delays = holdout.known_at_us - holdout.event_times_us
        delays = delays[delays >= 0]
        if len(delays) and np.median(delays) > 0:
            watch._delays.learn(delays)
            patience = watch._patience_us()
            watch._coverage.length_us = _whole_lengths(patience // _SPANS, length_us)
        return watch

    @property
    def is_learning(self) -> bool:
        """The usual delay is not known yet."""
        return self._delays.usual is None

    @property
    def not_usable(self) -> int:
        """Truths that were known before their event, and were left out."""
        return self._not_usable

    @property
    def covered(self) -> float | None:
        """Share of the newest predictions that are old enough that have a truth; None before."""
        looks = self._coverage.newest or self._coverage.learned
        predictions = sum(each[0] for each in looks)
        return sum(each[1] for each in looks) / predictions if predictions else None

    @property
    def delays(self) -> tuple[float, float] | None:
        """Median delay of the newest truths and the usual one, seconds; None while learning."""
        found = self._delays.findings()
        return (found[-1].observed, found[-1].reference) if found else None

    def feed(self, truths: Truths) -> None:
        """First truths as they became known; portions do not matter."""
        delays = truths.known_at_us - truths.event_times_us
        mask = delays >= 0
        self._not_usable += int((~mask).sum())
        self._delays.feed(truths.known_at_us[mask], delays[mask])
        self._coverage.feed(truths.event_times_us)

    def predicted(self, rows_by_start: Mapping[int, int]) -> None:
        """Predictions of closed windows, by the window's start; each window is told once."""
        for start, rows in sorted(rows_by_start.items()):
            self._coverage.predicted(start, start + self._length_us, rows)

    def judge(self, mark_us: int) -> list[Finding]:
        """Findings of Rule.LABEL_DELAY and, where predictions have become old enough, of
        Rule.LABEL_COVERAGE, at this watermark of truths (known-at), also if none came."""
        found = self._delays.findings()
        if self._delays.usual is not None:
            until = mark_us - self._patience_us()
            found += self._coverage.judge(until, self._budget / 2)
        return found

    def _patience_us(self) -> int:
        return self._delays.usual.patience_us if self._delays.usual is not None else 0

    def to_bytes(self) -> bytes:
        """The whole state (domain/state.py)."""
        values, arrays = self._delays.dump()
        coverage = self._coverage.dump()
        whole = {"delays": values, "coverage": coverage, "not_usable": self._not_usable}
        return pack(_FORM, whole, arrays)

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        stored = unpack(_FORM, state)
        values = stored.values
        with unreadable("the label watch's state"):
            delays = Delays.loaded(values["delays"], dict(stored.arrays), self._budget / 2)
            coverage = Coverage.loaded(values["coverage"])
            not_usable = int(values["not_usable"])
        self._delays, self._coverage, self._not_usable = delays, coverage, not_usable


def _whole_lengths(span_us: int, length_us: int) -> int:
    return max(-(-span_us // length_us), 1) * length_us
