"""The budget of false alarms that a person signs, and how all that may alarm share it.

``LEDGER`` is the one table of it. Every detector has its level from a line of the table; named
segments divide a line's part evenly between themselves and all rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

# A month as the budget counts it.
MONTH_US = 30 * 86_400_000_000


class Part(StrEnum):
    """What has a share of the budget of its own."""

    INPUTS = "inputs and scores"
    QUALITY = "arrivals and duplicates"
    LOSSES = "delayed loss"
    CONCEPT = "concept"
    LABELS = "label delay and coverage"
    ESTIMATE = "estimated loss"


@dataclass(frozen=True, slots=True)
class Share:
    """One line of the ledger."""

    share: float
    # Whether named segments are judged too, and divide it with all rows.
    has_segments: bool
    # How it is spent further.
    spent_by: str


# What a person's budget is spent by. The shares sum to 1; a person's own thresholds (POLICY) and
# what only explains an alert that is open (found segments, context residuals) spend nothing.
LEDGER: Mapping[Part, Share] = MappingProxyType(
    {
        Part.INPUTS: Share(
            0.5, True, "every bin, null, unseen text, range, shift, spread, pair; every span"
        ),
        Part.QUALITY: Share(0.1, True, "too few rows or none, too many, duplicates: a third each"),
        Part.LOSSES: Share(0.2, True, "the test anchored at the hold-out and ADWIN: a half each"),
        Part.CONCEPT: Share(0.1, False, "all scores, their bands, ADWIN: a third each"),
        Part.LABELS: Share(0.05, False, "delay and coverage: a half each"),
        Part.ESTIMATE: Share(0.05, False, "every estimate"),
    }
)


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """What one part may spend: false alarms in a month."""

    part: Part
    of_all_rows: float
    # None: the part does not judge segments.
    of_each_segment: float | None
    spent_by: str


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so many false alarms per model and month, over all features, segments and looks."""

    false_alarms_per_month: float = 1.0
    # Named ones.
    segments: int = 0

    def of(self, part: Part) -> float:
        """False alarms per month that a part may spend at one segment (or at all rows)."""
        line = LEDGER[part]
        sharers = self.segments + 1 if line.has_segments else 1
        return self.false_alarms_per_month * line.share / sharers

    def lines(self) -> Iterator[BudgetLine]:
        """The ledger in false alarms per month."""
        for part, line in LEDGER.items():
            of_segment = self.of(part) if line.has_segments and self.segments else None
            yield BudgetLine(part, self.of(part), of_segment, line.spent_by)

    def level_per_look(self, pane_us: int, segments: int = 1) -> float:
        """The chance of a false alarm that one look at one segment may take, were all spent on it.

        A look happens at the end of every pane. The union bound needs no independence: the
        expected number of false alarms in a month is at most the sum over looks, so it holds
        however long one looks. ``segments`` counts the named ones and all rows together.
        """
        return level_per_look(self.false_alarms_per_month / max(segments, 1), pane_us)


def level_per_look(false_alarms_per_month: float, pane_us: int) -> float:
    """The chance of a false alarm at one look, where one happens at the end of every pane."""
    return min(false_alarms_per_month * pane_us / MONTH_US, 0.5)
