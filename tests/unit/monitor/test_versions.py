"""What the registry knows: asked once, kept within bounds, and not asked for every record."""

import asyncio
import os
from pathlib import Path
from typing import Any

import grpc
import pytest

from homeostat_monitor import versions
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.policies.policy import Policy
from homeostat_monitor.versions import Versions, Watched

SUBJECT = Subject("delays", 1)


class UnknowingRegistry:
    """Knows no version, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def GetVersion(self, request: Any, timeout: float) -> Any:  # noqa: N802
        self.asked += 1
        await asyncio.sleep(0)
        metadata = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, metadata, metadata)


def versions_of(registry: Any, folder: Path) -> Versions:
    return Versions(None, registry, folder)  # type: ignore[arg-type]


async def test_an_unknown_version_is_not_asked_for_with_every_record(tmp_path: Path) -> None:
    registry = UnknowingRegistry()
    known = versions_of(registry, tmp_path)
    for _ in range(50):
        assert (await known.get(SUBJECT)).schema is None
    await asyncio.gather(*(known.get(SUBJECT) for _ in range(50)))
    assert registry.asked == 1


async def test_an_announced_version_is_asked_for_at_once(tmp_path: Path) -> None:
    registry = UnknowingRegistry()
    known = versions_of(registry, tmp_path)
    await known.get(SUBJECT)
    known.announced(SUBJECT)
    await known.get(SUBJECT)
    assert registry.asked == 2


async def test_no_is_not_believed_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_UNKNOWN_SECONDS", 0.0)
    registry = UnknowingRegistry()
    known = versions_of(registry, tmp_path)
    await known.get(SUBJECT)
    await known.get(SUBJECT)
    assert registry.asked == 2


async def test_subjects_that_nobody_knows_take_no_room_for_ever(tmp_path: Path) -> None:
    known = versions_of(UnknowingRegistry(), tmp_path)
    for number in range(3000):
        await known.get(Subject("nonsense", number))
    assert len(known._turns) == 0
    assert len(known._unknown) <= 1024


async def test_loading_twice_at_once_asks_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = versions_of(UnknowingRegistry(), tmp_path)
    loaded: list[Subject] = []

    async def load(subject: Subject, policy: Policy) -> Watched:
        loaded.append(subject)
        await asyncio.sleep(0)
        return Watched(None, object())  # type: ignore[arg-type]

    monkeypatch.setattr(known, "_load", load)
    await asyncio.gather(*(known.get(SUBJECT) for _ in range(5)))
    assert loaded == [SUBJECT]


async def test_versions_used_last_stay_and_old_ones_of_a_model_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = versions_of(UnknowingRegistry(), tmp_path)
    loaded: list[Subject] = []

    async def load(subject: Subject, policy: Policy) -> Watched:
        loaded.append(subject)
        return Watched(None, object())  # type: ignore[arg-type]

    monkeypatch.setattr(known, "_load", load)
    for number in range(40):
        await known.get(Subject("other", number % 4))
        await known.get(Subject("delays", number))
    assert len(loaded) == 44
    assert len(known._cache) == 4 + 8
    await known.get(Subject("delays", 39))
    assert len(loaded) == 44
    await known.get(Subject("delays", 0))
    assert len(loaded) == 45


def test_the_folder_of_profiles_keeps_those_used_last(tmp_path: Path) -> None:
    for number in range(70):
        path = tmp_path / f"{number:064d}"
        versions._write(path, b"x")
        os.utime(path, (number, number))
    versions._write(tmp_path / "newest", b"x")
    names = sorted(each.name for each in tmp_path.iterdir())
    assert len(names) == 64
    assert "newest" in names
    assert f"{69:064d}" in names
    assert f"{0:064d}" not in names
