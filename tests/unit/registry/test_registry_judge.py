"""Trials wait for each other, and nothing else waits for them."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.registry.builders import a_signature

from homeostat_registry.artifacts import DiskShelf
from homeostat_registry.domain.errors import JudgeAway
from homeostat_registry.domain.facts import Artifact
from homeostat_registry.judge import JailedJudge, JudgeLimits

SHA256 = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"  # of one zero byte


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[JailedJudge]:
    made = JailedJudge(tmp_path / "judge", JudgeLimits(1 << 30, 5, 5.0))
    yield made
    made.close()


async def test_trials_that_last_do_not_hold_up_downloads(
    judge: JailedJudge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    shelf = DiskShelf(tmp_path / "artifacts")
    async with shelf.intake(Artifact(SHA256, 1)) as intake:
        await intake.write(b"\0")
        await intake.seal()
        await intake.keep()
    may_end = threading.Event()
    under_way: list[Path] = []
    most: list[int] = []

    def trial(path: Path, _: object) -> str:
        under_way.append(path)
        most.append(len(under_way))
        may_end.wait(30)
        under_way.remove(path)
        return "{}"

    monkeypatch.setattr(judge, "_judge_once", trial)
    trials = [
        asyncio.create_task(judge.judge(tmp_path / str(index), a_signature())) for index in range(8)
    ]
    try:
        async with asyncio.timeout(60):
            assert [chunk async for chunk in shelf.read(SHA256)] == [b"\0"]
        assert not any(each.done() for each in trials)
    finally:
        may_end.set()
    assert await asyncio.gather(*trials) == ["{}"] * 8
    assert set(most) == {1}


async def test_a_judge_that_is_closed_does_not_start_again(
    judge: JailedJudge, tmp_path: Path
) -> None:
    judge.prepare()
    (tmp_path / "model").write_bytes(b"no model")
    trial = asyncio.create_task(judge.judge(tmp_path / "model", a_signature()))
    await asyncio.sleep(0)
    await asyncio.to_thread(judge.close)
    with pytest.raises((JudgeAway, asyncio.CancelledError)):
        await trial
