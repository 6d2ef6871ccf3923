"""Who answers: champions, canaries, fallbacks, versions by name."""

import sys
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeostat.client import infer_request
from homeostat.events.v1.column_pb2 import (
    ARM_CANARY,
    ARM_CHAMPION,
    ARM_FALLBACK,
    ARM_PINNED,
    TASK_REGRESSION,
)
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec
from homeostat_inference.app.plan import CanaryPlan, ModelPlan, QuarantinePlan, ServingPlan
from homeostat_inference.app.routing import Key, Split
from homeostat_inference.app.serving import NotLoaded, Served, Table
from homeostat_inference.domain.clients import first_client_id
from homeostat_inference.domain.errors import NotServed, Quarantined
from homeostat_inference.domain.schema import schema_of

SIGNATURE = Signature(
    task=TASK_REGRESSION,
    inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1, 1])],
    outputs=[TensorSpec(name="y", datatype="FP32", shape=[-1, 1])],
    score_output="y",
)
IDS = [f"client {number}".encode() for number in range(20_000)]
shares = st.floats(0.001, 0.999)
names = st.text(max_size=12)
versions = st.integers(1, 1_000_000)


def served(version: int, model_name: str = "m") -> Served:
    return Served(
        schema_of(model_name, version, SIGNATURE),
        model=None,  # type: ignore[arg-type]
        run_seconds=lambda rows: 0.0,
        inline_seconds=1.0,
        queue_rows=10,
        queue_bytes=10,
    )


def loaded(numbers: Iterable[int]) -> dict[Key, Served]:
    return {("m", each): served(each) for each in numbers}


def a_plan(*quarantines: QuarantinePlan, pinned: Iterable[int] = (), **model: Any) -> ServingPlan:
    fields: dict[str, Any] = {"champion": 1, **model}
    return ServingPlan(
        models={"m": ModelPlan("m", 1, **fields)},
        quarantines=quarantines,
        pinned=tuple(("m", each) for each in pinned),
    )


def answer(table: Table, version: str = "", client_id: bytes | None = None) -> tuple[int, int]:
    who, arm = table.route("m", version, client_id)
    return who.schema.version, arm


@given(names, versions, shares)
@settings(max_examples=25, deadline=None)
def test_a_canary_gets_its_share_of_the_clients(name: str, version: int, share: float) -> None:
    split = Split.of(name, version, share)
    taken = sum(split.takes(each) for each in IDS)
    error = np.sqrt(share * (1 - share) / len(IDS))
    # Beyond five standard errors in one case of two million.
    assert abs(taken / len(IDS) - share) <= 5 * error + 1 / len(IDS)


@given(names, versions, shares, shares, st.binary(min_size=1, max_size=40))
def test_a_growing_share_keeps_who_was_in(
    name: str, version: int, one: float, other: float, client_id: bytes
) -> None:
    small, large = sorted((one, other))
    if Split.of(name, version, small).takes(client_id):
        assert Split.of(name, version, large).takes(client_id)


def test_another_canary_and_another_model_draw_other_clients() -> None:
    mine = [Split.of("m", 2, 0.5).takes(each) for each in IDS]
    for other in (Split.of("m", 3, 0.5), Split.of("n", 2, 0.5)):
        same = sum(a == b for a, b in zip(mine, map(other.takes, IDS), strict=True))
        assert abs(same / len(IDS) - 0.5) < 0.02


def test_a_client_stays_on_its_side_whatever_is_reloaded() -> None:
    sides = []
    for _ in range(2):
        table = Table()
        table.apply(a_plan(canary=CanaryPlan(2, 0.3)), loaded([1, 2]))
        sides.append([answer(table, "", each) for each in IDS[:1000]])
    assert sides[0] == sides[1]
    assert set(sides[0]) == {(1, ARM_CHAMPION), (2, ARM_CANARY)}


def test_without_an_id_each_request_is_drawn() -> None:
    draws = iter([0.29, 0.3, 0.0])
    table = Table(draw=lambda: next(draws))
    table.apply(a_plan(canary=CanaryPlan(2, 0.3)), loaded([1, 2]))
    assert [answer(table)[0] for _ in range(3)] == [2, 1, 2]


def test_a_random_canary_draws_for_the_same_client_anew() -> None:
    draws = iter([0.1, 0.9])
    table = Table(draw=lambda: next(draws))
    table.apply(a_plan(canary=CanaryPlan(2, 0.5, is_random=True)), loaded([1, 2]))
    assert [answer(table, "", b"same")[0] for _ in range(2)] == [2, 1]


@pytest.mark.parametrize("version", ["1", "2", "3", "4"])
def test_a_version_that_is_named_answers_as_pinned(version: str) -> None:
    table = Table()
    plan = a_plan(canary=CanaryPlan(2, 0.999), fallback=3, pinned=[4])
    table.apply(plan, loaded([1, 2, 3, 4]))
    assert answer(table, version, b"any") == (int(version), ARM_PINNED)


def test_a_version_that_is_not_loaded_may_be_fetched() -> None:
    table = Table()
    table.apply(a_plan(), loaded([1]))
    with pytest.raises(NotLoaded):
        answer(table, "7")


@pytest.mark.parametrize("name", ["nobody", "\x01" * 1_000_000])
def test_a_model_that_nobody_told_of_is_not_asked_for(name: str) -> None:
    table = Table()
    table.apply(a_plan(), loaded([1]))
    with pytest.raises(NotServed) as raised:
        table.route(name, "1")
    assert len(str(raised.value)) < 1000


def test_the_kill_switch_puts_the_fallback_in_the_place_of_champion_and_canary() -> None:
    table, models = Table(), loaded([1, 2, 3])
    switched: dict[str, Any] = {"canary": CanaryPlan(2, 0.5), "fallback": 3}
    table.apply(a_plan(**switched, is_on_fallback=True), models)
    assert {answer(table, "", each) for each in IDS[:100]} == {(3, ARM_FALLBACK)}
    assert answer(table, "1") == (1, ARM_PINNED)
    table.apply(a_plan(**switched), models)
    assert {answer(table, "", each)[1] for each in IDS[:100]} == {ARM_CHAMPION, ARM_CANARY}


def test_a_quarantined_champion_is_stood_in_for() -> None:
    table = Table()
    held = QuarantinePlan("m", 1, "5 crashes in 5 minutes")
    table.apply(a_plan(held, fallback=3), loaded([1, 3]))
    assert answer(table) == (3, ARM_FALLBACK)
    with pytest.raises(Quarantined, match="homeostat serving release m 1"):
        answer(table, "1")


def test_a_quarantined_champion_without_fallback_refuses_and_names_the_cure() -> None:
    table = Table()
    table.apply(a_plan(), loaded([1]))
    table.apply(a_plan(QuarantinePlan("m", 1, "crashes")), loaded([1]))
    for _ in range(2):
        with pytest.raises(Quarantined, match="homeostat serving release m 1"):
            answer(table)


def test_a_quarantined_row_holds_back_nothing_else() -> None:
    table = Table()
    held = QuarantinePlan("m", 1, "crashes", ("ab", "cd"))
    table.apply(a_plan(held), loaded([1]))
    assert answer(table) == (1, ARM_CHAMPION)
    assert table.guards["m", 1].input_fingerprints == {"ab", "cd"}


def test_a_quarantined_canary_leaves_everything_to_the_champion() -> None:
    table = Table()
    held = QuarantinePlan("m", 2, "crashes")
    table.apply(a_plan(held, canary=CanaryPlan(2, 0.9)), loaded([1, 2]))
    assert {answer(table, "", each) for each in IDS[:100]} == {(1, ARM_CHAMPION)}
    assert table.entries["m"].canary is None


def test_who_answered_goes_on_until_the_next_is_loaded_and_is_then_retired() -> None:
    table, models = Table(), loaded([1, 2])
    table.apply(a_plan(), {("m", 1): models["m", 1]})
    assert table.apply(a_plan(champion=2), {("m", 1): models["m", 1]}) == ()
    assert answer(table) == (1, ARM_CHAMPION)
    assert table.apply(a_plan(champion=2), models) == (models["m", 1],)
    assert answer(table) == (2, ARM_CHAMPION)
    assert models["m", 1].runner_for(lambda some: None, 1) is None


def test_a_champion_that_cannot_be_loaded_is_stood_in_for() -> None:
    table, models = Table(), loaded([1, 3])
    table.apply(a_plan(), models)
    table.apply(a_plan(champion=2, fallback=3), models, {("m", 2): "damaged"})
    assert answer(table) == (3, ARM_FALLBACK)


def test_without_a_fallback_the_one_before_stands_in_for_what_cannot_be_loaded() -> None:
    table, models = Table(), loaded([1])
    table.apply(a_plan(), models)
    table.apply(a_plan(champion=2), models, {("m", 2): "damaged"})
    assert answer(table) == (1, ARM_CHAMPION)


def test_what_never_served_and_cannot_be_loaded_says_why() -> None:
    table = Table()
    table.apply(a_plan(champion=2), {}, {("m", 2): "damaged file"})
    with pytest.raises(NotServed, match="damaged file"):
        answer(table)


def test_a_champion_that_was_switched_off_does_not_come_back_for_want_of_a_fallback() -> None:
    table, models = Table(), loaded([1])
    table.apply(a_plan(), models)
    off = a_plan(fallback=3, is_on_fallback=True)
    table.apply(off, models)
    assert answer(table) == (1, ARM_CHAMPION)
    table.apply(off, models, {("m", 3): "damaged"})
    with pytest.raises(NotServed, match="damaged"):
        answer(table)


def test_a_switch_to_a_fallback_that_is_still_fetched_switches_nothing_yet() -> None:
    table, models = Table(), loaded([1, 3])
    table.apply(a_plan(is_on_fallback=True), models)
    assert answer(table) == (1, ARM_CHAMPION)
    table.apply(a_plan(is_on_fallback=True, fallback=3), models)
    assert answer(table) == (3, ARM_FALLBACK)


def test_several_models_keep_apart() -> None:
    table = Table()
    both = ServingPlan(
        models={"m": ModelPlan("m", 1, champion=1), "n": ModelPlan("n", 1, champion=2)}
    )
    table.apply(both, {("m", 1): served(1), ("n", 2): served(2, "n")})
    assert answer(table) == (1, ARM_CHAMPION)
    assert table.route("n", "")[0].schema.version == 2
    table.apply(a_plan(), {("m", 1): table.entries["m"].served})
    with pytest.raises(NotServed, match="unknown model 'n': expected one of m"):
        table.route("n", "")


def test_a_suspect_is_run_with_care() -> None:
    table = Table()
    table.apply(ServingPlan(models=a_plan().models, suspects=(("m", 1),)), loaded([1]))
    assert table.guards["m", 1].is_suspect
    table.apply(a_plan(), {("m", 1): table.entries["m"].served})
    assert table.guards == {}


@pytest.mark.parametrize("is_raw", [True, False])
def test_the_first_rows_id_is_the_requests(is_raw: bool) -> None:
    rows = {"x": np.zeros(2, np.float32)}
    request = infer_request("m", rows, client_ids=["grün", "b"])
    if not is_raw:
        at = [each.name for each in request.inputs].index("homeostat.id")
        request.inputs[at].contents.bytes_contents.extend(["grün".encode(), b"b"])
        del request.raw_input_contents[:]
    assert first_client_id(request, served(1).schema) == "grün".encode()


def test_the_requests_own_id_counts_where_the_signature_says_so() -> None:
    request = infer_request("m", {"x": np.zeros(1, np.float32)})
    request.id = "order 7"
    assert first_client_id(request, served(1).schema) is None
    signature = Signature()
    signature.CopyFrom(SIGNATURE)
    signature.request_id_is_client_id = True
    assert first_client_id(request, schema_of("m", 1, signature)) == b"order 7"


@given(st.binary(max_size=8), st.booleans())
def test_a_torn_id_is_no_error_here(raw: bytes, is_missing: bool) -> None:
    request = infer_request("m", {"x": np.zeros(1, np.float32)}, client_ids=["a"])
    at = [each.name for each in request.inputs].index("homeostat.id")
    if is_missing:
        del request.raw_input_contents[at:]
    else:
        request.raw_input_contents[at] = raw
    found = first_client_id(request, served(1).schema)
    assert found is None or found in raw


def test_what_is_in_hand_can_be_counted_while_versions_come_and_go() -> None:
    table = Table()
    every = [served(number) for number in range(1, 3000)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    coming = threading.Thread(target=lambda: [table.swap(each) for each in every])
    try:
        coming.start()
        while coming.is_alive():
            assert table.rows_in_hand == 0
            assert table.oldest_arrival_us is None
    finally:
        sys.setswitchinterval(before)
        coming.join()
