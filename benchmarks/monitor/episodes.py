"""Episodes: rows as they were, then rows with one known fault; each in a folder of its own.

A folder holds ``reference.parquet``, ``stream.parquet`` and ``info.json`` (numeric and category
columns, the kind of fault, the row at which it begins). They come from a harness that makes them
(``from_harness``), or from the flights that the demo plays (``from_flights``).
"""

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_REFERENCE_ROWS = 5000
_CALM_ROWS = 5000
_FAULTY_ROWS = 7000


@dataclass(frozen=True, slots=True)
class Episode:
    """One folder."""

    folder: Path
    name: str
    kind: str
    begins: int
    rows: int


def from_harness(
    harness: Path, data: Path, *, streams: Sequence[str], seeds: int, into: Path
) -> Iterator[Episode]:
    """Those of ``harness.py`` in the folder ``harness``, on the streams in ``data``; faults that
    leave the inputs alone are left out."""
    os.environ["DATA"] = str(data)
    module = _loaded(harness / "harness.py")
    kinds = [each for each in module.INJ if not each.startswith("concept")]
    for stream in streams:
        for kind in kinds:
            for seed in range(seeds):
                made = module.episode(stream, kind, seed)
                if made is not None:
                    columns = [*made["num"], *made["cat"]]
                    yield _written(
                        into / f"{stream}-{kind}-{seed}",
                        made["ref"][columns],
                        made["s"][columns],
                        {
                            "name": stream,
                            "kind": kind,
                            "begins": made["t0"],
                            "numbers": made["num"],
                            "categories": made["cat"],
                        },
                    )


def from_flights(*, seeds: int, into: Path) -> Iterator[Episode]:
    """Flights of a year, drawn at random, with faults of a feed."""
    from homeostat_flights.data import NUMBERS, STRINGS, load_flights  # noqa: PLC0415 - seconds

    frame = load_flights().features.to_pandas()
    info = {"name": "flights", "numbers": list(NUMBERS), "categories": list(STRINGS)}
    for kind, fault in FAULTS.items():
        for seed in range(seeds):
            draw = np.random.default_rng([seed, *kind.encode()])
            rows = _REFERENCE_ROWS + _CALM_ROWS + _FAULTY_ROWS
            drawn = frame.iloc[draw.choice(len(frame), rows, replace=False)].reset_index(drop=True)
            stream = drawn.iloc[_REFERENCE_ROWS:].reset_index(drop=True)
            begins = _CALM_ROWS + int(draw.integers(0, 1000))
            fault(stream, begins, draw)
            yield _written(
                into / f"flights-{kind}-{seed}",
                drawn.iloc[:_REFERENCE_ROWS],
                stream,
                {**info, "kind": kind, "begins": begins},
            )


def _loaded(path: Path) -> Any:
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("harness", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"there is no harness at {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules["harness"] = module
    spec.loader.exec_module(module)
    return module


def _written(
    folder: Path, reference: pd.DataFrame, stream: pd.DataFrame, info: Mapping[str, Any]
) -> Episode:
    folder.mkdir(parents=True, exist_ok=True)
    for frame, name in ((reference, "reference"), (stream, "stream")):
        plain = frame.reset_index(drop=True).copy()
        plain.attrs = {}
        for column in info["categories"]:
            present = plain[column].notna()
            plain[column] = plain[column].astype(str).where(present, None)
        for column in info["numbers"]:
            plain[column] = plain[column].astype(float)
        plain.to_parquet(folder / f"{name}.parquet")
    (folder / "info.json").write_text(json.dumps(dict(info)))
    return Episode(folder, info["name"], info["kind"], info["begins"], len(stream))


def _shift(stream: pd.DataFrame, at: int, draw: np.random.Generator) -> None:
    column = draw.choice(["temp", "dewp", "wind_speed", "pressure"])
    stream.loc[at:, column] += 0.5 * stream[column].std()


def _unit(stream: pd.DataFrame, at: int, draw: np.random.Generator) -> None:
    """A thermometer that says Celsius where it said Fahrenheit."""
    column = draw.choice(["temp", "dewp"])
    stream.loc[at:, column] = (stream.loc[at:, column] - 32) / 1.8


def _missing(stream: pd.DataFrame, at: int, draw: np.random.Generator) -> None:
    column = draw.choice(["distance", "humid", "pressure"])
    rows = stream.index[at:]
    stream.loc[rows[draw.random(len(rows)) < 0.05], column] = np.nan


def _stuck(stream: pd.DataFrame, at: int, draw: np.random.Generator) -> None:
    column = draw.choice(["temp", "wind_speed", "distance"])
    stream.loc[at:, column] = stream[column].dropna().iloc[at]


def _new_category(stream: pd.DataFrame, at: int, draw: np.random.Generator) -> None:
    column = draw.choice(["carrier", "dest"])
    rows = stream.index[at:]
    stream.loc[rows[draw.random(len(rows)) < 0.2], column] = "NEW"


def _swapped(stream: pd.DataFrame, at: int, draw: np.random.Generator) -> None:
    one, other = draw.choice(["temp", "dewp", "humid", "distance"], 2, replace=False)
    columns = [one, other]
    stream.loc[at:, columns] = stream.loc[at:, columns[::-1]].to_numpy()


def _broken_pairing(stream: pd.DataFrame, at: int, draw: np.random.Generator) -> None:
    """Every value as before, but of another flight."""
    stream.loc[at:, "dewp"] = draw.permutation(stream.loc[at:, "dewp"].to_numpy())


FAULTS: Mapping[str, Callable[[pd.DataFrame, int, np.random.Generator], None]] = {
    "shift of half a deviation": _shift,
    "unit changed": _unit,
    "5 % missing": _missing,
    "stuck": _stuck,
    "20 % a new category": _new_category,
    "columns swapped": _swapped,
    "pairing broken": _broken_pairing,
}
