"""Which features depend on each other in the reference, and how that is summed cheaply.

Every bin of a feature has one small whole number, its score; the sum of products of two features'
scores over rows says whether they still depend on each other as they did. A number's score is the
centred mid-rank of its bin (so the mean product is Spearman's correlation of binned values); a
text's is the direction in which the other features differ most between texts (the first component
of a correspondence analysis: Greenacre, "Correspondence Analysis in Practice").
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.windows.bins import Bins, CategoryBins, ColumnValues, NumberColumn
from homeostat_monitor.domain.windows.layout import Extras

Floats = NDArray[np.float64]

# One deviation of a score; small, so that sums of squares of products stay exact.
_UNIT = 64
_MOST_DEVIATIONS = 4.0
# Pairs that are watched: products cost about as much as a feature each.
_MOST_PAIRS = 16
# A weaker dependence is not seen to break before thousands of rows, or is chance: in deviations.
_WEAKEST = 0.15
_CERTAIN = 4.0
# Texts whose rows are for the most part luck's have no scores: what moves by regression to the
# mean alone, of all present rows.
_MOST_REGRESSING = 0.02
# A text's mean is drawn towards none as if so many more rows had been seen.
_SHRINK_ROWS = 50.0
# Beyond this a sum of squares may overflow.
_HUGE = 1e140
# Rows looked at to find the dependences.
_MOST_ROWS = 50_000


def extras_of(features: Mapping[str, ColumnValues], bins: Mapping[str, Bins]) -> Extras:
    """Scales, scores and pairs from the reference's columns; the same columns give the same."""
    rows = _sampled(features)
    places = {name: bins[name].assign(column)[rows] for name, column in features.items()}
    numbers = [name for name, each in bins.items() if not isinstance(each, CategoryBins)]
    scores = {name: _mid_ranks(places[name], bins[name].width) for name in numbers}
    # Scores of texts are fitted on every second row; what they say is measured on the others.
    fits = rows % 2 == 0
    fitted = {name: each[fits] for name, each in places.items()}
    known = {name: _standard(scores[name][fitted[name]]) for name in numbers}
    for name, each in bins.items():
        if isinstance(each, CategoryBins):
            is_luck = regressing(_held(places[name], each)) > _MOST_REGRESSING * len(rows)
            component = _first_component(name, fitted, bins, known)
            scores[name] = np.zeros_like(component) if is_luck else component
    whole = {
        name: np.append(np.rint(_UNIT * scores[name][:-1]), 0.0).astype(np.int64) for name in bins
    }
    return Extras(
        scales={name: _scale(features[name]) for name in numbers},
        scores={name: tuple(int(each) for each in whole[name][:-1]) for name in bins},
        pairs=_strongest({name: whole[name][places[name][~fits]] for name in bins}),
    )


def regressing(held: Floats) -> float:
    """How many rows the frequent texts will have less, and the others more, at most about.

    ``held``: reference rows of each text that has a bin of its own. Such a bin goes to texts that
    the reference had at least c times, and it had some of them by luck: what they will have less
    is c times how many it had exactly c times (Good-Turing).
    """
    if not len(held):
        return 0.0
    least = float(held.min())
    return 2 * least * (float((held == least).sum()) + 1)


def _held(places: NDArray[np.intp], bins: CategoryBins) -> Floats:
    """Rows of each text that has a bin of its own; none where there is no other text."""
    counts = np.bincount(places, minlength=bins.width + 1).astype(np.float64)
    is_whole = len(bins.table) == bins.kept
    return counts[:0] if is_whole else counts[: bins.kept]


def _sampled(features: Mapping[str, ColumnValues]) -> NDArray[np.intp]:
    """Evenly spread rows: neighbours in time say the same."""
    column = next(iter(features.values()), None)
    if column is None:
        return np.empty(0, dtype=np.intp)
    total = len(column.values if isinstance(column, NumberColumn) else column.codes)
    return np.unique(np.linspace(0, max(total - 1, 0), min(total, _MOST_ROWS)).astype(np.intp))


def _scale(column: ColumnValues) -> tuple[float, float]:
    """Mean and deviation of the present finite values; a constant's deviation is a part of it."""
    values = np.asarray(getattr(column, "values"), dtype=np.float64)  # noqa: B009
    if column.nulls is not None:
        values = values[~column.nulls]
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    # Squares of huge ones would be none any more.
    largest = float(np.abs(values).max())
    unit = largest if largest > _HUGE else 1.0
    values = values / unit
    mean, deviation = float(values.mean()) * unit, float(values.std()) * unit
    least = abs(mean) * 1e-9
    return mean, deviation if deviation > least else max(abs(mean) / 256, 1.0)


def _mid_ranks(places: NDArray[np.intp], width: int) -> Floats:
    """Centred mid-rank of every bin, in deviations of evenly spread ranks; null is 0."""
    counts = np.bincount(places, minlength=width + 1)[:width].astype(np.float64)
    total = max(counts.sum(), 1.0)
    ranks = (np.cumsum(counts) - counts / 2) / total - 0.5
    return np.append(ranks * np.sqrt(12.0), 0.0)


def _standard(values: Floats) -> Floats:
    deviation = values.std()
    if deviation == 0:
        return np.zeros_like(values)
    standard: Floats = (values - values.mean()) / deviation
    return standard


def _first_component(
    name: str,
    places: Mapping[str, NDArray[np.intp]],
    bins: Mapping[str, Bins],
    known: Mapping[str, Floats],
) -> Floats:
    """One number per text: where along the direction that differs most between texts it lies."""
    width = bins[name].width + 1
    counts = np.bincount(places[name], minlength=width).astype(np.float64)
    others = [*known.values()]
    for other, at in places.items():
        if other != name and other not in known:
            others += _indicators(at, bins[other].width)
    if not others:
        return np.zeros(width)
    sums = np.stack([np.bincount(places[name], each, minlength=width) for each in others], axis=1)
    means = sums / (counts + _SHRINK_ROWS)[:, None]
    weights = np.sqrt(counts / max(counts.sum(), 1.0))
    weights[-1] = 0.0
    left, _, _ = np.linalg.svd(means * weights[:, None], full_matrices=False)
    direction = left[:, 0]
    # The sign of a singular vector is nobody's choice.
    direction = direction * (1.0 if direction[np.argmax(np.abs(direction))] >= 0 else -1.0)
    scores = np.divide(direction, weights, out=np.zeros(width), where=weights > 0)
    share = weights**2
    scores -= float((share * scores).sum())
    spread = float(np.sqrt((share * scores**2).sum()))
    if spread == 0:
        return np.zeros(width)
    found: Floats = np.clip(scores / spread, -_MOST_DEVIATIONS, _MOST_DEVIATIONS)
    found[weights == 0] = 0.0
    own = bins[name]
    if isinstance(own, CategoryBins):
        # A text never seen is as good as one hardly ever seen.
        found[own.unseen] = found[own.kept]
    return found


def _indicators(places: NDArray[np.intp], width: int) -> Sequence[Floats]:
    held = np.bincount(places, minlength=width)[:width]
    common = [place for place in range(width) if held[place] >= _SHRINK_ROWS]
    return [_standard((places == place).astype(np.float64)) for place in common]


def _strongest(scored: Mapping[str, NDArray[np.int64]]) -> tuple[tuple[str, str], ...]:
    """The most dependent pairs: of every feature its strongest, then the strongest of all."""
    names = [name for name, each in scored.items() if each.any()]
    if not names:
        return ()
    standard = np.stack([_standard(scored[name].astype(np.float64)) for name in names])
    rows = max(standard.shape[1], 1)
    strength = np.triu(np.abs(standard @ standard.T) / rows, 1)
    # Compared in steps: a last bit that differs between machines must not choose other pairs.
    steps = np.rint(strength * 1000)
    least = max(_WEAKEST, _CERTAIN / np.sqrt(rows))
    found = sorted(
        (-steps[a, b], int(a), int(b)) for a, b in zip(*np.nonzero(strength >= least), strict=True)
    )
    first: list[tuple[str, str]] = []
    rest: list[tuple[str, str]] = []
    seen: set[int] = set()
    for _, a, b in found:
        (rest if {a, b} <= seen else first).append((names[a], names[b]))
        seen |= {a, b}
    return tuple([*first, *rest][:_MOST_PAIRS])
