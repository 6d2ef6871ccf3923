"""The first model: trained on January as a data scientist would, before Homeostat is in play."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from homeostat import schema
from homeostat_flights.flights import CLASSES, Flights
from homeostat_retrainer import recipes

# Out-of-fold losses come from a model that saw the month's first part only.
_SEEN_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class FirstModel:
    """Files to push."""

    model: Path
    history: Path


def train_first_model(
    seen: Flights, folder: Path, *, recipe: str = "lightgbm", nullable: Sequence[str] = ()
) -> FirstModel:
    """Trains on all of ``seen``; writes model.onnx and history.parquet: features, truth, times, and
    the loss on the last fifth of a model that did not see it."""
    folder.mkdir(parents=True, exist_ok=True)
    signature = recipes.signature_for(seen.features, classes=CLASSES, nullable=nullable)
    train = recipes.load(recipe).train
    files = FirstModel(folder / "model.onnx", folder / "history.parquet")
    files.model.write_bytes(train(seen.features, seen.late, signature).onnx)
    split = int(_SEEN_SHARE * len(seen))
    early = train(seen.features.slice(0, split), seen.late[:split], signature)
    _, decisions = schema.judge(signature, early.predict(seen.features.slice(split)))
    losses = np.full(len(seen), np.nan)
    losses[split:] = decisions != seen.late[split:]
    table = seen.features
    for name, column in (
        ("late", pa.array([CLASSES[int(each)] for each in seen.late])),
        ("departs", pa.array(seen.departs_us, pa.int64()).cast(pa.timestamp("us", "UTC"))),
        ("known", pa.array(seen.known_us, pa.int64()).cast(pa.timestamp("us", "UTC"))),
        ("holdout_loss", pa.array(losses, from_pandas=True)),
    ):
        table = table.append_column(name, column)
    pq.write_table(table, files.history)
    return files
