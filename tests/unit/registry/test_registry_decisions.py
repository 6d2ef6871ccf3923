"""What registration, approval, promotion and roll-back lead to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.registry.builders import (
    a_model,
    a_registration,
    a_signature,
    a_version,
    some_evidence,
)

from homeostat_registry.domain import life
from homeostat_registry.domain.errors import (
    AlreadyExists,
    Invalid,
    SelfApproval,
    StaleChampion,
    StaleEtag,
    StaleRun,
    UnknownVersion,
    WrongStage,
)
from homeostat_registry.domain.facts import (
    Autonomy,
    Change,
    Lineage,
    Reign,
    Signature,
    Stage,
    Task,
    Tensor,
    Version,
    check_registration,
    check_signature,
)
from homeostat_registry.domain.gate import GateRule
from homeostat_registry.domain.serving import Canary, Serving

RULE = GateRule()
BY_HAND = Lineage()


@pytest.mark.parametrize(
    ("autonomy", "stage"),
    [
        (Autonomy.OBSERVE, Stage.REGISTERED),
        (Autonomy.RECOMMEND, Stage.REGISTERED),
        (Autonomy.APPROVE, Stage.AWAITS_APPROVAL),
        (Autonomy.AUTO, Stage.CHAMPION),
    ],
)
def test_autonomy_decides_what_proof_leads_to(autonomy: Autonomy, stage: Stage) -> None:
    decision = life.decide(a_registration(), a_model(autonomy=autonomy), a_version(), RULE)
    assert decision.stage is stage


@pytest.mark.parametrize(
    ("autonomy", "stage"),
    [
        (Autonomy.OBSERVE, Stage.REGISTERED),
        (Autonomy.RECOMMEND, Stage.REGISTERED),
        (Autonomy.APPROVE, Stage.REJECTED),
        (Autonomy.AUTO, Stage.REJECTED),
    ],
)
def test_autonomy_decides_what_a_failed_proof_leads_to(autonomy: Autonomy, stage: Stage) -> None:
    said = a_registration(evidence=some_evidence(mean_gain=0.0))
    decision = life.decide(said, a_model(autonomy=autonomy), a_version(), RULE)
    assert decision.stage is stage


def test_a_recommendation_carries_the_gates_reasons() -> None:
    model = a_model(autonomy=Autonomy.RECOMMEND)
    decision = life.decide(a_registration(), model, a_version(), RULE)
    assert decision.reasons[0] == "Recommended."
    assert "Proven better" in decision.reasons[1]


@pytest.mark.parametrize(
    ("autonomy", "by_hand", "by_run"),
    [
        (Autonomy.OBSERVE, Stage.REGISTERED, Stage.REGISTERED),
        (Autonomy.RECOMMEND, Stage.REGISTERED, Stage.REGISTERED),
        (Autonomy.APPROVE, Stage.CHAMPION, Stage.AWAITS_APPROVAL),
        (Autonomy.AUTO, Stage.CHAMPION, Stage.CHAMPION),
    ],
)
def test_the_first_version_needs_no_proof(
    autonomy: Autonomy, by_hand: Stage, by_run: Stage
) -> None:
    model = a_model(autonomy=autonomy, champion_version=None)
    pushed = a_registration(evidence=None, lineage=BY_HAND)
    assert life.decide(pushed, model, None, RULE).stage is by_hand
    assert life.decide(a_registration(evidence=None), model, None, RULE).stage is by_run


def test_by_hand_without_evidence_waits_to_be_promoted() -> None:
    pushed = a_registration(evidence=None, lineage=BY_HAND)
    assert life.decide(pushed, a_model(), a_version(), RULE).stage is Stage.REGISTERED


def test_a_lower_fencing_token_is_refused_only_to_runs() -> None:
    model = a_model(highest_fencing_token=5)
    with pytest.raises(StaleRun, match="fencing token 4"):
        life.require_fresh_run(a_registration(fencing_token=4), model)
    life.require_fresh_run(a_registration(fencing_token=5), model)
    life.require_fresh_run(a_registration(fencing_token=0, lineage=BY_HAND), model)


def test_the_same_artifact_again_is_refused_only_by_hand() -> None:
    with pytest.raises(AlreadyExists, match="version 1"):
        life.require_new_artifact(a_registration(lineage=BY_HAND), a_version())
    life.require_new_artifact(a_registration(), a_version())


def test_an_etag_must_be_the_present_one() -> None:
    model = a_model()
    life.require_etag(model, model.etag)
    with pytest.raises(StaleEtag):
        life.require_etag(model, a_model(revision=1).etag)
    with pytest.raises(Invalid):
        life.require_etag(model, "")
    assert model.etag != a_model(name="other").etag


def approve(**more: Any) -> life.Decision:
    said: dict[str, Any] = {
        "version": a_version(
            version=2,
            stage=Stage.AWAITS_APPROVAL,
            author="Ann B",
            evidence=some_evidence(),
            reasons=("Proven better.",),
        ),
        "champion": a_version(),
        "approver": "bob",
        "is_approved": True,
        "reason": "checked",
    }
    said |= more
    return life.decide_approval(said.pop("version"), said.pop("champion"), **said)


def test_an_approval_promotes_and_is_told() -> None:
    decision = approve()
    assert decision.stage is Stage.CHAMPION
    assert decision.reasons == ("Proven better.", "Approved by bob: checked")


@pytest.mark.parametrize("alias", ["Ann B", " ann  b ", "ANN B", "\uff21nn B"])
def test_the_author_may_not_approve_under_any_spelling(alias: str) -> None:
    with pytest.raises(SelfApproval):
        approve(approver=alias)


def test_an_approval_looks_at_the_champion_again() -> None:
    with pytest.raises(StaleChampion, match="version 5 is champion now"):
        approve(champion=a_version(version=5))
    assert approve(champion=a_version(version=5), is_approved=False).stage is Stage.REJECTED


def test_only_what_waits_can_be_approved() -> None:
    with pytest.raises(WrongStage, match="rejected"):
        approve(version=a_version(stage=Stage.REJECTED))


def test_a_promotion_needs_a_reason_and_another_version() -> None:
    with pytest.raises(Invalid):
        promote(a_version(stage=Stage.REJECTED), reason=" ")
    with pytest.raises(WrongStage):
        promote(a_version())


def promote(version: Version, **more: Any) -> life.Decision:
    said: dict[str, Any] = {"model": a_model(), "actor": "bob", "reason": "why not"}
    said |= more
    return life.decide_promotion(version, said.pop("model"), **said)


@pytest.mark.parametrize("stage", [Stage.AWAITS_APPROVAL, Stage.REJECTED])
def test_an_author_does_not_pass_four_eyes_by_promoting(stage: Stage) -> None:
    made = a_version(version=2, stage=stage, author="Ann B")
    under_approve = a_model(autonomy=Autonomy.APPROVE)
    with pytest.raises(SelfApproval, match="somebody else must promote"):
        promote(made, model=under_approve, actor=" ann  b")
    assert promote(made, model=under_approve).stage is Stage.CHAMPION
    assert promote(made, actor="Ann B").stage is Stage.CHAMPION


def reigns(*steps: tuple[int, Change]) -> list[Reign]:
    return [
        Reign(index + 2, version, index * 10, change)
        for index, (version, change) in enumerate(steps)
    ]


def test_going_back_walks_down_the_line_of_champions() -> None:
    up = [(version, Change.PROMOTED) for version in (1, 2, 3)]
    history = reigns(*up)
    assert life.roll_back_target(a_model(), history, None) == 2
    history = reigns(*up, (2, Change.ROLLED_BACK))
    assert life.roll_back_target(a_model(), history, None) == 1
    history = reigns(*up, (2, Change.ROLLED_BACK), (1, Change.ROLLED_BACK))
    with pytest.raises(UnknownVersion):
        life.roll_back_target(a_model(), history, None)


def test_going_back_to_a_named_version_needs_a_former_champion() -> None:
    history = reigns((1, Change.PROMOTED), (2, Change.PROMOTED))
    model = a_model(champion_version=2)
    assert life.roll_back_target(model, history, 1) == 1
    with pytest.raises(WrongStage, match="never"):
        life.roll_back_target(model, history, 3)
    with pytest.raises(WrongStage, match="already"):
        life.roll_back_target(model, history, 2)


@pytest.mark.parametrize(
    ("successor", "change", "after"),
    [
        (1, Change.ROLLED_BACK, Autonomy.APPROVE),
        (5, Change.ROLLED_BACK, Autonomy.APPROVE),
        (1, Change.PROMOTED, Autonomy.APPROVE),
        (5, Change.PROMOTED, Autonomy.AUTO),
    ],
)
def test_the_loop_does_not_undo_a_step_back(
    successor: int, change: Change, after: Autonomy
) -> None:
    assert life.autonomy_after(a_model(champion_version=3), successor, change) is after
    for autonomy in (Autonomy.OBSERVE, Autonomy.RECOMMEND, Autonomy.APPROVE):
        model = a_model(champion_version=3, autonomy=autonomy)
        assert life.autonomy_after(model, successor, change) is autonomy


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20), st.integers(-10, 1010))
def test_the_champion_at_a_time_is_the_last_decision_that_counts_from_before(
    told: list[int], at: int
) -> None:
    history = [Reign(index + 1, index + 1, since) for index, since in enumerate(told)]
    found = life.champion_at(history, at)
    expected = [each.version for each in history if each.since_us <= at]
    assert (found.version if found else None) == (expected[-1] if expected else None)


def test_a_replayed_past_is_not_hidden_by_a_push_of_today() -> None:
    history = [Reign(2, 1, 2_000), Reign(3, 2, 10), Reign(4, 3, 20)]
    at = [life.champion_at(history, time) for time in (5, 15, 25, 3_000)]
    assert [each and each.version for each in at] == [None, 2, 3, 3]


def float_input(name: str = "x", **more: Any) -> Tensor:
    return Tensor(name, more.get("datatype", "FP32"), more.get("shape", (-1, 1)), **{
        key: value for key, value in more.items() if key == "is_nullable"
    })  # fmt: skip


@pytest.mark.parametrize(
    ("signature", "word"),
    [
        (a_signature(inputs=()), "0 inputs"),
        (a_signature(inputs=(float_input(), float_input())), "one name"),
        (a_signature(inputs=(float_input(datatype="STRING"),)), "no Open Inference"),
        (a_signature(inputs=(float_input(shape=(1, 1)),)), "batch"),
        (a_signature(inputs=(float_input(shape=(-1, 0)),)), "sizes"),
        (a_signature(inputs=(float_input("homeostat.x"),)), "homeostat."),
        (a_signature(inputs=(Tensor("x", "INT64", (-1, 1), True),)), "nulls"),
        (a_signature(score_output="q"), "none of the outputs"),
        (a_signature(outputs=(Tensor("p", "INT64", (-1, 2)),)), "probabilities or values"),
        (a_signature(classes=("yes", "yes")), "differ"),
        (a_signature(task=Task.MULTICLASS), "3 or more"),
        (a_signature(task=Task.REGRESSION), "no classes"),
        (a_signature(decision_threshold=2.0), "between 0 and 1"),
    ],
)
def test_an_impossible_signature_is_refused_with_its_cure(signature: Signature, word: str) -> None:
    with pytest.raises(Invalid, match=word):
        check_signature(signature)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_name": "a b"}, "no model name"),
        ({"model_name": "../x"}, "no model name"),
        ({"author": "  "}, "author"),
        ({"occurred_at_us": 10**12}, "future"),
        ({"occurred_at_us": -1}, "1970"),
        ({"author": "an\0n"}, "NUL"),
        ({"lineage": Lineage(run_id="r" * 20_001)}, "20001 characters"),
        ({"lineage": Lineage(cause="\0")}, "NUL"),
    ],
)
def test_an_impossible_registration_is_refused_with_its_cure(
    change: dict[str, Any], word: str
) -> None:
    check_registration(a_registration(), now_us=0, future_bound_seconds=60)
    with pytest.raises(Invalid, match=word):
        check_registration(a_registration(**change), now_us=0, future_bound_seconds=60)


@pytest.mark.parametrize("wanted", [Serving(canary=Canary(2, 0.99)), Serving((), None, 2, True)])
def test_nobody_lets_an_own_version_answer_that_somebody_else_has_to_approve(
    wanted: Serving,
) -> None:
    model = a_model(autonomy=Autonomy.APPROVE)
    waiting = {2: a_version(version=2, stage=Stage.AWAITS_APPROVAL, author="Ann")}
    with pytest.raises(SelfApproval, match="somebody else must let it answer"):
        life.require_four_eyes(wanted, model, waiting, actor=" ann ")
    life.require_four_eyes(wanted, model, waiting, actor="bob")
    life.require_four_eyes(Serving((2,)), model, waiting, actor="ann")
    # Bob said so before; she changes something else.
    life.require_four_eyes(
        wanted, a_model(autonomy=Autonomy.APPROVE, serving=wanted), waiting, actor="ann"
    )
    life.require_four_eyes(wanted, a_model(autonomy=Autonomy.AUTO), waiting, actor="ann")
    registered = {2: a_version(version=2, stage=Stage.REGISTERED, author="ann")}
    life.require_four_eyes(wanted, model, registered, actor="ann")
