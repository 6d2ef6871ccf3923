"""The demo's incident: for three days in February the thermometers' feed sends another unit.

It is injected into the flights before they are played, and labelled wherever it shows. The first
model that is never retrained sees the very same rows. The flights' fates stay as they were.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from homeostat.events.v1.alert_pb2 import CAUSE_CLASS_DATA_BREAK, Alert
from homeostat.events.v1.retraining_run_pb2 import RetrainingRun
from homeostat_flights.flights import Flights

_DAY_US = 86_400_000_000

COLUMN = "temp"
FIRST_DAY = datetime(2013, 2, 12, tzinfo=UTC)
DAYS = 3
FROM_US = int(FIRST_DAY.timestamp()) * 1_000_000
BEFORE_US = FROM_US + DAYS * _DAY_US
WHAT = f"injected incident: for {DAYS} days {COLUMN} comes in degrees Celsius, not Fahrenheit"


def with_incident(flights: Flights) -> Flights:
    """The same flights, with the temperature of those days in the wrong unit."""
    at = (flights.departs_us >= FROM_US) & (flights.departs_us < BEFORE_US)
    place = flights.features.column_names.index(COLUMN)
    column = flights.features[COLUMN]
    values = column.to_numpy()
    wrong = np.where(at, (values - 32) / 1.8, values).astype(values.dtype)
    features = flights.features.set_column(
        place, COLUMN, pa.array(wrong, column.type, from_pandas=True)
    )
    return replace(flights, features=features)


@dataclass(frozen=True, slots=True)
class Told:
    """What the loop made of it: the first alert of broken data that names the column, and the
    retrainings that were started while it lasted."""

    alert: Alert | None
    runs: Sequence[RetrainingRun]


def told(alerts: Iterable[Alert], runs: Iterable[RetrainingRun]) -> Told:
    """Looks for the incident among all that happened."""
    naming = [each for each in alerts if _is_about_it(each)]
    naming.sort(key=lambda each: each.since_at.ToMicroseconds())
    return Told(
        naming[0] if naming else None,
        [each for each in runs if FROM_US < each.cut_known_at_us <= BEFORE_US],
    )


def _is_about_it(alert: Alert) -> bool:
    began = alert.since_at.ToMicroseconds()
    columns = {alert.feature, *(each.feature for each in alert.features)}
    return (
        alert.cause == CAUSE_CLASS_DATA_BREAK
        and COLUMN in columns
        and FROM_US - _DAY_US <= began < BEFORE_US
    )
