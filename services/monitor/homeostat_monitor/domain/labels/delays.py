"""How long truths take: more late ones than there used to be, under a budget."""

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses.anchored import Anchored, sample_of
from homeostat_monitor.domain.losses.pace import Pace

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Without a hold-out so many live delays make the reference, at least and at most.
_LEARNED = 500
_MOST_LEARNED = 5000
# ... seen over so many times the longest of them: at first only the quickest truths are known.
_SPANS = 3
# Late is what takes longer than this quantile and than this many medians.
_LATE_QUANTILE = 0.9
_LATE_MEDIANS = 1.5
# A prediction can be missed after so many times this quantile.
_PATIENCE_QUANTILE = 0.99
_PATIENCE = 1.5
# Newest truths whose delays are told.
_NEWEST = 500
# More late truths than this, over what the reference shows, are of consequence.
_MATERIAL = 0.1
_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Usual:
    """Delays as they used to be, in microseconds."""

    median_us: int
    # A truth is late if it takes longer.
    late_us: int
    # After this a prediction without a truth is missed.
    patience_us: int
    late_share: float


def usual(delays: Ints) -> Usual:
    """Of delays of at least one truth, none below 0."""
    median, late, longest = np.quantile(delays, [0.5, _LATE_QUANTILE, _PATIENCE_QUANTILE])
    limit = int(max(late, _LATE_MEDIANS * median, _SECOND_US))
    patience = int(max(_PATIENCE * longest, limit))
    return Usual(int(median), limit, patience, float((delays > limit).mean()))


class Delays:
    """Fed with every truth's delay in the order in which truths became known."""

    def __init__(self, false_alarms_per_month: float) -> None:
        self._budget = false_alarms_per_month
        self._pace = Pace()
        self.usual: Usual | None = None
        self._test: Anchored | None = None
        self._learning: list[int] = []
        self._first_event_us: int | None = None
        self._newest: deque[int] = deque(maxlen=_NEWEST)
        self._is_told = False
        # Truths since it was told.
        self._since = 0

    def learn(self, delays: Ints) -> None:
        """Makes them the reference, in their order."""
        self.usual = usual(delays)
        late = (delays > self.usual.late_us).astype(np.float64)
        self._test = Anchored(sample_of(late), rows_per_false_alarm=self._allowed())

    def feed(self, known_at: Ints, delays: Ints) -> None:
        """Delays that are not below 0, with the times at which the truths became known."""
        for at_us, delay in zip(known_at.tolist(), delays.tolist(), strict=True):
            self._pace.take(at_us)
            self._newest.append(delay)
            if self.usual is None or self._test is None:
                self._learn_live(at_us, delay)
                continue
            self._since += 1
            if self._test.update(float(delay > self.usual.late_us)):
                self._is_told, self._since = True, 0
                self._test.clear()
            if self._pace.fed % 100 == 0:
                self._test.allow(self._allowed())

    def findings(self) -> list[Finding]:
        """The share of late truths among the newest; none while the usual delay is not known."""
        if self.usual is None or self._test is None or not self._newest:
            return []
        newest = np.array(self._newest, dtype=np.int64)
        share = float((newest > self.usual.late_us).mean())
        limit = min(self.usual.late_share + _MATERIAL, 1.0)
        if share <= limit and self._since >= _NEWEST:
            self._is_told = False
        is_breach = self._is_told and share > limit
        median = float(np.median(newest)) / _SECOND_US
        usual_median, late = self.usual.median_us / _SECOND_US, self.usual.late_us / _SECOND_US
        return [
            Finding(
                Rule.LABEL_DELAY, "", "late_share", share, self.usual.late_share, limit, is_breach
            ),
            Finding(
                Rule.LABEL_DELAY,
                "",
                "median_delay_seconds",
                median,
                usual_median,
                late,
                is_breach and median > late,
            ),
        ]

    def _allowed(self) -> float:
        return self._pace.rows_per_false_alarm(self._budget)

    def _learn_live(self, at_us: int, delay: int) -> None:
        event_us = at_us - delay
        first = event_us if self._first_event_us is None else min(self._first_event_us, event_us)
        self._first_event_us = first
        self._learning.append(delay)
        if len(self._learning) < _LEARNED or len(self._learning) % 100:
            return
        is_long = at_us - first >= _SPANS * max(self._learning)
        if is_long or len(self._learning) >= _MOST_LEARNED:
            self.learn(np.array(self._learning, dtype=np.int64))
            self._learning = []

    def dump(self) -> tuple[dict[str, Any], dict[str, Floats | Ints]]:
        """Values and arrays, as ``loaded`` takes them."""
        values = {
            "pace": asdict(self._pace),
            "usual": None if self.usual is None else asdict(self.usual),
            "first_event_us": self._first_event_us,
            "is_told": self._is_told,
            "since": self._since,
        }
        return values, {
            "test": np.empty(0) if self._test is None else self._test.dump(),
            "learning": np.array(self._learning, dtype=np.int64),
            "newest": np.array(self._newest, dtype=np.int64),
        }

    @classmethod
    def loaded(cls, values: dict[str, Any], arrays: dict[str, NDArray[Any]], budget: float) -> Self:
        """The opposite of dump."""
        delays = cls(budget)
        delays._pace = Pace(**values["pace"])
        if values["usual"] is not None:
            delays.usual = Usual(**values["usual"])
            delays._test = Anchored.loaded(arrays["test"])
        delays._first_event_us = values["first_event_us"]
        delays._is_told, delays._since = bool(values["is_told"]), int(values["since"])
        delays._learning = arrays["learning"].tolist()
        delays._newest.extend(arrays["newest"].tolist())
        return delays
