"""What looks found: breaches only, as arrays that have one entry per breach."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.detection.tails import Floats

Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Hits:
    """Breaches: of which look, of what (cell, feature or pair), logarithms of p-values, and by how
    much they are below what may be spent (above 0)."""

    look: Places
    thing: Places
    log_p: Floats
    excess: Floats

    def __len__(self) -> int:
        return len(self.look)


@dataclass(frozen=True, slots=True)
class Looked:
    """All breaches of a portion of looks."""

    cells: Hits
    # Whether there are too many rows of each of these cells, or too few.
    is_more: NDArray[np.bool_]
    # Features' shift, spread and shape.
    moved: Hits
    pairs: Hits
    # Of all features together, which are one thing.
    joint: Hits

    def is_quiet(self) -> bool:
        """Nothing breaches."""
        return not any(map(len, (self.cells, self.moved, self.pairs, self.joint)))


_NOWHERE = np.empty(0, dtype=np.intp)
NOTHING = Hits(_NOWHERE, _NOWHERE, np.empty(0), np.empty(0))


def breaching(look: Places, thing: Places, log_p: Floats, limit: Floats) -> Hits:
    """Those whose p-value is below what may be spent on them."""
    excess = limit - log_p
    over = excess > 0
    return Hits(look[over], thing[over], log_p[over], excess[over])


def only(hits: Hits, chosen: NDArray[np.bool_]) -> Hits:
    """Those of a mask; copies."""
    return Hits(hits.look[chosen], hits.thing[chosen], hits.log_p[chosen], hits.excess[chosen])


def numbered(hits: Hits, thing: Places) -> Hits:
    """The same of other things."""
    return Hits(hits.look, thing, hits.log_p, hits.excess)


def joined(*parts: Hits) -> Hits:
    """All of them, in order."""
    held: Sequence[Hits] = [each for each in parts if len(each)]
    if len(held) <= 1:
        return held[0] if held else NOTHING
    columns = ("look", "thing", "log_p", "excess")
    return Hits(*(np.concatenate([getattr(each, name) for each in held]) for name in columns))


def where(suspects: NDArray[np.bool_]) -> tuple[Places, Places]:
    """Row and column of what is true; quick where that is hardly anything."""
    return np.divmod(suspects.ravel().nonzero()[0], suspects.shape[1])
