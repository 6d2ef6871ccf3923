"""Truths of one moment are taken in an order that tells nothing: neither of losses nor of ids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat_monitor.domain.losses.ties import fair_order
from homeostat_monitor.domain.losses.truths import Truths
from homeostat_monitor.domain.losses.watch import LossWatch


def ordered(truths: Truths) -> Truths:
    figures = (truths.losses, truths.scores, truths.decisions, truths.truths)
    places = fair_order(truths.known_at_us, truths.event_times_us, figures)
    return Truths(
        truths.known_at_us[places],
        truths.event_times_us[places],
        *(each[places] for each in figures),
    )


def a_stream(kind: str, at_once: int, *, rows: int = 20_000, rate: float = 0.2) -> Truths:
    """So many truths known at each moment, all of one event time."""
    rng = np.random.default_rng(1)
    times = np.arange(rows) // at_once * 1_000_000
    none = np.zeros(rows)
    if kind == "values":
        scores = rng.normal(size=rows)
        truths = scores + rng.normal(size=rows) * rate * 5
        return Truths(times, times, (scores - truths) ** 2, scores, scores, truths)
    losses = (rng.random(rows) < rate).astype(float)
    scores = {"classes": rng.random(rows), "five scores": rng.integers(0, 5, rows) / 5}.get(kind)
    return Truths(times, times, losses, none if scores is None else scores, none, losses)


@pytest.mark.parametrize("at_once", [60, 1_000])
@pytest.mark.parametrize("kind", ["classes", "five scores", "one score", "values"])
def test_many_truths_at_one_moment_are_no_rise(kind: str, at_once: int) -> None:
    watch = LossWatch.seeded(None, is_binary=kind != "values")
    assert watch.feed(ordered(a_stream(kind, at_once))) == []


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_a_rise_among_them_is_seen(kind: str) -> None:
    watch = LossWatch.seeded(None, is_binary=kind != "values")
    watch.feed(ordered(a_stream(kind, 500, rows=5_000)))
    assert watch.feed(ordered(a_stream(kind, 500, rows=5_000, rate=0.5)))


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0])),
        max_size=60,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_does_not_depend_on_how_they_came(
    rows: list[tuple[int, int, float]], random: "np.random.RandomState"
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert taken(rows) == taken(shuffled)
    assert [row[:2] for row in taken(rows)] == sorted(row[:2] for row in rows)


def taken(rows: list[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    known, events = (np.array([row[at] for row in rows], dtype=np.int64) for at in (0, 1))
    figures = (np.array([row[2] for row in rows], dtype=np.float64),)
    return [rows[place] for place in fair_order(known, events, figures)]


def test_rows_of_one_kind_go_by_their_ids() -> None:
    times, losses = np.zeros(4, dtype=np.int64), np.zeros(4)
    ids = np.array([b"d", b"b", b"c", b"a"])
    assert fair_order(times, times, (losses,), ids).tolist() == [3, 1, 2, 0]


def test_what_is_unknown_is_a_kind_too() -> None:
    times, losses = np.zeros(3, dtype=np.int64), np.array([np.nan, 1.0, np.nan])
    assert sorted(fair_order(times, times, (losses,)).tolist()) == [0, 1, 2]
    assert len(fair_order(times[:0], times[:0], (losses[:0],))) == 0
