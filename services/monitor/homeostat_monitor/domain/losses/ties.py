"""In which order truths are taken that became known at one moment and are of one event time.

Many are: a request of a thousand rows, a nightly file of labels, times that are dates. Nothing says
which came first. Ordered by their losses they would rise within each moment, and any detector of
rises would tell of it; ordered by ids, the same stream sent twice would be judged in two ways. So
each kind of row is spread evenly over the moment, from a place that its own figures choose.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Micros = NDArray[np.int64]
Bits = NDArray[np.uint64]


def fair_order(
    known_at_us: Micros,
    event_times_us: Micros,
    figures: Sequence[NDArray[np.float64]],
    ids: NDArray[np.bytes_] | None = None,
) -> NDArray[np.intp]:
    """The rows' places by (known at, event time), those of one moment mixed fairly.

    ``figures``: columns of losses, scores and the like. Rows with the same figures are one kind;
    the order depends on nothing but times and figures, and among one kind's rows on their ids.
    """
    if not len(known_at_us):
        return np.empty(0, dtype=np.intp)
    bits = [each.astype("<f8").view(np.uint64) for each in figures]
    last = () if ids is None else (ids,)
    order = np.lexsort((*last, *bits, event_times_us, known_at_us))
    moment = _group_of([known_at_us[order], event_times_us[order]])
    if moment[-1] + 1 == len(order):
        return order
    kind = _group_of([moment, *(each[order] for each in bits)])
    counts = np.bincount(kind)
    rank = np.arange(len(order)) - (np.cumsum(counts) - counts)[kind]
    place = (rank + _share(bits, order)) / counts[kind]
    mixed: NDArray[np.intp] = order[np.lexsort((kind, place, moment))]
    return mixed


def _group_of(columns: Sequence[NDArray[np.generic]]) -> NDArray[np.intp]:
    """Numbers of the runs of equal rows."""
    is_new = np.zeros(len(columns[0]), dtype=bool)
    for each in columns:
        is_new[1:] |= each[1:] != each[:-1]
    return np.cumsum(is_new)


def _share(bits: Sequence[Bits], order: NDArray[np.intp]) -> NDArray[np.float64]:
    """Per row a share in [0, 1) that its figures choose: splitmix64 (Steele et al., 2014)."""
    state = np.zeros(len(order), dtype=np.uint64)
    for each in bits:
        state = (state ^ each[order]) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)) / float(1 << 53)
