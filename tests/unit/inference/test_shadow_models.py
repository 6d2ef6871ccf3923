"""Versions that run beside champions, and harm nobody when they are loaded."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.support.inference import MODEL, a_signature

from homeostat.registry.v1.registry_pb2 import Version
from homeostat_inference.app.plan import ModelPlan, ServingPlan
from homeostat_inference.domain.schema import schema_of
from homeostat_inference.edges import shadow_models as module
from homeostat_inference.edges.board import Board
from homeostat_inference.edges.board_runs import BoardRuns
from homeostat_inference.edges.control import Loaded, Message
from homeostat_inference.edges.shadow_models import STUCK_NS, ShadowModels
from homeostat_inference.edges.versions import VersionCache
from homeostat_kit.clock import SystemClock


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create("shadow")
    yield made
    made.close()


def models(board: Board, folder: Path, said: list[Message]) -> ShadowModels:
    cache = SimpleNamespace(
        find=lambda name, version: (
            Version(model_name=name, version=version, signature=a_signature()),
            b"",
        )
    )
    runs = BoardRuns(board, SimpleNamespace, limit_ns=STUCK_NS)
    return ShadowModels(cast(VersionCache, cache), board, runs, SystemClock(), 1.0, said.append)


def test_while_a_version_is_loaded_the_keeper_can_see_it_and_how_long_it_may_take(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    said: list[Message] = []
    monkeypatch.setattr(module, "OnnxModel", lambda *given: seen.extend(board.running()))
    loading = models(board, tmp_path, said)
    loading.take(ServingPlan(1, {MODEL: ModelPlan(MODEL, 1, champion=1, shadows=(2,))}))
    (run,) = seen
    assert (run.model_name, run.version, run.rows) == (MODEL, 2, 0)
    assert run.deadline_ns - run.started_ns == STUCK_NS
    assert not board.running() and isinstance(said[0], Loaded)


def test_a_run_that_never_ends_ends_the_process_in_a_way_that_tells_it_from_a_kill(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    made = models(board, tmp_path, [])
    run = made.runs.enter(schema_of(MODEL, 2, a_signature()), 10**18, (), 10**6)
    made._running = (run, -10_000_000_000)
    made.end_overdue()
    assert sent == [signal.SIGXCPU]
