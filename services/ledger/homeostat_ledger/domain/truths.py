"""How truth settles: which truth of a prediction holds, what is news, what is counted.

A prediction's truths are ordered by (known at, event id) and the greatest holds, in whatever order
they arrive. News is a truth that holds now and differs from the one before it: the first truth has
revision 1, each correction one more. Counts depend on the set of truths alone, not on their order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A truth that belongs to a prediction, which is a block's number and a row.
TRUTH = np.dtype(
    [
        ("block", "i8"),
        ("row", "i4"),
        ("truth", "f8"),
        ("known_at_us", "i8"),
        ("event_high", "u8"),
        ("event_low", "u8"),
        ("event_row", "u4"),
        ("source_id", "i4"),
        ("by_client", "?"),
        ("revision", "i4"),
    ]
)
Truths = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Settled:
    """What arriving truths changed."""

    # All that arrived, with their revisions; 0 where they are no news.
    stored: Truths
    # Those that are news, in order, and the truth each replaces (NaN: the first).
    news: Truths
    previous: NDArray[np.float64]
    # Which truths held before and hold now, of every prediction touched.
    held_before: Truths
    held_now: Truths
    joined: int
    corrections: int
    repeated: int


def settle(known: Truths, arriving: Truths) -> Settled:
    """``known`` are all earlier truths of the predictions that ``arriving`` speaks of."""
    both = np.concatenate([known, arriving])
    is_new = np.repeat([False, True], [len(known), len(arriving)])
    order = in_order(both)
    both, is_new = both[order], is_new[order]
    starts, group = _groups(both)
    position = np.arange(len(both))
    last_known = _last_of(np.where(is_new, -1, position), starts)
    changed = _changed(both, starts)
    is_news = changed & (position > last_known[group])
    both["revision"] = _revisions(both, is_new, is_news, starts, group)
    before = both[~is_new]
    changed_before = int(_changed(before, _groups(before)[0]).sum())
    had_truth = last_known >= 0
    news_at = np.flatnonzero(is_news)
    joined = int((~had_truth).sum())
    differing = int(changed.sum())
    return Settled(
        stored=both[is_new],
        news=both[news_at],
        previous=np.where(
            both["revision"][news_at] == 1, np.nan, both["truth"][np.maximum(news_at - 1, 0)]
        ),
        held_before=both[last_known[had_truth]],
        held_now=both[np.append(starts[1:], len(both)) - 1] if len(both) else both,
        joined=joined,
        corrections=differing - changed_before - joined,
        repeated=(len(both) - differing) - (len(before) - changed_before),
    )


def in_order(truths: Truths) -> NDArray[np.intp]:
    """By prediction, then by what holds: known-at, then the event's id."""
    return np.lexsort(
        tuple(
            truths[name]
            for name in ("event_row", "event_low", "event_high", "known_at_us", "row", "block")
        )
    )


@dataclass(frozen=True, slots=True)
class Held:
    """Of several truths those that hold: one per prediction."""

    # Which of them hold.
    at: NDArray[np.intp]
    # Since when each one's value holds: a repeat that changes nothing does not date it anew.
    known_at_us: NDArray[np.int64]
    # When anything was first known of the prediction.
    first_known_at_us: NDArray[np.int64]

    def known_since(self, least_us: int) -> "Held":
        """Without those that held before."""
        kept = self.known_at_us >= least_us
        return Held(self.at[kept], self.known_at_us[kept], self.first_known_at_us[kept])


def held(truths: Truths) -> Held:
    """``truths`` are all of their predictions, up to some known-at."""
    known_at = truths["known_at_us"].copy()
    first_known_at = known_at.copy()
    predictions = (truths["block"] << 32) | truths["row"]
    _, first, count = np.unique(predictions, return_index=True, return_counts=True)
    if len(first) == len(truths):
        return Held(np.arange(len(truths)), known_at, first_known_at)
    several = np.isin(predictions, predictions[first[count > 1]])
    alone, among = np.flatnonzero(~several), np.flatnonzero(several)
    ordered = among[in_order(truths[among])]
    starts, _ = _groups(truths[ordered])
    changed = _changed(truths[ordered], starts)
    since = np.maximum.accumulate(np.where(changed, np.arange(len(ordered)), 0))
    last = np.append(starts[1:], len(ordered)) - 1
    known_at[ordered[last]] = truths["known_at_us"][ordered[since[last]]]
    first_known_at[ordered[last]] = truths["known_at_us"][ordered[starts]]
    at = np.sort(np.concatenate([alone, ordered[last]]))
    return Held(at, known_at[at], first_known_at[at])


def _groups(ordered: Truths) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    is_start = np.ones(len(ordered), dtype=bool)
    is_start[1:] = (ordered["block"][1:] != ordered["block"][:-1]) | (
        ordered["row"][1:] != ordered["row"][:-1]
    )
    return np.flatnonzero(is_start), np.cumsum(is_start) - 1


def _last_of(positions: NDArray[np.intp], starts: NDArray[np.intp]) -> NDArray[np.intp]:
    if not len(starts):
        return positions
    return np.maximum.reduceat(positions, starts)


def _changed(ordered: Truths, starts: NDArray[np.intp]) -> NDArray[np.bool_]:
    changed = np.ones(len(ordered), dtype=bool)
    changed[1:] = ordered["truth"][1:] != ordered["truth"][:-1]
    changed[starts] = True
    return changed


def _revisions(
    ordered: Truths,
    is_new: NDArray[np.bool_],
    is_news: NDArray[np.bool_],
    starts: NDArray[np.intp],
    group: NDArray[np.intp],
) -> NDArray[np.int32]:
    if not len(ordered):
        return ordered["revision"]
    old = np.where(is_new, 0, ordered["revision"])
    base = np.maximum.reduceat(old, starts)[group]
    counted = np.cumsum(is_news)
    before_group: NDArray[np.intp] = (counted - is_news)[starts][group]
    news = base + counted - before_group
    return np.where(is_new, np.where(is_news, news, 0), old).astype(np.int32)
