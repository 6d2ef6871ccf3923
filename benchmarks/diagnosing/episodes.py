"""Episodes: a reference, a stream, and what was done to it from which row on."""

import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceRows

Floats = NDArray[np.float64]

# Event time between two rows.
ROW_US = 1_000_000
# What each kind of the referee's injections is, in the classes of the diagnosis. A drift of the
# values themselves is the population's; values that are not what they say are broken data.
CAUSES: Mapping[str, str] = {
    "shift0.2": "covariate",
    "shift0.5": "covariate",
    "gradual1.0": "covariate",
    "noise2x": "covariate",
    "unit": "data_break",
    "swapcols": "data_break",
    "missing30": "data_break",
    "missing5": "data_break",
    "stuck": "data_break",
    "catswap": "data_break",
    "newcat20": "data_break",
    "corrbreak": "data_break",
    "prior+0.2": "label_shift",
    "concept_region": "concept",
    "concept_noise20": "concept",
}


@dataclass(frozen=True, slots=True)
class Episode:
    """``columns`` are the stream's; from row ``change_at`` on it is as ``kind`` says."""

    stream: str
    kind: str
    seed: int
    cause: str
    # Any of these first is right; empty: no feature is to blame.
    features: frozenset[str]
    reference: ReferenceRows
    columns: Mapping[str, ColumnValues]
    scores: Floats
    truths: Floats
    losses: Floats
    change_at: int


def text_column(values: Sequence[Any]) -> CategoryColumn:
    """Texts as codes; what is null is ""."""
    texts = ["" if each is None or str(each) == "nan" else str(each) for each in values]
    dictionary = sorted(set(texts))
    at = {text: code for code, text in enumerate(dictionary)}
    return CategoryColumn(np.array([at[each] for each in texts], dtype=np.int32), dictionary)


def reference_of(
    features: Mapping[str, ColumnValues], scores: Floats, truths: Floats, losses: Floats
) -> ReferenceRows:
    """Scores are NaN on rows that the model was trained on; ``losses`` are the others'."""
    rows = len(scores)
    times = (np.arange(rows, dtype=np.int64) - rows) * ROW_US
    honest = np.isfinite(scores)
    return ReferenceRows(
        times, features, scores, honest, Holdout(losses, times[honest]), truths=truths
    )


def load_referee(folder: Path) -> Any:
    """The referee's harness as a module; it reads DATA and CACHE from the environment."""
    spec = importlib.util.spec_from_file_location("harness", folder / "harness.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["harness"] = module
    spec.loader.exec_module(module)
    return module


def referee_episodes(
    harness: Any, streams: Sequence[str], kinds: Sequence[str], seeds: int
) -> Iterator[Episode]:
    """Every episode that applies to a stream."""
    for seed in range(seeds):
        for stream in streams:
            for kind in kinds:
                raw = harness.episode(stream, kind, seed)
                if raw is not None:
                    yield _episode(harness, stream, kind, seed, raw)


def _episode(harness: Any, stream: str, kind: str, seed: int, raw: Mapping[str, Any]) -> Episode:
    frames = {name: _columns(raw[name], raw["num"], raw["cat"]) for name in ("ref", "s")}
    known = np.full(len(raw["ref"]), np.nan)
    known[-len(raw["ref_p"]) :] = raw["ref_p"]
    truths = {name: (raw[name].y == 1).to_numpy(dtype=np.float64) for name in ("ref", "s")}
    losses = raw["ref_err"].astype(np.float64)
    return Episode(
        stream=stream,
        kind=kind,
        seed=seed,
        cause=CAUSES[kind],
        features=_to_blame(harness, stream, kind, raw),
        reference=reference_of(frames["ref"], known, truths["ref"], losses),
        columns=frames["s"],
        scores=raw["p"],
        truths=truths["s"],
        losses=raw["err"].astype(np.float64),
        change_at=int(raw["t0"]),
    )


def _columns(frame: Any, num: Sequence[str], cat: Sequence[str]) -> dict[str, ColumnValues]:
    found: dict[str, ColumnValues] = {
        name: NumberColumn(frame[name].to_numpy(dtype=np.float64)) for name in num
    }
    return found | {name: text_column(frame[name].tolist()) for name in cat}


def _to_blame(harness: Any, stream: str, kind: str, raw: Mapping[str, Any]) -> frozenset[str]:
    if CAUSES[kind] in {"label_shift", "concept"}:
        return frozenset()
    feature = raw["feature"]
    if kind == "swapcols":
        return frozenset(feature.split("<->"))
    if kind != "corrbreak":
        return frozenset({feature})
    # As the harness chooses: the permuted feature and the one it was correlated with most.
    frame, num, _ = harness.load(stream)
    sample = frame[num].sample(3000, random_state=1, replace=True).to_numpy(float)
    strength = np.abs(np.nan_to_num(np.corrcoef(np.nan_to_num(sample).T)))
    np.fill_diagonal(strength, 0)
    return frozenset({feature, num[int(strength[num.index(feature)].argmax())]})
