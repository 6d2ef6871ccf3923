"""How many predictions get a truth once the usual delay is over: fewer than there used to be?"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses.pace import MONTH_US

Ints = NDArray[np.int64]

# Fewer predictions than this say too little by themselves: the next span joins them.
_FEWEST = 200
# The first so many looks with so many predictions make the reference.
_LEARNED_LOOKS = 8
_LEARNED = 1000
# Looks are judged alone and as the sum of the newest so many.
_NEWEST_LOOKS = 5
_TESTS = 2
# A smaller loss of coverage is of no consequence.
_MATERIAL = 0.02
# Spans whose delay is not over; the oldest are given up, the delay is a multiple of few.
_MOST_PENDING = 512


@dataclass(frozen=True, slots=True)
class Look:
    """Predictions that are old enough, and how many of them have a truth."""

    predictions: int
    truths: int


@dataclass(slots=True)
class Coverage:
    """Counts per span of event time of ``length_us``."""

    length_us: int
    # Per start of a span: predictions and truths.
    pending: dict[int, list[int]] = field(default_factory=dict)
    # Up to here predictions have been told.
    told_until_us: int | None = None
    # Spans that begin before were judged.
    judged_until_us: int | None = None
    # Truths that came after their span was judged.
    late: int = 0
    joined: list[int] = field(default_factory=lambda: [0, 0])
    learned: list[list[int]] = field(default_factory=list)
    newest: list[list[int]] = field(default_factory=list)

    def predicted(self, start_us: int, end_us: int, rows: int) -> None:
        """A closed window's predictions."""
        self._add(start_us, 0, rows)
        self.told_until_us = max(end_us, self.told_until_us or end_us)

    def feed(self, events: Ints) -> None:
        """Event times of truths that became known."""
        starts, counts = np.unique(events // self.length_us, return_counts=True)
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
            self._add(start * self.length_us, 1, count)

    def _add(self, at_us: int, column: int, rows: int) -> None:
        start = at_us // self.length_us * self.length_us
        if self.judged_until_us is not None and start < self.judged_until_us:
            self.late += rows if column == 1 else 0
            return
        self.pending.setdefault(start, [0, 0])[column] += rows
        while len(self.pending) > _MOST_PENDING:
            del self.pending[min(self.pending)]

    def judge(self, until_us: int, level: float) -> list[Finding]:
        """Spans that ended before ``until_us`` (a watermark of truths less the patience); nothing
        where none has become old enough. ``level``: false alarms per month."""
        until = min(until_us, self.told_until_us if self.told_until_us is not None else until_us)
        due = sorted(start for start in self.pending if start + self.length_us <= until)
        found: list[Finding] = []
        for start in due:
            predictions, truths = self.pending.pop(start)
            self.judged_until_us = start + self.length_us
            # A thin window is told with the next ones: their predictions stand in its first span,
            # so that truths of spans without predictions belong to the ones before.
            if predictions and self.joined[0] >= _FEWEST:
                look = Look(self.joined[0], min(self.joined[1], self.joined[0]))
                self.joined = [0, 0]
                found = self._look(look, level) or found
            self.joined = [self.joined[0] + predictions, self.joined[1] + truths]
            if not self.joined[0]:
                # Truths of predictions that nobody told of.
                self.joined = [0, 0]
        return found

    def _look(self, look: Look, level: float) -> list[Finding]:
        known = _sum(self.learned)
        if len(self.learned) < _LEARNED_LOOKS or known.predictions < _LEARNED:
            self.learned.append([look.predictions, look.truths])
            return []
        self.newest = [*self.newest, [look.predictions, look.truths]][-_NEWEST_LOOKS:]
        spread = _clumping(self.learned)
        per_look = min(level * self.length_us / MONTH_US / _TESTS, 0.5)
        both = (_finding(known, each, spread, per_look) for each in (look, _sum(self.newest)))
        return [max(both, key=lambda each: (each.is_breach, each.excess))]

    def dump(self) -> dict[str, Any]:
        """As JSON takes it."""
        values = asdict(self)
        values["pending"] = [[start, *counts] for start, counts in sorted(self.pending.items())]
        return values

    @classmethod
    def loaded(cls, values: dict[str, Any]) -> Self:
        """The opposite of dump."""
        pending = {start: [rows, truths] for start, rows, truths in values["pending"]}
        return cls(**(values | {"pending": pending}))


def _finding(known: Look, look: Look, spread: float, level: float) -> Finding:
    """Two binomial shares by their likelihood ratio; by Chernoff's bound chance makes as much of
    it no more often than exp(-ratio)."""
    missing, usual = _missing(look), _missing(known)
    both = Look(known.predictions + look.predictions, known.truths + look.truths)
    ratio = (_likelihood(known) + _likelihood(look) - _likelihood(both)) / spread
    p_value = math.exp(-max(ratio, 0.0)) if missing > usual else 1.0
    variance = max(usual * (1 - usual), 1.0 / known.predictions)
    chance = math.sqrt(variance * spread * (1 / known.predictions + 1 / look.predictions))
    threshold = usual + max(_MATERIAL, math.sqrt(2 * math.log(1 / level)) * chance)
    is_breach = p_value < level and missing > usual + _MATERIAL
    return Finding(
        Rule.LABEL_COVERAGE,
        "",
        "missing_truth_share",
        missing,
        usual,
        min(threshold, missing) if is_breach else max(threshold, missing),
        is_breach,
        p_value=p_value,
    )


def _missing(look: Look) -> float:
    return 1.0 - look.truths / max(look.predictions, 1)


def _likelihood(look: Look) -> float:
    parts = (look.truths, look.predictions - look.truths)
    return sum(each * math.log(each / look.predictions) for each in parts if each)


def _sum(looks: list[list[int]]) -> Look:
    return Look(sum(each[0] for each in looks), sum(each[1] for each in looks))


def _clumping(looks: list[list[int]]) -> float:
    """How much more the looks differ than independent predictions would; at least 1."""
    whole = _sum(looks)
    share = whole.truths / whole.predictions
    if len(looks) < 2 or not 0.0 < share < 1.0:
        return 1.0
    squares = [
        (truths - share * rows) ** 2 / (rows * share * (1 - share)) for rows, truths in looks
    ]
    return max(sum(squares) / (len(looks) - 1), 1.0)
