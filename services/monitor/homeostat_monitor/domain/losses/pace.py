"""How many truths come in a month: what a budget per month allows each of them."""

from dataclasses import dataclass

MONTH_US = 30 * 86_400_000_000
# A shorter time says little of a month: a backlog may come in within seconds.
_SHORTEST_US = 86_400_000_000
# Fewer than this in a month are judged as if they were so many.
_FEWEST = 100_000.0


@dataclass(slots=True)
class Pace:
    """Truths and the known-at times of the first and the latest one."""

    begun_us: int = 0
    latest_us: int = 0
    fed: int = 0
    # Fed before the present month began, and in a month before that.
    fed_before: int = 0
    in_last_month: float = 0.0

    def take(self, known_at_us: int) -> None:
        """One more truth; times do not fall."""
        if not self.fed:
            self.begun_us = known_at_us
        elif known_at_us - self.begun_us >= MONTH_US:
            # Traffic grows: what a month brings is what the newest ones brought.
            self.in_last_month = self._in_a_month()
            self.begun_us, self.fed_before = known_at_us, self.fed
        self.latest_us = known_at_us
        self.fed += 1

    def rows_per_false_alarm(self, false_alarms_per_month: float) -> float:
        """Truths between two false alarms, so that a month has no more than that. A backlog makes
        it large at first, which costs little: patience grows with its logarithm."""
        in_a_month = max(self._in_a_month(), self.in_last_month, _FEWEST)
        return in_a_month / max(false_alarms_per_month, 1e-6)

    def _in_a_month(self) -> float:
        elapsed = max(self.latest_us - self.begun_us, _SHORTEST_US)
        return (self.fed - self.fed_before) * MONTH_US / elapsed
