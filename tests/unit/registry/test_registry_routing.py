"""Who may answer beside a champion, and who goes on when another is crowned."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.registry.builders import CANDIDATE_SHA, a_model, a_signature, a_version

from homeostat_registry.domain import routing
from homeostat_registry.domain.errors import Invalid, WrongStage
from homeostat_registry.domain.facts import Artifact, Signature, Stage, Task, Tensor, Version
from homeostat_registry.domain.serving import Batching, Canary, Serving

versions = st.integers(1, 9)
servings = st.builds(
    Serving,
    st.lists(versions, max_size=4, unique=True).map(tuple),
    st.none() | st.builds(Canary, versions, st.floats(0.01, 0.99), st.booleans()),
    st.none() | versions,
    st.booleans(),
)


def other(number: int = 2, **more: object) -> Version:
    facts: dict[str, object] = {"stage": Stage.REGISTERED, "model": Artifact(CANDIDATE_SHA, 10)}
    return a_version(version=number, **(facts | more))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Serving((2, 3, 4, 5, 6)), "4 is the limit"),
        (Serving((2, 2)), "twice"),
        (Serving((0,)), "count from 1"),
        (Serving(canary=Canary(2, 0.0)), "more than 0"),
        (Serving(canary=Canary(2, 1.0)), "less than 1"),
        (Serving(canary=Canary(2, -0.5)), "more than 0"),
        (Serving(canary=Canary(2, math.nan)), "more than 0"),
        (Serving((2,), Canary(2, 0.1)), "canary and shadow"),
        (Serving(is_on_fallback=True), "needs a fallback_version"),
        (Serving(batching=Batching(max_rows=65_537)), "65536 is the limit"),
        (Serving(batching=Batching(max_delay_seconds=5.0)), "not milliseconds"),
        (Serving(batching=Batching(max_delay_seconds=-0.001)), "between 0 and 1"),
        (Serving(batching=Batching(max_delay_seconds=math.inf)), "between 0 and 1"),
        (Serving(batching=Batching(max_delay_seconds=math.nan)), "between 0 and 1"),
        (Serving(batching=Batching(64, 0.0, (8, 8))), "ascend"),
        (Serving(batching=Batching(64, 0.0, (0, 8))), "more than 0"),
        (Serving(batching=Batching(64, 0.0, (32, 128))), "more than max_rows, 64"),
        (Serving(batching=Batching(0, 0.0, tuple(range(1, 18)))), "16 is the limit"),
    ],
)
def test_what_can_be_right_for_no_model_is_refused_with_its_cure(
    wanted: Serving, words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        routing.check_serving(wanted)


def test_everything_at_once_may_be_set() -> None:
    wanted = Serving((2, 3), Canary(4, 0.1), 4, True, Batching(64, 0.002, (8, 64)))
    routing.check_serving(wanted)
    named = {number: other(number) for number in (2, 3, 4)}
    routing.require_servable(wanted, a_version(), named, "flights")


def test_batching_alone_needs_no_champion() -> None:
    routing.require_servable(Serving(batching=Batching(8)), None, {}, "flights")
    with pytest.raises(WrongStage, match="no champion yet"):
        routing.require_servable(Serving((2,)), None, {2: other()}, "flights")


@pytest.mark.parametrize(
    "wanted", [Serving((1,)), Serving(canary=Canary(1, 0.5)), Serving(fallback_version=1)]
)
def test_the_champion_is_not_its_own_neighbour(wanted: Serving) -> None:
    with pytest.raises(Invalid, match="it is the champion"):
        routing.require_servable(wanted, a_version(), {1: a_version()}, "flights")


def test_a_rejected_version_may_run_in_the_shadow_only() -> None:
    named = {2: other(stage=Stage.REJECTED)}
    routing.require_servable(Serving((2,)), a_version(), named, "flights")
    for wanted in (Serving(canary=Canary(2, 0.5)), Serving(fallback_version=2)):
        with pytest.raises(WrongStage, match="was rejected"):
            routing.require_servable(wanted, a_version(), named, "flights")


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        (a_signature(classes=("yes", "no")), "another order"),
        (a_signature(task=Task.REGRESSION), "regression, not binary"),
        (a_signature(inputs=(Tensor("y", "FP32", (-1, 1)),)), "no input 'x'.*no input 'y'"),
        (a_signature(inputs=(Tensor("x", "FP64", (-1, 1)),)), r"FP64\[-1, 1\], not FP32"),
        (a_signature(inputs=(Tensor("x", "FP32", (-1, 2)),)), r"\[-1, 2\], not FP32\[-1, 1\]"),
        (a_signature(inputs=(Tensor("x", "FP32", (-1, 1), True),)), "nullable, not"),
    ],
)
@pytest.mark.parametrize(
    "wanted", [Serving((2,)), Serving(canary=Canary(2, 0.5)), Serving(fallback_version=2)]
)
def test_a_version_that_takes_other_inputs_is_refused_and_told_why(
    wanted: Serving, signature: Signature, words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        routing.require_servable(wanted, a_version(), {2: other(signature=signature)}, "flights")


def test_only_who_answers_must_give_the_champions_outputs() -> None:
    more = (*a_signature().outputs, Tensor("label", "INT64", (-1,)))
    named = {2: other(signature=a_signature(outputs=more))}
    routing.require_servable(Serving((2,)), a_version(), named, "flights")
    with pytest.raises(Invalid, match="no output 'label'"):
        routing.require_servable(Serving(fallback_version=2), a_version(), named, "flights")


def test_the_order_of_inputs_does_not_matter() -> None:
    one, two = Tensor("x", "FP32", (-1, 1)), Tensor("z", "INT64", (-1, 1))
    champion = a_version(signature=a_signature(inputs=(one, two)))
    turned = other(signature=a_signature(inputs=(two, one)))
    routing.require_servable(Serving(canary=Canary(2, 0.5)), champion, {2: turned}, "flights")


@given(servings, versions)
def test_a_new_champion_leaves_every_other_part(before: Serving, number: int) -> None:
    named = {each: other(each) for each in before.versions()}
    after = routing.under_champion(before, other(number), named)
    assert number not in after.versions()
    assert set(after.versions()) == set(before.versions()) - {number}
    assert after.batching == before.batching
    if after.fallback_version is None:
        assert not after.is_on_fallback


@given(servings, versions)
def test_who_was_rejected_answers_nobody(before: Serving, number: int) -> None:
    after = routing.after_rejection(before, [number])
    assert after.fallback_version != number
    assert after.canary is None or after.canary.version != number
    assert after.shadow_versions == before.shadow_versions


def test_a_new_champion_with_other_inputs_ends_what_no_longer_fits() -> None:
    before = Serving((2,), Canary(3, 0.1), 4, True)
    wider = a_signature(inputs=(*a_signature().inputs, Tensor("z", "FP32", (-1, 1))))
    named = {2: other(2), 3: other(3, signature=wider), 4: other(4)}
    after = routing.under_champion(before, other(5, signature=wider), named)
    assert after == Serving(canary=before.canary)
    assert routing.spoken_changes(before, after) == (
        "Version 2 is no longer shadow.",
        "Version 4 is no longer fallback.",
    )


def test_what_a_person_changed_is_told_in_sentences() -> None:
    before = Serving((2,), Canary(3, 0.1), 4)
    after = Serving((), None, 4, True, Batching(64, 0.002, (8, 64)))
    assert routing.told(before, after) == (
        "Kill switch on: version 4 answers.",
        "No canary.",
        "Shadows: none.",
        "Batching: at most 64 rows, 0.002 s of waiting, preferred 8, 64.",
    )
    assert routing.told(before, before) == ("Nothing changed.",)


def test_sharing_traffic_anew_makes_a_new_etag_and_leaves_evidence_good() -> None:
    settled = a_model(revision=5)
    reshared = settled.reshared(Serving((2,))).reshared(Serving())
    assert reshared.revision == 7
    assert reshared.etag != settled.etag
    assert reshared.is_since_settled(settled.etag)
    assert reshared.is_since_settled(reshared.etag)
    before = dataclasses.replace(settled, revision=4)
    assert not reshared.is_since_settled(before.etag)
