"""The budget of false alarms that a person signs, and what one look may spend of it."""

from dataclasses import dataclass

# A month as the budget counts it.
MONTH_US = 30 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so many false alarms per model and month, over all features, segments and looks."""

    false_alarms_per_month: float = 1.0

    def level_per_look(self, pane_us: int, segments: int = 1) -> float:
        """The chance of a false alarm that one look at one segment may take.

        A look happens at the end of every pane. The union bound needs no independence: the
        expected number of false alarms in a month is at most the sum over looks, so it holds
        however long one looks. ``segments`` counts the named ones and all rows together.
        """
        looks = MONTH_US / pane_us
        return min(self.false_alarms_per_month / (looks * max(segments, 1)), 0.5)
