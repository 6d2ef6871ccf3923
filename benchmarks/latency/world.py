"""Independent rows of ten features, a linear model of them, and what can happen to them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat.events.v1.alert_pb2 import (
    ALERT_RULE_CORRELATION,
    ALERT_RULE_COVARIATE,
    ALERT_RULE_DUPLICATES,
    ALERT_RULE_MISSING_VALUES,
    ALERT_RULE_OUT_OF_RANGE,
    ALERT_RULE_STUCK,
    ALERT_RULE_UNSEEN_VALUES,
    AlertRule,
)
from homeostat.history import Columns
from homeostat.push import Prepared, Push, prepare
from homeostat_flights.first_model import train_first_model
from homeostat_flights.flights import CLASSES, Flights

Rows = dict[str, NDArray[Any]]

_NUMBERS = 8
_KINDS = {
    "kind": np.array(["red", "green", "blue", "grey"], dtype=object),
    "place": np.array(["north", "south", "east", "west", "middle"], dtype=object),
}
# Of the feature that may be null, in the reference.
_NULLS = 0.02
_TOGETHER = 0.8
_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US


def rows_of(count: int, rng: np.random.Generator) -> Rows:
    """As long as nothing happens: x2 and x3 go together, some of x6 are null."""
    numbers = rng.standard_normal((_NUMBERS, count), dtype=np.float32)
    numbers[3] = _TOGETHER * numbers[2] + np.float32((1 - _TOGETHER**2) ** 0.5) * numbers[3]
    numbers[6, rng.random(count) < _NULLS] = np.nan
    rows: Rows = {f"x{each}": numbers[each] for each in range(_NUMBERS)}
    return rows | {name: rng.choice(values, count) for name, values in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to rows, and the rule that has to say so."""

    name: str
    rule: "AlertRule.ValueType"
    change: Callable[[Rows, np.random.Generator], None]


def _moved(rows: Rows, rng: np.random.Generator) -> None:
    rows["x0"] += np.float32(1.0)


def _missing(rows: Rows, rng: np.random.Generator) -> None:
    rows["x6"][rng.random(len(rows["x6"])) < 0.3] = np.nan


def _unseen(rows: Rows, rng: np.random.Generator) -> None:
    rows["kind"][rng.random(len(rows["kind"])) < 0.2] = "violet"


def _out_of_range(rows: Rows, rng: np.random.Generator) -> None:
    rows["x5"][rng.random(len(rows["x5"])) < 0.15] = 60.0


def _stuck(rows: Rows, rng: np.random.Generator) -> None:
    rows["x4"][:] = 0.25


def _apart(rows: Rows, rng: np.random.Generator) -> None:
    rng.shuffle(rows["x3"])


def _copied(rows: Rows, rng: np.random.Generator) -> None:
    """Thrice: where values are missing too the monitor asks for more copies than two."""
    third = len(rows["x0"]) // 3
    for each in rows.values():
        each[third : 2 * third] = each[2 * third : 3 * third] = each[:third]


# In the order in which they come to each model; each stays.
FAULTS = (
    Fault("a mean moves", ALERT_RULE_COVARIATE, _moved),
    Fault("rows come thrice", ALERT_RULE_DUPLICATES, _copied),
    Fault("values are missing", ALERT_RULE_MISSING_VALUES, _missing),
    Fault("a new value", ALERT_RULE_UNSEEN_VALUES, _unseen),
    Fault("out of range", ALERT_RULE_OUT_OF_RANGE, _out_of_range),
    Fault("two features part", ALERT_RULE_CORRELATION, _apart),
    Fault("a sensor sticks", ALERT_RULE_STUCK, _stuck),
)


def prepared(folder: Path, *, rows: int, rows_per_second: float, seed: int) -> Prepared:
    """A model trained on a history at the rate of its traffic, ready to be pushed by any name."""
    rng = np.random.default_rng(seed)
    features = rows_of(rows, rng)
    odds = features["x0"] + features["x2"] - features["x7"] + (features["kind"] == "red")
    truth = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.float64)
    begun_us = time.time_ns() // 1000 - 7 * _DAY_US
    times = begun_us + (np.arange(rows) * (1e6 / rows_per_second)).astype(np.int64)
    table = pa.table(
        {name: pa.array(values, from_pandas=True) for name, values in features.items()}
    )
    past = Flights(
        table,
        truth,
        times,
        times + _HOUR_US,
        np.arange(rows).astype(str).astype(object),
        np.ones(rows, dtype=np.int64),
    )
    files = train_first_model(past, folder, recipe="sklearn", nullable=("x6",))
    columns = Columns("late", "departs", "known", "holdout_loss")
    return prepare(
        Push(
            model_name="model",
            model_path=files.model,
            history_path=files.history,
            columns=columns,
            classes=CLASSES,
            recipe="sklearn",
            nullable=("x6",),
            author="bench",
        )
    )


def named(ready: Prepared, name: str) -> Prepared:
    """The same under another name."""
    return replace(ready, push=replace(ready.push, model_name=name))
