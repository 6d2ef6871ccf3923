"""Which rows are held out and which are trained on: a candidate never sees what it is judged by."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_retrainer.domain.errors import CannotRun

Micros = NDArray[np.int64]

_FEWEST_HOLDOUT_ROWS = 300
_MOST_HOLDOUT_ROWS = 2000
_HOLDOUT_SHARE = 5
# A smaller set is noise to any recipe.
_FEWEST_TRAINING_ROWS = 300


@dataclass(frozen=True, slots=True)
class Windows:
    """Lengths of the training windows, as multiples of the reference length W."""

    # "Everything" ends here, or an old stream's fits would grow without end.
    everything: float = 12.0
    quarter: float = 0.25

    def lengths(self, reference_rows: int) -> Mapping[str, int]:
        """Rows per window, by name, longest first."""
        return {
            "everything": int(self.everything * reference_rows),
            "reference": reference_rows,
            "quarter": int(self.quarter * reference_rows),
        }


@dataclass(frozen=True, slots=True)
class Split:
    """Half-open places in rows ordered by (known-at, event time)."""

    training: Mapping[str, tuple[int, int]]
    holdout: tuple[int, int]

    @property
    def holdout_rows(self) -> int:
        return self.holdout[1] - self.holdout[0]


def holdout_length(rows: int, reference_rows: int) -> int:
    """A fifth of what the reference window holds, 300 at least and 2,000 at most."""
    wanted = min(rows, reference_rows) // _HOLDOUT_SHARE
    return max(_FEWEST_HOLDOUT_ROWS, min(_MOST_HOLDOUT_ROWS, wanted))


def without_seen(
    known_at_us: Micros, first_known_at_us: Micros, champion_trained_to_us: int
) -> NDArray[np.intp]:
    """Places of all rows but those that were corrected since the champion was trained on them:
    they look new, and the champion has seen them."""
    is_seen = (known_at_us > champion_trained_to_us) & (first_known_at_us <= champion_trained_to_us)
    return np.flatnonzero(~is_seen)


def split(
    known_at_us: Micros, *, champion_trained_to_us: int, reference_rows: int, windows: Windows
) -> Split:
    """Newest rows as hold-out, all known after the champion's training ended; windows end where the
    hold-out begins, without rows that became known at that very moment.

    ``known_at_us`` must be sorted. CannotRun where too few rows are left for either.
    """
    rows = len(known_at_us)
    unseen_from = int(np.searchsorted(known_at_us, champion_trained_to_us, side="right"))
    begin = max(unseen_from, rows - holdout_length(rows, reference_rows))
    if rows - begin < _FEWEST_HOLDOUT_ROWS:
        raise CannotRun(
            f"{rows - begin} truths are newer than the champion's training, "
            f"{_FEWEST_HOLDOUT_ROWS} are needed to compare"
        )
    end = int(np.searchsorted(known_at_us, known_at_us[begin], side="left"))
    training: dict[str, tuple[int, int]] = {}
    for name, length in windows.lengths(reference_rows).items():
        window = (max(0, end - length), end)
        if end - window[0] >= _FEWEST_TRAINING_ROWS and window not in training.values():
            training[name] = window
    if not training:
        raise CannotRun(
            f"{end} truths are older than the hold-out, {_FEWEST_TRAINING_ROWS} are needed to train"
        )
    return Split(training, (begin, rows))
