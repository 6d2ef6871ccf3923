"""What comes before the play: the year read, January's model trained, the rest laid out.

Done in a process of its own: reading and training take several hundred MB that playing does not.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from homeostat.history import Columns
from homeostat.push import Prepared, Push, prepare
from homeostat.registry.v1.registry_pb2 import AUTONOMY_AUTO
from homeostat_flights.flights import CLASSES, Flights, read_flights
from homeostat_flights.incident import with_incident

MODEL_NAME = "flights"


@dataclass(frozen=True, slots=True)
class Prologue:
    """January's model, and the flights to be played."""

    played: Flights
    prepared: Prepared
    # What the first model says of every played flight: the run without the loop.
    never: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Files:
    played: Path
    never: Path
    push: Push


def prepare_run(folder: Path, months: int, *, incident: bool) -> Prologue:
    """Reads the flights, trains the first model, scores it on the ``months`` after January."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        files = apart.submit(_make_files, folder, months, incident).result()
    return Prologue(read_flights(files.played), prepare(files.push), np.load(files.never))


def _make_files(folder: Path, months: int, incident: bool) -> _Files:
    from homeostat_flights.data import WEATHER, load_flights  # noqa: PLC0415 - not in the player
    from homeostat_flights.first_model import train_first_model  # noqa: PLC0415

    flights = load_flights()
    january = flights.where(flights.months == 1)
    first = train_first_model(january, folder, nullable=WEATHER)
    played = flights.where((flights.months > 1) & (flights.months <= 1 + months))
    if incident:
        played = with_incident(played)
    push = Push(
        model_name=MODEL_NAME,
        model_path=first.model,
        history_path=first.history,
        columns=Columns("late", "departs", "known", "holdout_loss"),
        classes=CLASSES,
        autonomy=AUTONOMY_AUTO,
        author="demo",
        occurred_at_us=int(played.departs_us[0]),
    )
    prepared = prepare(push)
    never = prepared.model.scores(played.features, prepared.signature)[:, -1]
    files = _Files(folder / "played.parquet", folder / "never.npy", push)
    played.write(files.played)
    np.save(files.never, np.asarray(never, dtype=np.float64))
    return files
