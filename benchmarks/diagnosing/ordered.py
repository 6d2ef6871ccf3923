"""Streams that move by themselves, with seasons, weekdays and memory, and what befalls them.

Each episode says what class of cause is right and who is to blame. What the world does by nature
(a cold spell that all that belongs together shares) is beside what breaks in one feed of it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from benchmarks.diagnosing.episodes import Floats, text_column
from numpy.typing import NDArray
from scipy.signal import lfilter

from homeostat_monitor.domain.windows.bins import ColumnValues, NumberColumn

DAY_US = 86_400_000_000
REFERENCE_DAYS, CALM_DAYS, AFTER_DAYS = 35, 10, 6
# So many rows are made for one that is kept: a shift of the classes chooses among them.
_DENSER = 4
# In log-odds.
_TOO_MUCH = 4.0
_DAYS = REFERENCE_DAYS + CALM_DAYS + AFTER_DAYS
Columns = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Stream:
    """Rows in the order of time; ``logit`` is what truths follow, ``scores`` what is said."""

    times_us: NDArray[np.int64]
    columns: Columns
    scores: Floats
    truths: Floats

    def part(self, rows: "slice | NDArray[np.generic]") -> "Stream":
        """Some of the rows."""
        return Stream(
            self.times_us[rows],
            {name: each[rows].copy() for name, each in self.columns.items()},
            self.scores[rows].copy(),
            self.truths[rows].copy(),
        )

    def features(self) -> dict[str, ColumnValues]:
        """Columns as the monitor sees them."""
        return {
            name: NumberColumn(np.asarray(each, dtype=np.float64))
            if each.dtype.kind == "f"
            else text_column(each.tolist())
            for name, each in self.columns.items()
        }

    @property
    def losses(self) -> Floats:
        """0 or 1."""
        return ((self.scores > 0.5) != (self.truths == 1)).astype(np.float64)


@dataclass(frozen=True, slots=True)
class World:
    """Who is who: two that belong together, one alone, a category; how truths follow."""

    name: str
    make: Callable[[np.random.Generator, Floats], Columns]
    logit: Callable[[Columns], Floats]
    pair: tuple[str, str]
    alone: str
    category: str
    # A conversion that one feed of the pair might start to send.
    unit: tuple[float, float]
    rows_a_day: int
    # What moves together, and by how much each.
    together: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class OrderedEpisode:
    """``stream`` is live traffic; from ``change_us`` on it is as ``kind`` says."""

    world: World
    kind: str
    seed: int
    cause: str
    features: frozenset[str]
    reference: Stream
    stream: Stream
    change_us: int
    # What is alarmed by: windows, or losses.
    of_losses: bool = False
    is_new_version: bool = False


def _memory(rng: np.random.Generator, days: Floats, per_day: float) -> Floats:
    """AR(1) of deviation 1 that keeps the part ``per_day`` over a day."""
    memory = per_day ** (1 / (len(days) / float(np.ptp(days))))
    noise = rng.normal(size=len(days)) * np.sqrt(1 - memory**2)
    noise[0] = rng.normal()
    found: Floats = lfilter([1.0], [1.0, -memory], noise)
    return found


def _weather(rng: np.random.Generator, days: Floats) -> Columns:
    rows = len(days)
    air = 45 + 12 * np.sin(days / 40) + 8 * _memory(rng, days, 0.6)
    heat = air + 5 * np.sin(2 * np.pi * days) + rng.normal(0, 1, rows)
    dew = air - 10 - 4 * _memory(rng, days, 0.5) + rng.normal(0, 1, rows)
    rains = _memory(rng, days, 0.3) > 1.2
    return {
        "heat": heat,
        "dew": dew,
        "wind": np.exp(2 + 0.4 * _memory(rng, days, 0.3) + rng.normal(0, 0.2, rows)),
        "rain": np.where(rains, rng.exponential(0.2, rows), 0.0),
        "hour": np.floor(days % 1 * 24),
        "site": rng.choice(["n", "s", "e", "w"], rows, p=[0.5, 0.28, 0.15, 0.07]),
    }


def _shop(rng: np.random.Generator, days: Floats) -> Columns:
    rows = len(days)
    busy = 1 + 0.3 * np.sin(2 * np.pi * days / 7) + 0.25 * _memory(rng, days, 0.5)
    queue = np.maximum(20 * busy + rng.normal(0, 4, rows), 0)
    wait = np.maximum(3 + 1.5 * queue + 6 * _memory(rng, days, 0.4) + rng.normal(0, 3, rows), 0)
    return {
        "queue": queue,
        "wait": wait,
        "price": np.exp(3 + 0.15 * _memory(rng, days, 0.9) + rng.normal(0, 0.6, rows)),
        "items": rng.poisson(3 * np.maximum(busy, 0.2)).astype(np.float64),
        "weekday": np.floor(days) % 7,
        "card": rng.choice(["debit", "credit", "cash"], rows, p=[0.5, 0.4, 0.1]),
    }


def _plant(rng: np.random.Generator, days: Floats) -> Columns:
    rows = len(days)
    load = 60 + 0.15 * days + 6 * _memory(rng, days, 0.7) + rng.normal(0, 2, rows)
    return {
        "load": load,
        "current": 12 + 0.4 * load + 1.0 * _memory(rng, days, 0.5) + rng.normal(0, 1, rows),
        "level": 5 + 0.5 * np.cumsum(rng.normal(0, 1, rows)) / np.sqrt(rows / 20),
        "shake": rng.gamma(2, 1 + 0.2 * _memory(rng, days, 0.3) ** 2, rows),
        "line": rng.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1]),
    }


WORLDS = (
    World(
        "weather",
        _weather,
        lambda c: 0.12 * (c["heat"] - 45) + 0.4 * (c["site"] == "s") - 0.05 * (c["wind"] - 8),
        ("heat", "dew"),
        "wind",
        "site",
        (1 / 1.8, -32 / 1.8),
        600,
        {"heat": 1.0, "dew": 1.0},
    ),
    World(
        "shop",
        _shop,
        lambda c: 0.06 * (c["wait"] - 33) + 0.5 * (c["card"] == "cash") - 0.3 * (c["items"] - 3),
        ("wait", "queue"),
        "price",
        "card",
        (60.0, 0.0),
        800,
        {"queue": 20.0, "wait": 30.0, "items": 3.0},
    ),
    World(
        "plant",
        _plant,
        lambda c: 0.15 * (c["load"] - 60) + 0.5 * (c["shake"] - 2.2),
        ("load", "current"),
        "shake",
        "line",
        (2.20462, 0.0),
        1200,
        {"load": 1.0, "current": 0.4},
    ),
)


def _stream(world: World, rng: np.random.Generator) -> Stream:
    days = np.sort(rng.random(_DENSER * _DAYS * world.rows_a_day)) * _DAYS
    columns = world.make(rng, days)
    logit = 1.5 * world.logit(columns)
    scores = 1 / (1 + np.exp(-logit))
    truths = (rng.random(len(days)) < scores).astype(np.float64)
    times = (days * DAY_US).astype(np.int64)
    return Stream(times, columns, scores, truths)


# How an episode is made: changes the live part from a row on, with the deviations of the reference.
@dataclass(frozen=True, slots=True)
class _Scene:
    world: World
    live: Stream
    first: int
    scale: Mapping[str, float]
    rng: np.random.Generator

    def values(self, name: str) -> Floats:
        found: Floats = self.live.columns[name].astype(np.float64)
        self.live.columns[name] = found
        return found[self.first :]


def _unit(scene: _Scene) -> frozenset[str]:
    values = scene.values(scene.world.pair[0])
    values[:] = values * scene.world.unit[0] + scene.world.unit[1]
    return frozenset({scene.world.pair[0]})


def _thousand(scene: _Scene) -> frozenset[str]:
    values = scene.values(scene.world.alone)
    values *= 1000.0
    return frozenset({scene.world.alone})


def _off(scene: _Scene) -> frozenset[str]:
    """A sensor that shows too much, by no known factor."""
    values = scene.values(scene.world.pair[1])
    values += 4.5 * scene.scale[scene.world.pair[1]]
    return frozenset({scene.world.pair[1]})


def _stuck(scene: _Scene) -> frozenset[str]:
    values = scene.values(scene.world.pair[0])
    values[:] = values[0]
    return frozenset({scene.world.pair[0]})


def _spell(scene: _Scene) -> frozenset[str]:
    """As far down as it never was; all that belongs together goes together."""
    return _together(scene, -4.5)


def _together(scene: _Scene, deviations: float) -> frozenset[str]:
    together = scene.world.together
    first = scene.world.pair[0]
    by = deviations * scene.scale[first] / together[first]
    for name, times in together.items():
        scene.values(name)[:] += times * by
    return frozenset(together)


def _mild(scene: _Scene) -> frozenset[str]:
    """As far as days go by nature, on top of what they do; the scores follow."""
    return _together(scene, -1.5)


def _gusts(scene: _Scene) -> frozenset[str]:
    """What is alone goes further than ever, by no known factor."""
    values = scene.values(scene.world.alone)
    values += 3.3 * scene.scale[scene.world.alone]
    return frozenset({scene.world.alone})


def _missing(scene: _Scene) -> frozenset[str]:
    """A feed that both of the pair come from is silent for a part of the rows."""
    gone = scene.rng.random(len(scene.live.scores) - scene.first) < 0.15
    for name in scene.world.pair:
        scene.values(name)[gone] = np.nan
    return frozenset(scene.world.pair)


def _category(scene: _Scene) -> frozenset[str]:
    name = scene.world.category
    values = scene.live.columns[name].astype(object)
    new = scene.rng.random(len(values) - scene.first) < 0.15
    values[scene.first :][new] = "new"
    scene.live.columns[name] = values
    return frozenset({name})


def _concept(scene: _Scene) -> frozenset[str]:
    name = scene.world.pair[0]
    values = scene.live.columns[name].astype(np.float64)
    high = values[scene.first :] > np.median(values)
    truths = scene.live.truths[scene.first :]
    truths[high] = 1 - truths[high]
    return frozenset()


def _concept_with_gaps(scene: _Scene) -> frozenset[str]:
    """Two rows of a hundred lack a feature: that is not why the loss rose."""
    values = scene.values(scene.world.alone)
    values[scene.rng.random(len(values)) < 0.02] = np.nan
    return _concept(scene)


def _other_scores(scene: _Scene) -> frozenset[str]:
    """The version that was approved is not the one that serves: it says too much throughout."""
    scores = scene.live.scores[scene.first :]
    scores[:] = scores / (scores + np.exp(-_TOO_MUCH) * (1 - scores))
    return frozenset()


_SCENES: Mapping[str, tuple[str, Callable[[_Scene], frozenset[str]]]] = {
    "unit": ("data_break", _unit),
    "x1000 alone": ("data_break", _thousand),
    "sensor off": ("data_break", _off),
    "stuck": ("data_break", _stuck),
    "missing feed": ("data_break", _missing),
    "new category": ("data_break", _category),
    "spell": ("covariate", _spell),
    "gusts": ("covariate", _gusts),
    "new version": ("new_version", _other_scores),
    "new version, loss": ("new_version", _other_scores),
    "new, with inputs": ("new_version", _gusts),
    "new, unit": ("data_break", _unit),
    "new, spell": ("covariate", _spell),
    "new, mild": ("covariate", _mild),
    "concept": ("concept", _concept),
    "concept, gaps": ("concept", _concept_with_gaps),
    "unit, loss": ("data_break", _unit),
}


def ordered_episodes(seeds: int, first: int = 0) -> Iterator[OrderedEpisode]:
    """Every scene in every world; those of one world and seed have the same reference. ``first``:
    the first seed."""
    for seed in range(first, first + seeds):
        for number, world in enumerate(WORLDS):
            rng = np.random.default_rng([seed, number, 11])
            dense = _stream(world, rng)
            whole = dense.part(rng.random(len(dense.scores)) < 1 / _DENSER)
            cut = int(np.searchsorted(whole.times_us, REFERENCE_DAYS * DAY_US))
            reference = whole.part(slice(0, cut))
            for kind, (cause, change) in _SCENES.items():
                yield _episode(
                    world, kind, seed, cause, change, reference, whole.part(slice(cut, None))
                )
            yield _shifted(
                world, seed, reference, dense.part(dense.times_us >= REFERENCE_DAYS * DAY_US)
            )


def _episode(
    world: World,
    kind: str,
    seed: int,
    cause: str,
    change: Callable[[_Scene], frozenset[str]],
    reference: Stream,
    live: Stream,
) -> OrderedEpisode:
    change_us = (REFERENCE_DAYS + CALM_DAYS) * DAY_US
    first = int(np.searchsorted(live.times_us, change_us))
    scale = {
        name: float(each.std())
        for name, each in reference.columns.items()
        if each.dtype.kind == "f"
    }
    rng = np.random.default_rng([seed, len(kind), ord(kind[0])])
    features = change(_Scene(world, live, first, scale, rng))
    if kind in {"unit, loss", "new, mild"}:
        # The model answers by what it is fed.
        said = 1 / (1 + np.exp(-1.5 * world.logit(live.columns)))
        live = replace(live, scores=said)
    is_new = kind.startswith("new version") or kind.startswith("new, ")
    return OrderedEpisode(
        world=world,
        kind=kind,
        seed=seed,
        cause=cause,
        features=frozenset() if cause == "new_version" else features,
        reference=reference,
        stream=live,
        change_us=change_us,
        of_losses=cause == "concept" or kind.endswith(", loss"),
        is_new_version=is_new,
    )


def _shifted(world: World, seed: int, reference: Stream, live: Stream) -> OrderedEpisode:
    """Within each class all is as before; one class comes much more often."""
    change_us = (REFERENCE_DAYS + CALM_DAYS) * DAY_US
    rng = np.random.default_rng([seed, 5])
    after = live.times_us >= change_us
    share = float(live.truths.mean())
    wanted = np.clip(share + np.where(share < 0.5, 0.3, -0.3), 0.05, 0.95)
    chances = np.where(live.truths == 1, wanted / share, (1 - wanted) / (1 - share)) / _DENSER
    kept = rng.random(len(after)) < np.where(after, chances, 1 / _DENSER)
    return OrderedEpisode(
        world=world,
        kind="prior shift",
        seed=seed,
        cause="label_shift",
        features=frozenset(),
        reference=reference,
        stream=live.part(kept),
        change_us=change_us,
    )
