"""The first model: trained on January as a data scientist would, before Homeostat is in play."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from homeostat_flights.data import CLASSES, Flights

# Out-of-fold losses come from a model that saw the month's first part only.
_SEEN_SHARE = 0.8
_PARAMETERS = "{}"
_SEED = 0


@dataclass(frozen=True, slots=True)
class FirstModel:
    """Files to push."""

    model: Path
    history: Path


def train_first_model(january: Flights, folder: Path) -> FirstModel:
    """Trains on the whole month; writes model.onnx and january.parquet (features, truth, times,
    and the loss on the last fifth of a model that did not see it)."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "flights.onnx"
    model.write_bytes(_fit(january))
    history = folder / "january.parquet"
    table = january.features
    for name, column in (
        ("late", pa.array([CLASSES[int(each)] for each in january.late])),
        ("departs", pa.array(january.departs_us, pa.int64()).cast(pa.timestamp("us", "UTC"))),
        ("known", pa.array(january.known_us, pa.int64()).cast(pa.timestamp("us", "UTC"))),
        ("holdout_loss", _holdout_loss(january)),
    ):
        table = table.append_column(name, column)
    pq.write_table(table, history)
    return FirstModel(model, history)
