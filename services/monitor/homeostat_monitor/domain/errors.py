"""What can go wrong in the monitor, by what a caller can do about it."""


class MonitorError(Exception):
    """Root of the monitor's errors."""


class UnknownModel(MonitorError):
    """Nothing is known of this model: nobody predicted with it and no version was announced."""

    def __str__(self) -> str:
        return f"{super().__str__()}; cure: `homeostat models` lists those that were pushed"


class UnusableReference(MonitorError):
    """A version's reference profile cannot be judged against; the message says why."""


class UnreadableBlock(MonitorError):
    """A block's columns do not fit its row count or its signature."""


class CorruptState(MonitorError):
    """A stored detector state is not what was written; it must be rebuilt."""


class UnknownAlert(MonitorError):
    """There is no alert of this id."""


class StaleRevision(MonitorError):
    """Somebody set the policy in between; the message names the present revision."""


class BadRequest(MonitorError):
    """What was asked for can't be; the message says what and the cure."""
