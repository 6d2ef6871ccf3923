"""The gate recomputes the decision, and can't be talked round."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.unit.registry.builders import (
    CANDIDATE_SHA,
    TRAINED_TO_US,
    a_model,
    a_version,
    some_evidence,
)

from homeostat_registry.domain.facts import Artifact, Evidence, Lineage
from homeostat_registry.domain.gate import GateRule, GateVerdict, judge, required_z

gains = st.floats(-10, 10)
deviations = st.floats(1e-6, 100)
rows = st.integers(300, 10**7)
counts = st.integers(1, 100)


def verdict(evidence: Evidence | None, **more: Any) -> GateVerdict:
    given_facts: dict[str, Any] = {
        "candidate": Artifact(CANDIDATE_SHA, 10),
        "lineage": Lineage(trained_to_us=TRAINED_TO_US),
        "model": a_model(),
        "champion": a_version(),
        "rule": GateRule(),
    }
    return judge(evidence, **(given_facts | more))


def test_a_clear_gain_passes() -> None:
    said = verdict(some_evidence())
    assert said.passes
    assert said.reasons[0].startswith("Proven better: gain 0.1 per row on 1000 hold-out rows")


def test_one_candidate_needs_the_usual_one_sided_value() -> None:
    assert math.isclose(required_z(1, 0.05), 1.6448536, rel_tol=1e-6)
    assert math.isclose(required_z(5, 0.05), 2.3263479, rel_tol=1e-6)


@given(gains, gains, deviations, rows, counts)
def test_a_larger_gain_never_turns_a_pass_into_a_refusal(
    one: float, other: float, deviation: float, count: int, tried: int
) -> None:
    small, large = sorted((one, other))
    said = [
        verdict(
            some_evidence(
                mean_gain=gain,
                gain_deviation=deviation,
                holdout_rows=count,
                candidate_count=tried,
            )
        )
        for gain in (small, large)
    ]
    assert said[1].passes or not said[0].passes


@given(gains, deviations, rows, counts, counts)
def test_more_candidates_tried_never_help(
    gain: float, deviation: float, count: int, one: int, other: int
) -> None:
    few, many = sorted((one, other))
    said = [
        verdict(
            some_evidence(
                mean_gain=gain,
                gain_deviation=deviation,
                holdout_rows=count,
                candidate_count=tried,
            )
        )
        for tried in (few, many)
    ]
    assert said[0].passes or not said[1].passes


@given(st.floats(max_value=0, allow_nan=False), deviations, rows, counts)
def test_no_gain_never_passes(gain: float, deviation: float, count: int, tried: int) -> None:
    evidence = some_evidence(
        mean_gain=gain, gain_deviation=deviation, holdout_rows=count, candidate_count=tried
    )
    assert not verdict(evidence).passes


@given(
    st.floats(allow_nan=True),
    st.floats(allow_nan=True),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["c" * 64, "0" * 64, ""]),
    st.text(max_size=40),
)
def test_a_stale_champion_never_passes_and_nothing_raises(
    gain: float,
    deviation: float,
    count: int,
    tried: int,
    version: int,
    sha256: str,
    etag: str,
) -> None:
    evidence = some_evidence(
        mean_gain=gain,
        gain_deviation=deviation,
        holdout_rows=count,
        candidate_count=tried,
        champion_version=version,
        champion_sha256=sha256,
        champion_etag=etag,
    )
    assume((version, sha256, etag) != (1, "c" * 64, a_model().etag))
    said = verdict(evidence)
    assert not said.passes
    assert any("tale" in reason for reason in said.reasons)


@given(st.floats(), st.floats(), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_whatever_the_numbers_the_gate_answers(
    gain: float, deviation: float, count: int, tried: int
) -> None:
    said = verdict(
        some_evidence(
            mean_gain=gain, gain_deviation=deviation, holdout_rows=count, candidate_count=tried
        )
    )
    assert said.reasons
    assert not said.passes or (gain > 0 and deviation > 0 and count >= 300 and tried >= 1)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"candidate_sha256": "0" * 64}, "another artifact"),
        ({"gain_deviation": -0.1}, "negative"),
        ({"gain_deviation": 0.0}, "does not vary"),
        ({"gain_deviation": math.nan}, "not finite"),
        ({"mean_gain": math.inf}, "not finite"),
        ({"champion_loss": math.nan}, "not finite"),
        ({"holdout_rows": 299}, "Too few hold-out rows: 299"),
        ({"candidate_count": 0}, "how many candidates"),
        ({"holdout_sha256": ""}, "hold-out"),
        ({"holdout_from_us": 3 * TRAINED_TO_US}, "ends before"),
        ({"holdout_from_us": TRAINED_TO_US - 1}, "Peeking: the candidate"),
        ({"holdout_from_us": TRAINED_TO_US}, "Peeking: the candidate"),
    ],
)
def test_evidence_that_does_not_fit_is_refused_with_its_reason(
    change: dict[str, Any], word: str
) -> None:
    said = verdict(some_evidence(**change))
    assert not said.passes
    assert any(word in reason for reason in said.reasons)


def test_a_holdout_that_the_champion_was_trained_on_is_refused() -> None:
    later = Lineage(trained_to_us=TRAINED_TO_US + 1)
    said = verdict(some_evidence(), champion=a_version(lineage=later))
    assert said.reasons == (
        "Peeking: the champion was trained on truth known up to 0.00 days into the hold-out; "
        "use later truth.",
    )


def test_a_candidate_that_hides_its_training_time_is_refused() -> None:
    assert not verdict(some_evidence(), lineage=Lineage()).passes


def test_no_evidence_no_promotion() -> None:
    assert not verdict(None).passes


def test_evidence_against_a_champion_that_is_not_there_is_stale() -> None:
    assert not verdict(some_evidence(), champion=None).passes


def test_all_faults_are_told_at_once() -> None:
    said = verdict(dataclasses.replace(some_evidence(), holdout_rows=1, candidate_sha256="0" * 64))
    assert len(said.reasons) == 2
