"""A version that is another form of the champion passes by deciding alike, and faster."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.registry.builders import (
    CHAMPION_SHA,
    a_model,
    a_registration,
    a_signature,
    a_version,
    some_evidence,
)

from homeostat_registry.domain import life
from homeostat_registry.domain.errors import Invalid, StaleChampion
from homeostat_registry.domain.facts import (
    Autonomy,
    Equivalence,
    Stage,
    Task,
    Version,
    check_registration,
    require_same_question,
)
from homeostat_registry.domain.gate import GateRule, GateVerdict, judge_equivalence


def alike(**more: Any) -> Equivalence:
    made = Equivalence(
        parent_sha256=CHAMPION_SHA,
        rows_sha256="e" * 64,
        row_count=2_000,
        equal_count=1_999,
        tolerated_share=0.999,
        value_tolerance=0.0,
        max_score_difference=0.004,
        speed_up=2.5,
        method="int8",
        machine="a laptop",
    )
    return dataclasses.replace(made, **more)


def verdict(said: Equivalence, champion: Version | None = None, **more: Any) -> GateVerdict:
    return judge_equivalence(said, signature=a_signature(**more), champion=champion or a_version())


def test_what_decides_alike_and_faster_passes() -> None:
    said = verdict(alike())
    assert said.passes
    assert said.reasons == (
        "Equivalent to its parent by int8: 1999 of 2000 rows are equal (99.9500% where 99.9000% "
        "is needed), largest difference of the score 0.004; 2.50 times as fast per row on a "
        "laptop where 1.05 is needed.",
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"parent_sha256": "f" * 64}, "is not the present champion"),
        ({"rows_sha256": "rows"}, "64 hex digits"),
        ({"row_count": 499, "equal_count": 499}, "Too few rows"),
        ({"equal_count": 2_001}, "more than the 2000"),
        ({"equal_count": 1_997}, "Not equivalent to its parent: 1997 of 2000"),
        ({"tolerated_share": 1.0}, "100.0000% is needed"),
        ({"tolerated_share": 1.5}, "between 0 and 1"),
        ({"tolerated_share": math.nan}, "between 0 and 1"),
        ({"value_tolerance": math.inf}, "value_tolerance"),
        ({"value_tolerance": -1.0}, "value_tolerance"),
        ({"max_score_difference": math.nan}, "no finite number"),
        ({"max_score_difference": math.inf}, "no finite number"),
        ({"max_score_difference": 1.5}, "can't differ by 1.5"),
        ({"speed_up": 1.05}, "not faster: 1.05 times as fast"),
        ({"speed_up": math.inf}, "speed-up is no finite number"),
        ({"speed_up": math.nan}, "speed-up is no finite number"),
        ({"method": " "}, "what was done"),
        ({"machine": ""}, "where it was measured"),
    ],
)
def test_what_is_not_proven_alike_is_refused_with_the_reason(
    more: dict[str, Any], words: str
) -> None:
    said = verdict(alike(**more))
    assert not said.passes
    assert words in " ".join(said.reasons)


def test_a_low_tolerance_of_the_sender_is_not_the_gates() -> None:
    assert not verdict(alike(tolerated_share=0.5, equal_count=1_500)).passes


def test_another_signature_is_another_model() -> None:
    said = verdict(alike(), decision_threshold=0.4)
    assert not said.passes
    assert "signature is not that of its parent" in said.reasons[0]


def test_without_a_champion_there_is_no_parent() -> None:
    said = judge_equivalence(alike(), signature=a_signature(), champion=None)
    assert not said.passes
    assert "No version serves" in said.reasons[0]


def test_all_faults_are_told_at_once() -> None:
    said = verdict(alike(parent_sha256="f" * 64, row_count=0, equal_count=1, method=""))
    assert len(said.reasons) == 4


def test_a_score_that_differs_by_much_is_not_alike_though_its_class_is() -> None:
    said = verdict(alike(max_score_difference=0.4))
    assert not said.passes
    assert "a score may differ by 0.02 at most" in said.reasons[0]
    assert verdict(alike(max_score_difference=0.02)).passes


def of_regression(tolerance: float) -> GateVerdict:
    question: dict[str, Any] = {"task": Task.REGRESSION, "classes": ()}
    said = alike(max_score_difference=3.0, value_tolerance=tolerance)
    return verdict(said, a_version(signature=a_signature(**question)), **question)


def test_a_regression_may_differ_by_more_than_one() -> None:
    assert of_regression(5.0).passes


def test_a_tolerance_of_the_sender_is_not_taken_for_proof_without_a_person() -> None:
    loose, exact = of_regression(1e9), of_regression(0.0)
    assert loose.needs_person and "1e+09" in loose.reasons[-1]
    assert not exact.needs_person
    assert not verdict(alike(value_tolerance=5.0)).needs_person
    assert life._decide_proven(loose, Autonomy.AUTO).stage is Stage.AWAITS_APPROVAL
    assert life._decide_proven(exact, Autonomy.AUTO).stage is Stage.CHAMPION
    assert life._decide_proven(loose, Autonomy.APPROVE).stage is Stage.AWAITS_APPROVAL


numbers = st.floats(allow_nan=True)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), numbers, numbers, numbers, numbers)
def test_no_numbers_raise_or_pass_with_fewer_than_999_in_1000_alike(
    rows: int, equal: int, share: float, tolerance: float, difference: float, speed: float
) -> None:
    said = verdict(
        alike(
            row_count=rows,
            equal_count=equal,
            tolerated_share=share,
            value_tolerance=tolerance,
            max_score_difference=difference,
            speed_up=speed,
        )
    )
    assert said.reasons
    if said.passes:
        assert rows >= 500
        assert 0.999 * rows <= equal <= rows
        assert speed > 1.05
        assert difference <= 0.02


@pytest.mark.parametrize(
    ("autonomy", "stage"),
    [
        (Autonomy.OBSERVE, Stage.REGISTERED),
        (Autonomy.RECOMMEND, Stage.REGISTERED),
        (Autonomy.APPROVE, Stage.AWAITS_APPROVAL),
        (Autonomy.AUTO, Stage.CHAMPION),
    ],
)
def test_autonomy_decides_what_equivalence_leads_to(autonomy: Autonomy, stage: Stage) -> None:
    said = a_registration(evidence=None, equivalence=alike())
    decision = life.decide(said, a_model(autonomy=autonomy), a_version(), GateRule())
    assert decision.stage is stage


def test_equivalence_that_fails_is_rejected_by_hand_too() -> None:
    said = a_registration(evidence=None, equivalence=alike(speed_up=0.5))
    decision = life.decide(said, a_model(), a_version(), GateRule())
    assert decision.stage is Stage.REJECTED
    assert "not faster" in decision.reasons[0]


def test_both_kinds_of_proof_are_one_too_many() -> None:
    said = a_registration(evidence=some_evidence(), equivalence=alike())
    with pytest.raises(Invalid, match="both evidence and equivalence"):
        check_registration(said, now_us=0, future_bound_seconds=1.0)


def test_approval_is_too_late_once_the_parent_has_left() -> None:
    waiting = a_version(version=2, stage=Stage.AWAITS_APPROVAL, equivalence=alike(), author="bob")
    another = a_version(version=3, model=dataclasses.replace(a_version().model, sha256="9" * 64))
    with pytest.raises(StaleChampion, match="is not the present champion"):
        life.decide_approval(waiting, another, approver="ann", is_approved=True, reason="")
    decision = life.decide_approval(
        waiting, a_version(), approver="ann", is_approved=True, reason=""
    )
    assert decision.stage is Stage.CHAMPION


def test_all_versions_of_a_model_answer_the_same_question() -> None:
    require_same_question(a_signature(), None)
    require_same_question(a_signature(), a_version())
    with pytest.raises(Invalid, match="yes, no, but flights version 1 has no, yes"):
        require_same_question(a_signature(classes=("yes", "no")), a_version())
    with pytest.raises(Invalid, match="the task is regression"):
        require_same_question(a_signature(task=Task.REGRESSION, classes=()), a_version())
