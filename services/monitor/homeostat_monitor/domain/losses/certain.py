"""What ADWIN tells of is told to a person only where the budget of false alarms allows it.

ADWIN compares what it keeps with what it dropped, at its own delta for every cut of its window; no
number of false alarms in a month follows from that. So its find is held against the known sample
too, at a level that a union bound gives: over all of its looks in the rows between two false
alarms, and over all places at which it may cut.
"""

import math

# river's ADWIN looks after every so many values (its "clock").
_CLOCK = 32
# At most 5 cuts per doubling of the window's length: a window of a million values has fewer.
_CUTS = 100


def log_level(rows_per_false_alarm: float, sides: int = 1) -> float:
    """Logarithm of the chance that one cut may take."""
    return min(math.log(_CLOCK / (rows_per_false_alarm * _CUTS * sides)), math.log(0.5))


def log_chance(away: float, variance: float, rows: float, reference_rows: float) -> float:
    """How likely the mean of so many values in 0..1 is so far above a sample's mean by chance.

    Bernstein's inequality for the difference of two means; ``variance`` of one value, as far as
    one says something new.
    """
    if away <= 0.0:
        return 0.0
    together = 1.0 / (1.0 / max(rows, 1.0) + 1.0 / max(reference_rows, 1.0))
    square = away * away * together / max(variance, 1e-12)
    return -square / (2.0 * (1.0 + away / (3.0 * max(variance, 1e-12))))
