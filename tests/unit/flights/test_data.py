"""The flights are whole, in order, and each fate is known after its departure."""

import numpy as np
import pytest

from homeostat_flights.data import Flights, load_flights


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
