"""A shallow tree that is grown on one half of the rows and judged on the other.

Whatever the first half was searched for is no longer chance's choice on the second (honest trees:
Athey and Imbens, Recursive partitioning for heterogeneous causal effects, PNAS 2016).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.diagnosis.rows import Codes, Cut, Mask, NumberCut, with_null
from homeostat_monitor.domain.segments.joining import conjunction
from homeostat_monitor.domain.segments.nodes import Column, Node, Nullness

Floats = NDArray[np.float64]

MOST_DEPTH = 3
# A split that is not even this many standard errors wide in its own half is no lead.
_LEAST_Z = 2.0


@dataclass(frozen=True, slots=True)
class Coded:
    """All rows, those of before behind those of now; every column cut into bins."""

    names: Sequence[str]
    cuts: Sequence[Cut]
    codes: Sequence[Codes]
    is_now: Mask
    # What is compared: a loss, or 0.
    values: Floats

    def __len__(self) -> int:
        return len(self.is_now)


class Measure(Protocol):
    """How far two parts of the rows lie apart.

    ``inside`` and ``total`` are sums [..., 2, 3]: samples (before, now) by rows, value, its square.
    """

    def z(self, inside: Floats, total: Floats) -> Floats:
        """In standard errors, above 0 where the inside is worse; 0 where there are too few rows."""
        ...

    def contrast(self, inside: Floats, rest: Floats) -> Floats:
        """[..., 2]: what is compared between the samples."""
        ...


@dataclass(frozen=True, slots=True)
class Branch:
    """Rows that went one way, and what they have in common."""

    rows: Mask
    conditions: tuple[Node, ...]

    @property
    def expression(self) -> Node:
        return conjunction(self.conditions)


def grown(coded: Coded, half: Mask, measure: Measure) -> list[Branch]:
    """Every branch of the tree below its root, parents before their children."""
    found: list[Branch] = []
    level = [Branch(np.ones(len(coded), dtype=bool), ())]
    for _ in range(MOST_DEPTH):
        level = [part for each in level for part in _split(coded, half, each, measure)]
        found += level
    return found


def sums(coded: Coded, rows: Mask) -> Floats:
    """[2 samples, 3]: rows, sum and sum of squares of the values."""
    chosen = coded.is_now[rows].astype(np.intp)
    values = coded.values[rows]
    weights = (None, values, values**2)
    return np.stack([np.bincount(chosen, each, minlength=2) for each in weights], axis=-1)


def _split(coded: Coded, half: Mask, branch: Branch, measure: Measure) -> Iterator[Branch]:
    rows = np.flatnonzero(branch.rows & half)
    sample, values = coded.is_now[rows].astype(np.intp), coded.values[rows]
    best, of = 0.0, (0, 0)
    for place, (cut, codes) in enumerate(zip(coded.cuts, coded.codes, strict=True)):
        bins = _bin_sums(codes[rows], cut.width + 1, sample, values)
        inside = _insides(cut, bins)
        z = np.abs(measure.z(inside, bins.sum(axis=0)))
        at = int(z.argmax())
        if z[at] > best:
            best, of = float(z[at]), (place, at)
    if best >= _LEAST_Z:
        yield from _sides(coded, branch, *of)


def _bin_sums(codes: Codes, width: int, sample: NDArray[np.intp], values: Floats) -> Floats:
    """[bins, 2 samples, 3]."""
    flat = codes.astype(np.intp) * 2 + sample
    weights = (None, values, values**2)
    counted = [np.bincount(flat, each, minlength=2 * width) for each in weights]
    stacked: Floats = np.stack(counted, axis=-1).astype(np.float64)
    return stacked.reshape(width, 2, 3)


def _insides(cut: Cut, bins: Floats) -> Floats:
    """Sums inside of every split that the cut allows; the last one is null."""
    if isinstance(cut, NumberCut):
        return np.concatenate([np.cumsum(bins[:-1], axis=0)[:-1], bins[-1:]])
    return np.concatenate([bins[:-2], bins[-1:]])


def _sides(coded: Coded, branch: Branch, place: int, at: int) -> Iterator[Branch]:
    name, cut, codes = coded.names[place], coded.cuts[place], coded.codes[place]
    null = codes == cut.width
    if at == cut.width - 1:
        inside, column = null, Column(name)
        left: Node = Nullness(column, False)
        right: Node = Nullness(column, True)
    else:
        is_number = isinstance(cut, NumberCut)
        inside = codes <= at if is_number else codes == at
        left, right = cut.sides(name, at + 1 if is_number else at)
        has_nulls = bool((null & branch.rows).any())
        right = with_null(right, name, has_nulls=has_nulls)
    for rows, condition in ((inside, left), (~inside, right)):
        yield Branch(branch.rows & rows, (*branch.conditions, condition))


def coded_columns(
    cuts: Mapping[str, Cut], codes: Mapping[str, Codes], is_now: Mask, values: Floats
) -> Coded:
    """Columns in the order of ``cuts``."""
    names = tuple(cuts)
    return Coded(
        names, [cuts[each] for each in names], [codes[each] for each in names], is_now, values
    )
