"""A push that failed halfway, or is repeated, has the effect of once."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import grpc
import pytest
from tests.support.world import MODEL_NAME, a_world, first_push

from homeostat.ledger.v1.ledger_pb2 import GetStatisticsRequest
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from homeostat.push import HistoryNotImported, Push, Pushed, RefusedPush, prepare, send
from homeostat.registry.v1.registry_pb2 import AUTONOMY_APPROVE
from homeostat_local.ports import choose_port
from homeostat_local.stack import Stack, running_stack

pytestmark = pytest.mark.timeout(120)

ROWS = 1_000


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("push")
    with running_stack(folder, services=("registry", "ledger")) as running:
        yield running


@pytest.fixture(scope="module")
def push(tmp_path_factory: pytest.TempPathFactory) -> Push:
    world = a_world(history_days=10, days=1, rows_per_day=ROWS // 10)
    return first_push(world, tmp_path_factory.mktemp("world"))


def sent(stack: Stack, push: Push, *, ledger: str | None = None) -> Pushed:
    return asyncio.run(
        send(
            prepare(push),
            registry_address=stack.addresses["registry"],
            ledger_address=ledger or stack.addresses["ledger"],
        )
    )


def history_rows(stack: Stack, model_name: str = MODEL_NAME) -> int:
    request = GetStatisticsRequest(model_name=model_name)

    async def ask() -> int:
        async with grpc.aio.insecure_channel(stack.addresses["ledger"]) as channel:
            try:
                answer = await LedgerServiceStub(channel).GetStatistics(request, timeout=10)
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.NOT_FOUND
                return 0
        return int(answer.history_rows)

    return asyncio.run(ask())


def test_a_push_cut_off_before_its_history_goes_on_when_repeated(stack: Stack, push: Push) -> None:
    with pytest.raises(HistoryNotImported, match=f"{MODEL_NAME} version 1 is registered"):
        sent(stack, push, ledger=f"127.0.0.1:{choose_port()}")

    again = sent(stack, push)
    assert again.version.version == 1
    assert again.history_rows == ROWS == history_rows(stack)
    assert any("is version 1 already" in note for note in again.notes)

    third = sent(stack, push)
    assert (third.version.version, third.history_rows) == (1, 0)
    assert any("nothing was imported twice" in note for note in third.notes)
    assert history_rows(stack) == ROWS


def test_the_same_file_with_other_words_is_refused_and_leaves_nothing(
    stack: Stack, push: Push
) -> None:
    sent(stack, push)
    before = history_rows(stack)
    with pytest.raises(RefusedPush, match="with other inputs, classes or threshold"):
        sent(stack, replace(push, decision_threshold=0.7))
    assert history_rows(stack) == before


def test_a_refused_model_leaves_no_history(stack: Stack, push: Push) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        sent(stack, replace(push, model_name="other", author="x" * 100_000))
    assert history_rows(stack, "other") == 0


def test_an_autonomy_that_the_model_does_not_have_is_said(stack: Stack, push: Push) -> None:
    assert not any("autonomy" in note for note in sent(stack, push).notes)
    told = sent(stack, replace(push, autonomy=AUTONOMY_APPROVE))
    assert any("exists with autonomy auto" in note for note in told.notes)
    assert any(f"homeostat autonomy {MODEL_NAME} approve" in note for note in told.notes)
