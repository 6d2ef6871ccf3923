"""Faults of our own making on made-up data of other shapes than public streams have."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from benchmarks.diagnosing.episodes import Episode, Floats, reference_of, text_column
from numpy.typing import NDArray

from homeostat_monitor.domain.windows.bins import ColumnValues, NumberColumn

_REFERENCE, _CLEAN, _AFTER = 5000, 2000, 5000
Columns = dict[str, NDArray[np.generic]]
Made = tuple[Columns, Floats]


def _sensors(rng: np.random.Generator, rows: int) -> Made:
    """A plant: temperature, its twin, a skewed flow, a pressure, a counter with zeros, a site."""
    heat = rng.normal(21, 6, rows)
    twin = heat + rng.normal(0, 1.5, rows)
    flow = np.exp(rng.normal(1.2, 0.7, rows))
    pressure = 4 + 0.05 * heat + rng.normal(0, 0.4, rows)
    drops = rng.poisson(0.7, rows) * 1.5
    site = rng.choice(["north", "south", "east", "west"], rows, p=[0.5, 0.28, 0.15, 0.07])
    logit = 0.25 * (heat - 21) + 0.4 * (flow - 4) * (site == "north") - (pressure - 5)
    return _with_truths(
        rng,
        {
            "heat": heat,
            "twin": twin,
            "flow": flow,
            "pressure": pressure,
            "drops": drops,
            "site": site,
        },
        logit,
    )


def _loans(rng: np.random.Generator, rows: int) -> Made:
    """Applicants: heavy tails, whole numbers, bounded shares, several categories."""
    income = rng.lognormal(10.3, 0.6, rows)
    debt = income * rng.beta(2, 5, rows)
    age = np.rint(rng.gamma(9, 4.5, rows) + 18)
    used = rng.beta(1.2, 3, rows)
    grade = rng.choice(list("ABCDE"), rows, p=[0.12, 0.31, 0.33, 0.17, 0.07])
    plan = rng.choice(["rent", "own", "mortgage"], rows, p=[0.45, 0.12, 0.43])
    rank = np.array([list("ABCDE").index(each) for each in grade])
    logit = 2.5 * used - 0.8 * np.log(income / 3e4) + 0.5 * (rank - 2) + (plan == "rent") - 1.2
    return _with_truths(
        rng,
        {"income": income, "debt": debt, "age": age, "used": used, "grade": grade, "plan": plan},
        logit,
    )


def _clicks(rng: np.random.Generator, rows: int) -> Made:
    """A shop: two peaks, seconds, counts, a flag, many texts."""
    hour = np.where(rng.random(rows) < 0.4, rng.normal(11, 2, rows), rng.normal(20, 1.5, rows)) % 24
    dwell = rng.exponential(42, rows)
    pages = rng.geometric(0.25, rows).astype(float)
    price = np.rint(rng.gamma(2, 20, rows)) + 0.99
    offer = rng.choice(["yes", "no"], rows, p=[0.2, 0.8])
    shares = 1 / np.arange(1, 41)
    country = rng.choice([f"c{n}" for n in range(40)], rows, p=shares / shares.sum())
    logit = 0.02 * dwell + 0.2 * pages - 0.02 * price + 1.2 * (offer == "yes") - 1.4
    return _with_truths(
        rng,
        {
            "hour": hour,
            "dwell": dwell,
            "pages": pages,
            "price": price,
            "offer": offer,
            "country": country,
        },
        logit,
    )


def _with_truths(rng: np.random.Generator, columns: Columns, logit: Floats) -> Made:
    truths = rng.random(len(logit)) < 1 / (1 + np.exp(-1.5 * logit))
    return columns, truths.astype(np.float64)


WORLDS: Mapping[str, Callable[[np.random.Generator, int], Made]] = {
    "sensors": _sensors,
    "loans": _loans,
    "clicks": _clicks,
}


def _numbers(columns: Columns) -> list[str]:
    return [name for name, each in columns.items() if each.dtype.kind == "f"]


def _texts(columns: Columns) -> list[str]:
    return [name for name, each in columns.items() if each.dtype.kind != "f"]


class Fault:
    """Changes a copy of the columns from a row on; says the class of cause and who is to blame."""

    def __init__(self, cause: str, change: Callable[..., frozenset[str]]) -> None:
        self.cause, self.change = cause, change


def _one(columns: Columns, rng: np.random.Generator, at: int) -> tuple[str, Floats, float]:
    name = str(rng.choice(_numbers(columns)))
    values = columns[name] = columns[name].astype(np.float64)
    return name, values, float(values[:at].std())


def _affine(slope: float, offset: float = 0.0) -> Callable[..., frozenset[str]]:
    def change(columns: Columns, rng: np.random.Generator, at: int) -> frozenset[str]:
        name, values, _ = _one(columns, rng, at)
        values[at:] = values[at:] * slope + offset
        return frozenset({name})

    return change


def _shift(size: float, over: int = 0) -> Callable[..., frozenset[str]]:
    def change(columns: Columns, rng: np.random.Generator, at: int) -> frozenset[str]:
        name, values, deviation = _one(columns, rng, at)
        ramp = np.minimum(np.arange(len(values) - at) / over, 1) if over else 1.0
        values[at:] += size * deviation * ramp
        return frozenset({name})

    return change


def _noise(columns: Columns, rng: np.random.Generator, at: int) -> frozenset[str]:
    name, values, deviation = _one(columns, rng, at)
    values[at:] += rng.normal(0, 1.2 * deviation, len(values) - at)
    return frozenset({name})


def _stuck(columns: Columns, rng: np.random.Generator, at: int) -> frozenset[str]:
    name, values, _ = _one(columns, rng, at)
    values[at:] = values[at]
    return frozenset({name})


def _nulls(share: float) -> Callable[..., frozenset[str]]:
    def change(columns: Columns, rng: np.random.Generator, at: int) -> frozenset[str]:
        name, values, _ = _one(columns, rng, at)
        values[at:][rng.random(len(values) - at) < share] = np.nan
        return frozenset({name})

    return change


def _swap(columns: Columns, rng: np.random.Generator, at: int) -> frozenset[str]:
    a, b = (str(each) for each in rng.choice(_numbers(columns), 2, replace=False))
    first, second = columns[a].copy(), columns[b].copy()
    first[at:], second[at:] = columns[b][at:], columns[a][at:]
    columns[a], columns[b] = first, second
    return frozenset({a, b})


def _exchange(columns: Columns, rng: np.random.Generator, at: int) -> frozenset[str]:
    name = str(rng.choice(_texts(columns)))
    values = columns[name].astype(object)
    texts, counts = np.unique(values[:at].astype(str), return_counts=True)
    ranked = texts[np.argsort(-counts)]
    a, b = ranked[0], ranked[min(2, len(ranked) - 1)]
    old = values[at:].copy()
    values[at:] = np.where(old == a, b, np.where(old == b, a, old))
    columns[name] = values
    return frozenset({name})


def _new_text(columns: Columns, rng: np.random.Generator, at: int) -> frozenset[str]:
    name = str(rng.choice(_texts(columns)))
    values = columns[name].astype(object)
    values[at:][rng.random(len(values) - at) < 0.2] = "?"
    columns[name] = values
    return frozenset({name})


def _order(columns: Columns, rng: np.random.Generator, at: int) -> frozenset[str]:
    """The most correlated pair loses its order."""
    names = _numbers(columns)
    strength = np.abs(np.corrcoef(np.stack([columns[each][:at].astype(float) for each in names])))
    np.fill_diagonal(strength, 0)
    a, b = np.unravel_index(int(strength.argmax()), strength.shape)
    values = columns[names[a]].copy()
    values[at:] = rng.permutation(values[at:])
    columns[names[a]] = values
    return frozenset({names[a], names[b]})


FAULTS: Mapping[str, Fault] = {
    "shift0.3": Fault("covariate", _shift(0.3)),
    "shift-0.6": Fault("covariate", _shift(-0.6)),
    "gradual": Fault("covariate", _shift(1.2, over=4000)),
    "noise": Fault("covariate", _noise),
    "fahrenheit": Fault("data_break", _affine(1.8, 32)),
    "x1000": Fault("data_break", _affine(1000)),
    "x0.3048": Fault("data_break", _affine(0.3048)),
    "x2.2046": Fault("data_break", _affine(2.20462)),
    "stuck": Fault("data_break", _stuck),
    "null10": Fault("data_break", _nulls(0.1)),
    "swap": Fault("data_break", _swap),
    "exchange": Fault("data_break", _exchange),
    "new text": Fault("data_break", _new_text),
    "order": Fault("data_break", _order),
}
# Populations and truths that move, told from the faults above by what stays as it was.
_MOVES = ("prior+0.2", "prior-0.2", "population", "concept")


def corpus(seeds: int) -> Iterator[Episode]:
    """Every fault on every world."""
    for seed in range(seeds):
        for number, (stream, make) in enumerate(WORLDS.items()):
            for kind, fault in FAULTS.items():
                rng = np.random.default_rng([seed, number, len(kind), ord(kind[0])])
                yield _faulty(stream, kind, seed, fault, make, rng)
            for kind in _MOVES:
                rng = np.random.default_rng([seed, number, len(kind), 7])
                yield _moved(stream, kind, seed, make, rng)


def _faulty(
    stream: str,
    kind: str,
    seed: int,
    fault: Fault,
    make: Callable[[np.random.Generator, int], Made],
    rng: np.random.Generator,
) -> Episode:
    columns, truths = make(rng, _REFERENCE + _CLEAN + _AFTER)
    blamed = fault.change(columns, rng, _REFERENCE + _CLEAN)
    return _episode(stream, kind, seed, fault.cause, blamed, columns, truths)


def _moved(
    stream: str,
    kind: str,
    seed: int,
    make: Callable[[np.random.Generator, int], Made],
    rng: np.random.Generator,
) -> Episode:
    columns, truths = make(rng, _REFERENCE + _CLEAN + 3 * _AFTER)
    begin = _REFERENCE + _CLEAN
    later = np.arange(begin, len(truths))
    cause, chosen = "covariate", later
    if kind.startswith("prior"):
        cause = "label_shift"
        chosen = _by_class(truths, later, float(kind[5:]), rng)
    elif kind == "population":
        strongest = _strongest_pair(columns, begin)
        values = sum(_ranks(columns[each][later]) for each in strongest)
        chosen = later[rng.random(len(later)) < values / values.max()]
    kept = np.concatenate([np.arange(begin), chosen[:_AFTER]])
    columns, truths = {name: each[kept] for name, each in columns.items()}, truths[kept]
    clean = truths.copy()
    if kind == "concept":
        cause = "concept"
        name = _numbers(columns)[0]
        high = columns[name][begin:] > np.quantile(columns[name][:begin], 0.6)
        truths = truths.copy()
        truths[begin:][high] = 1 - truths[begin:][high]
    blamed = frozenset(_strongest_pair(columns, begin)) if kind == "population" else frozenset()
    return _episode(stream, kind, seed, cause, frozenset(blamed), columns, truths, clean)


def _by_class(
    truths: Floats, later: NDArray[np.intp], by: float, rng: np.random.Generator
) -> NDArray[np.intp]:
    share = float(np.clip(truths.mean() + by, 0.05, 0.95))
    ones, zeros = later[truths[later] == 1], later[truths[later] == 0]
    wanted = rng.random(_AFTER) < share
    found: NDArray[np.intp] = np.where(wanted, rng.choice(ones, _AFTER), rng.choice(zeros, _AFTER))
    return found


def _ranks(values: NDArray[np.generic]) -> Floats:
    return np.argsort(np.argsort(values)) / len(values)


def _strongest_pair(columns: Columns, until: int) -> tuple[str, str]:
    names = _numbers(columns)
    strength = np.abs(
        np.corrcoef(np.stack([columns[each][:until].astype(float) for each in names]))
    )
    np.fill_diagonal(strength, 0)
    a, b = np.unravel_index(int(strength.argmax()), strength.shape)
    return names[a], names[b]


def _episode(
    stream: str,
    kind: str,
    seed: int,
    cause: str,
    blamed: frozenset[str],
    columns: Columns,
    truths: Floats,
    clean: Floats | None = None,
) -> Episode:
    """A logistic regression on ranks and texts stands for the model."""
    cut = _REFERENCE
    scores = _scores(columns, truths if clean is None else clean)
    known = scores[:cut].copy()
    known[: cut // 2] = np.nan
    losses = ((scores > 0.5) != (truths == 1)).astype(np.float64)
    parts = [
        {name: _column(each[rows]) for name, each in columns.items()}
        for rows in (slice(0, cut), slice(cut, None))
    ]
    return Episode(
        stream=stream,
        kind=kind,
        seed=seed,
        cause=cause,
        features=blamed,
        reference=reference_of(parts[0], known, truths[:cut], losses[cut // 2 : cut]),
        columns=parts[1],
        scores=scores[cut:],
        truths=truths[cut:],
        losses=losses[cut:],
        change_at=_CLEAN,
    )


def _column(values: NDArray[np.generic]) -> ColumnValues:
    if values.dtype.kind == "f":
        return NumberColumn(values)
    return text_column(values.tolist())


def _scores(columns: Columns, truths: Floats) -> Floats:
    """Naive Bayes on ten bins of every feature, learnt on the first half of the reference."""
    train = slice(0, _REFERENCE // 2)
    total = np.zeros(len(truths))
    for values in columns.values():
        if values.dtype.kind == "f":
            edges = np.quantile(values[train], np.linspace(0, 1, 11)[1:-1])
            places = np.searchsorted(edges, np.nan_to_num(values.astype(float)))
        else:
            _, places = np.unique(values.astype(str), return_inverse=True)
        width = int(places.max()) + 1
        ones = np.bincount(places[train], truths[train], minlength=width) + 5
        zeros = np.bincount(places[train], 1 - truths[train], minlength=width) + 5
        total += 0.7 * np.log(ones / zeros / (ones.sum() / zeros.sum()))[places]
    total += np.log(truths[train].mean() / (1 - truths[train].mean()))
    return 1 / (1 + np.exp(-total))
