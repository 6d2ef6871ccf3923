"""A small world with a known change in it: what drives the truth moves to another column."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from homeostat.history import Columns
from homeostat.push import Push
from homeostat.registry.v1.registry_pb2 import AUTONOMY_AUTO, Autonomy
from homeostat_flights.first_model import train_first_model
from homeostat_flights.flights import CLASSES, Flights

DAY_US = 86_400_000_000
HOUR_US = DAY_US // 24
# 2020-01-01, a midnight.
START_US = 1_577_836_800_000_000
MODEL_NAME = "world"
_KINDS = np.array(["red", "green", "blue"], dtype=object)


@dataclass(frozen=True, slots=True)
class World:
    """Days before the model went live, and days to play."""

    history: Flights
    played: Flights


def a_world(
    *,
    history_days: int = 10,
    days: int = 14,
    rows_per_day: int = 400,
    shift_day: int | None = 4,
    seed: int = 0,
) -> World:
    """``shift_day``: from which played day on the concept is another; None: never."""
    rng = np.random.default_rng(seed)
    rows = (history_days + days) * rows_per_day
    spacing = DAY_US // rows_per_day
    times = START_US + np.arange(rows, dtype=np.int64) * spacing
    x1, x2 = rng.normal(size=(2, rows)).astype(np.float32)
    day = np.arange(rows) // rows_per_day
    is_after = day >= (history_days + shift_day if shift_day is not None else 10**9)
    driver = np.where(is_after, x2, x1)
    late = (driver + rng.normal(scale=0.6, size=rows) > 0).astype(np.float64)
    x2_seen = x2.copy()
    x2_seen[rng.random(rows) < 0.02] = np.nan
    features = pa.table(
        {
            "x1": pa.array(x1),
            "x2": pa.array(x2_seen, from_pandas=True),
            "kind": pa.array(_KINDS[rng.integers(0, 3, rows)]),
        }
    )
    delays = rng.integers(1, 12, rows) * HOUR_US
    whole = Flights(
        features,
        late,
        times,
        times + delays,
        np.array([f"row-{number}" for number in range(rows)], dtype=object),
        np.ones(rows, dtype=np.int64),
    )
    return World(whole.where(day < history_days), whole.where(day >= history_days))


def first_push(
    world: World,
    folder: Path,
    *,
    recipe: str = "lightgbm",
    autonomy: "Autonomy.ValueType" = AUTONOMY_AUTO,
) -> Push:
    """Trains on the history, writes the files, and says what `homeostat push` would be told."""
    first = train_first_model(world.history, folder, recipe=recipe, nullable=("x2",))
    return Push(
        model_name=MODEL_NAME,
        model_path=first.model,
        history_path=first.history,
        columns=Columns("late", "departs", "known", "holdout_loss"),
        classes=CLASSES,
        autonomy=autonomy,
        recipe=recipe,
        author="tester",
    )
