"""How truth settles, held against a model that keeps every truth and looks at them all."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from homeostat_ledger.domain.truths import TRUTH, Settled, Truths, held, settle

# (prediction, truth, known-at, event)
Told = tuple[int, float, int, int]

told_once = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.5]), st.integers(0, 4), st.integers(0, 40)
    ),
    unique_by=lambda each: (each[0], each[3]),
    max_size=30,
)


@dataclass
class Model:
    """What the whole set of truths amounts to, whatever order it came in."""

    told: Sequence[Told]

    def chains(self) -> dict[int, list[Told]]:
        chains: dict[int, list[Told]] = {}
        for each in sorted(self.told, key=lambda t: (t[2], t[3])):
            chains.setdefault(each[0], []).append(each)
        return chains

    def holding(self) -> dict[int, tuple[float, int]]:
        return {name: (chain[-1][1], chain[-1][2]) for name, chain in self.chains().items()}

    def since(self) -> dict[int, tuple[float, int, int]]:
        """The truth that holds, since when it does, and when the first one of any value came."""
        found = {}
        for name, chain in self.chains().items():
            same = itertools.takewhile(lambda each: each[1] == chain[-1][1], reversed(chain))  # noqa: B023
            found[name] = (chain[-1][1], [*same][-1][2], chain[0][2])
        return found

    def corrections(self) -> int:
        return sum(
            sum(a[1] != b[1] for a, b in itertools.pairwise(chain))
            for chain in self.chains().values()
        )


def as_truths(told: Sequence[Told]) -> Truths:
    rows = np.zeros(len(told), dtype=TRUTH)
    for at, (prediction, truth, known_at, event) in enumerate(told):
        rows[at]["block"], rows[at]["row"] = prediction // 2, prediction % 2
        rows[at]["truth"], rows[at]["known_at_us"] = truth, known_at
        rows[at]["event_high"], rows[at]["event_row"] = event // 3, event % 3
    return rows


def settle_in_batches(told: Sequence[Told], cuts: Sequence[int]) -> tuple[list[Settled], Truths]:
    known, results = np.zeros(0, dtype=TRUTH), []
    edges = sorted({0, len(told), *(cut % (len(told) + 1) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        arriving = as_truths(told[start:stop])
        touched = set(zip(arriving["block"].tolist(), arriving["row"].tolist(), strict=True))
        is_known = np.array(
            [(int(k["block"]), int(k["row"])) in touched for k in known], dtype=bool
        )
        settled = settle(known[is_known], arriving)
        known = np.concatenate([known, settled.stored])
        results.append(settled)
    return results, known


def prediction(row: np.void) -> int:
    return int(row["block"]) * 2 + int(row["row"])


@given(told_once, st.lists(st.integers(0, 100), max_size=6))
def test_counts_and_the_truth_that_holds_do_not_depend_on_order_or_batches(
    told: list[Told], cuts: list[int]
) -> None:
    results, known = settle_in_batches(told, cuts)
    model = Model(told)
    assert as_told(known) == model.since()
    joined = sum(each.joined for each in results)
    corrections = sum(each.corrections for each in results)
    assert joined == len(model.chains())
    assert corrections == model.corrections()
    assert sum(each.repeated for each in results) == len(told) - joined - corrections


@given(told_once, st.integers(0, 4))
def test_a_row_is_known_since_its_value_holds_whatever_repeats_it(
    told: list[Told], least: int
) -> None:
    since = Model(told).since()
    assert as_told(as_truths(told)) == since
    kept = as_told(as_truths(told), least)
    assert kept == {name: each for name, each in since.items() if each[1] >= least}


def as_told(truths: Truths, least: int = 0) -> dict[int, tuple[float, int, int]]:
    now = held(truths).known_since(least)
    rows = truths[now.at]
    return {
        prediction(row): (float(row["truth"]), int(known_at), int(first))
        for row, known_at, first in zip(rows, now.known_at_us, now.first_known_at_us, strict=True)
    }


@given(told_once, st.lists(st.integers(0, 100), max_size=6))
def test_one_truth_of_a_prediction_is_its_first_revision(told: list[Told], cuts: list[int]) -> None:
    _, known = settle_in_batches(told, cuts)
    firsts = [prediction(row) for row in known if row["revision"] == 1]
    assert sorted(firsts) == sorted(Model(told).chains())


@given(told_once, st.lists(st.integers(0, 100), max_size=6))
def test_whoever_retracts_and_adds_ends_with_the_truth_that_holds(
    told: list[Told], cuts: list[int]
) -> None:
    results, _ = settle_in_batches(told, cuts)
    believed: dict[int, float] = {}
    revisions: dict[int, int] = {}
    for settled in results:
        for row, previous in zip(settled.news, settled.previous, strict=True):
            name = prediction(row)
            assert (believed[name] == previous) if name in believed else np.isnan(previous)
            assert row["revision"] == revisions.get(name, 0) + 1
            believed[name], revisions[name] = float(row["truth"]), int(row["revision"])
    assert believed == {name: held[0] for name, held in Model(told).holding().items()}


@given(told_once, st.lists(st.integers(0, 100), max_size=6))
def test_what_held_before_is_what_was_left_as_holding(told: list[Told], cuts: list[int]) -> None:
    results, _ = settle_in_batches(told, cuts)
    now: dict[int, tuple[float, int]] = {}
    for settled in results:
        for row in settled.held_before:
            assert now.pop(prediction(row)) == (float(row["truth"]), int(row["known_at_us"]))
        for row in settled.held_now:
            assert prediction(row) not in now
            now[prediction(row)] = (float(row["truth"]), int(row["known_at_us"]))
    assert now == Model(told).holding()
