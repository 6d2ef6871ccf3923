from hypothesis import given
from hypothesis import strategies as st

from homeostat_local.restarts import Backoff


def test_a_child_that_dies_at_once_is_waited_for_longer_and_longer() -> None:
    backoff = Backoff()
    delays = [backoff.delay_after(0.0) for _ in range(8)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_long_life_is_trusted_again() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.delay_after(0.0)
    assert backoff.delay_after(60.0) == 0.1


@given(st.lists(st.floats(0, 1e6)))
def test_a_delay_is_never_under_the_first_nor_over_the_longest(lives: list[float]) -> None:
    backoff = Backoff()
    assert all(0.1 <= backoff.delay_after(lived) <= 5.0 for lived in lives)
