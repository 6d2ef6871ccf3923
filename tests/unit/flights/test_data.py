"""The flights are whole, in order, and each fate is known after its departure."""

from pathlib import Path

import numpy as np
import pytest

from homeostat_flights.data import load_flights
from homeostat_flights.flights import Flights, read_flights


@pytest.fixture(scope="module")
def year() -> Flights:
    return load_flights()


def test_the_year_is_whole(year: Flights) -> None:
    assert len(year) == 336_776
    assert (year.months == 1).sum() == 27_004
    assert len(set(year.ids)) == len(year)


def test_flights_depart_in_order_and_are_known_later(year: Flights) -> None:
    assert (np.diff(year.departs_us) >= 0).all()
    assert (year.known_us > year.departs_us).all()


def test_cancelled_diverted_and_lost_flights_count_as_late(year: Flights) -> None:
    assert year.late.mean() == pytest.approx(0.2585, abs=1e-4)


def test_flights_survive_their_file(year: Flights, tmp_path: Path) -> None:
    some = year.where(year.months == 2)
    some.write(tmp_path / "flights.parquet")
    found = read_flights(tmp_path / "flights.parquet")
    assert found.features.equals(some.features)
    assert (found.ids == some.ids).all()
    assert (found.known_us == some.known_us).all()
    assert (found.departs_us == some.departs_us).all()
    assert (found.late == some.late).all()
