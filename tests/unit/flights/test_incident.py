"""The demo's incident: three days, one column, another unit; and how the loop's answer is found."""

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from homeostat.events.v1.alert_pb2 import (
    CAUSE_CLASS_COVARIATE,
    CAUSE_CLASS_DATA_BREAK,
    Alert,
    CauseClass,
    FeatureShare,
)
from homeostat.events.v1.retraining_run_pb2 import RetrainingRun
from homeostat_flights import incident
from homeostat_flights.figures import incident_line
from homeostat_flights.flights import Flights

DAY_US = 86_400_000_000


def flights_at(departs_us: list[int], temperatures: list[float]) -> Flights:
    """Flights with a temperature and a dew point."""
    rows = len(departs_us)
    column = pa.array(temperatures, pa.float32(), from_pandas=True)
    return Flights(
        pa.table({"temp": column, "dewp": column}),
        np.zeros(rows),
        np.array(departs_us),
        np.array(departs_us) + DAY_US,
        np.array([f"flight {i}" for i in range(rows)], dtype=object),
        np.full(rows, 2),
    )


def alert_at(
    at_us: int, *, cause: "CauseClass.ValueType" = CAUSE_CLASS_DATA_BREAK, feature: str = "temp"
) -> Alert:
    """An alert that begins then."""
    since = Timestamp()
    since.FromMicroseconds(at_us)
    return Alert(since_at=since, cause=cause, feature=feature)


def test_three_days_of_one_column_come_in_celsius() -> None:
    times = [incident.FROM_US - 1, incident.FROM_US, incident.BEFORE_US - 1, incident.BEFORE_US]
    wrong = incident.with_incident(flights_at(times, [32.0, 32.0, 212.0, 212.0]))
    assert wrong.features["temp"].to_pylist() == [32.0, 0.0, 100.0, 212.0]
    assert wrong.features["temp"].type == pa.float32()
    assert wrong.features["dewp"].to_pylist() == [32.0, 32.0, 212.0, 212.0]
    assert (incident.BEFORE_US - incident.FROM_US) == incident.DAYS * DAY_US


def test_a_temperature_that_was_null_stays_null() -> None:
    wrong = incident.with_incident(flights_at([incident.FROM_US] * 2, [float("nan"), 50.0]))
    assert wrong.features["temp"].to_pylist() == [None, pytest.approx(10.0)]


def test_the_first_data_break_of_the_column_is_the_answer() -> None:
    first = alert_at(incident.FROM_US)
    found = incident.told([alert_at(incident.FROM_US + DAY_US), first], [])
    assert found.alert is first


def test_a_column_among_others_counts() -> None:
    several = alert_at(incident.FROM_US, feature="dewp")
    several.features.append(FeatureShare(feature="temp"))
    assert incident.told([several], []).alert is several


@pytest.mark.parametrize(
    "other",
    [
        alert_at(incident.FROM_US, cause=CAUSE_CLASS_COVARIATE),
        alert_at(incident.FROM_US, feature="humid"),
        alert_at(incident.FROM_US - 2 * DAY_US),
        alert_at(incident.BEFORE_US),
    ],
)
def test_other_alerts_are_no_answer(other: Alert) -> None:
    assert incident.told([other], []).alert is None


def test_only_retrainings_of_its_days_count() -> None:
    cuts = [incident.FROM_US, incident.FROM_US + DAY_US, incident.BEFORE_US, 2 * incident.BEFORE_US]
    found = incident.told([], [RetrainingRun(cut_known_at_us=each) for each in cuts])
    assert [each.cut_known_at_us for each in found.runs] == cuts[1:3]


def test_the_summary_says_what_was_told_or_that_nothing_was() -> None:
    assert incident_line({"is_told": False, "runs_meanwhile": 2}) == (
        "no alert named it; 2 retrainings meanwhile"
    )
    said = {
        "is_told": True,
        "runs_meanwhile": 0,
        "cause": "data_break",
        "feature": "temp",
        "since": "2013-02-12",
        "advice": "Fix the feed.",
    }
    assert incident_line(said) == (
        "told as data break of temp since 2013-02-12, no retraining meanwhile. Fix the feed."
    )
