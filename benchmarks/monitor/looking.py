"""Letting each detector look at the episodes: ours in this process, a peer in its own."""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from benchmarks import referee_adapter
from benchmarks.environments import python_of
from benchmarks.monitor.episodes import Episode
from benchmarks.monitor.install import PEERS

# Rows that come in at once.
_BATCH_ROWS = 100
# Ours, and those that show what a figure is worth.
_OURS = ("iid", "always", "never", "random")
_UNSEEN = -2.0


@dataclass(frozen=True, slots=True)
class Looked:
    """What one episode brought: per rule the rows at which it alarmed."""

    episode: Episode
    alarms: dict[str, list[int]]
    fit_seconds: float
    look_seconds: float


def ours(episodes: Sequence[Episode]) -> Iterator[Looked]:
    """The production code, driven by the adapter."""
    for episode in episodes:
        for name in _OURS:
            if name in referee_adapter.REGISTRY:
                yield _look(name, episode)


def peer(name: str, episodes: Sequence[Episode]) -> Iterator[Looked]:
    """RuntimeError with the end of what it said where it fails."""
    folders = {each.folder.name: each for each in episodes}
    script = PEERS / f"{name}_looks.py"
    with subprocess.Popen(
        [str(python_of(name)), str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        asked = "".join(f"{each.folder}\n" for each in episodes)
        said, errors = process.communicate(asked)
    if process.returncode:
        raise RuntimeError(errors.strip()[-400:])
    for line in said.splitlines():
        if line.startswith('{"folder"'):
            found = json.loads(line)
            yield Looked(
                folders[found["folder"]],
                found["alarms"],
                found["fit_seconds"],
                found["look_seconds"],
            )


def _look(name: str, episode: Episode) -> Looked:
    info = json.loads((episode.folder / "info.json").read_text())
    numbers, categories = info["numbers"], info["categories"]
    reference = pd.read_parquet(episode.folder / "reference.parquet")
    stream = pd.read_parquet(episode.folder / "stream.parquet")
    known, rows = _matrices(reference, stream, numbers, categories)
    detector: Any = referee_adapter.REGISTRY[name]()
    began = time.perf_counter()
    detector.fit(known, reference, numbers, categories, np.zeros(len(known), dtype=np.int8))
    fitted = time.perf_counter()
    alarms: list[int] = []
    for start in range(0, len(rows), _BATCH_ROWS):
        batch = rows[start : start + _BATCH_ROWS]
        alarms += [start + row for row in detector.update(batch, None, np.zeros(len(batch)))]
    label = f"homeostat, {name}" if name == "iid" else f"dummy: {name}"
    return Looked(episode, {label: alarms}, fitted - began, time.perf_counter() - fitted)


def _matrices(
    reference: pd.DataFrame, stream: pd.DataFrame, numbers: list[str], categories: list[str]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Numbers as they are, texts as codes by frequency; null NaN, never seen -2."""
    codes = {
        name: {text: i for i, text in enumerate(reference[name].value_counts().index)}
        for name in categories
    }

    def encoded(frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        columns = [frame[name].to_numpy(float) for name in numbers]
        for name in categories:
            known = frame[name].map(codes[name]).fillna(_UNSEEN).to_numpy(float)
            columns.append(np.where(frame[name].isna(), np.nan, known))
        return np.stack(columns, axis=1)

    return encoded(reference), encoded(stream)
