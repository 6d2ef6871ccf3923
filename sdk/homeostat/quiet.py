"""Waiting for the whole loop: ask every service how far it is until a pass changes nothing."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from homeostat.channels import open_channel
from homeostat.progress.v1.progress_pb2 import (
    GetProgressRequest,
    GetProgressResponse,
    PartitionPosition,
)
from homeostat.progress.v1.progress_pb2_grpc import ProgressServiceStub
from homeostat.topics import TOPICS

if TYPE_CHECKING:  # exists in the stubs only
    from homeostat.progress.v1.progress_pb2_grpc import ProgressServiceAsyncStub

# Inference stands twice: what the loop did since may have come back to it.
ROUND = ("inference", "ledger", "monitor", "retrainer", "registry", "inference")


class NotQuiet(TimeoutError):
    """The loop did not come to rest in time; the message says who still had what to do."""


@dataclass(frozen=True, slots=True)
class Lag:
    """What is still under way."""

    # Records produced and not yet applied, summed over topics and readers.
    records: int
    unsent: int
    open_work: int
    detail: str

    @property
    def is_quiet(self) -> bool:
        return self.records == self.unsent == self.open_work == 0


def lag(answers: Mapping[str, GetProgressResponse]) -> Lag:
    """How far readers are behind writers, from one answer per service.

    Never computed from the broker's end offsets: only writers know what they have written.
    """
    behind = _records_behind(answers)
    unsent = {name: answer.unsent_count for name, answer in answers.items() if answer.unsent_count}
    work = {
        name: answer.open_work_count for name, answer in answers.items() if answer.open_work_count
    }
    detail = ", ".join(
        [f"{reader} is {count} behind on {topic}" for (reader, topic), count in behind.items()]
        + [f"{name} has {count} unsent" for name, count in unsent.items()]
        + [f"{name} has {count} in work" for name, count in work.items()]
    )
    return Lag(sum(behind.values()), sum(unsent.values()), sum(work.values()), detail)


def _records_behind(answers: Mapping[str, GetProgressResponse]) -> dict[tuple[str, str], int]:
    positions = {
        name: (_positions(answer.produced), _positions(answer.applied), answer.epoch)
        for name, answer in answers.items()
    }
    behind: dict[tuple[str, str], int] = {}
    for topic in TOPICS:
        for writer in topic.writers:
            if writer not in positions:
                continue
            produced, _, epoch = positions[writer]
            for reader in topic.readers:
                if reader not in positions:
                    continue
                _, applied, reader_epoch = positions[reader]
                for (name, partition), end in produced.items():
                    if name != topic.name:
                        continue
                    at = applied.get((name, partition), 0) if epoch == reader_epoch else 0
                    if at < end:
                        key = (reader, name)
                        behind[key] = behind.get(key, 0) + end - at
    return behind


def _positions(of: Iterable[PartitionPosition]) -> dict[tuple[str, int], int]:
    return {(each.topic, each.partition): each.next_offset for each in of}


class Loop:
    """The running services, as far as waiting for them goes. Use as an async context manager."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        """``addresses``: service name to "host:port"; services that are absent are not asked."""
        self._addresses = {
            name: addresses[name] for name in dict.fromkeys(ROUND) if name in addresses
        }
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._stubs: dict[str, ProgressServiceAsyncStub] = {}

    async def __aenter__(self) -> "Loop":
        for name, address in self._addresses.items():
            self._channels[name] = open_channel(address)
            self._stubs[name] = ProgressServiceStub(self._channels[name])
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))

    async def ask(self, name: str) -> GetProgressResponse:
        """One service's answer; grpc.aio.AioRpcError if it does not give one within 5 s."""
        return await self._stubs[name].GetProgress(GetProgressRequest(), timeout=5.0)

    async def pass_round(self) -> tuple[Lag, dict[str, GetProgressResponse]]:
        """Asks in the order in which work flows; the second answer of inference counts."""
        answers: dict[str, GetProgressResponse] = {}
        for name in ROUND:
            if name in self._stubs:
                answers[name] = await self.ask(name)
        return lag(answers), answers

    async def wait_until_quiet(
        self, *, timeout_seconds: float = 120.0, watermark_us: int | None = None
    ) -> None:
        """Returns once two passes in a row saw no lag and the same positions, and everything before
        ``watermark_us`` has been taken in; NotQuiet after ``timeout_seconds``.

        A service that does not answer is asked again until then: it may be restarting.
        """
        deadline = time.monotonic() + timeout_seconds
        before: dict[str, bytes] | None = None
        detail = "no pass was completed"
        pause = 0.002
        while time.monotonic() < deadline:
            try:
                now, answers = await self.pass_round()
                detail = now.detail or _short_of(answers, watermark_us)
                if not detail:
                    seen = {
                        name: answer.SerializeToString(deterministic=True)
                        for name, answer in answers.items()
                    }
                    if seen == before:
                        return
                    before = seen
                    continue
            except grpc.aio.AioRpcError as error:
                detail = f"a service does not answer: {error.details()}"
            before = None
            await asyncio.sleep(pause)
            pause = min(0.05, pause * 1.5)
        raise NotQuiet(f"the loop was not quiet after {timeout_seconds:.0f} s: {detail}")


def _short_of(answers: Mapping[str, GetProgressResponse], watermark_us: int | None) -> str:
    if watermark_us is None:
        return ""
    return ", ".join(
        f"{name} has not reached the watermark"
        for name in ("ledger", "monitor", "retrainer")
        if name in answers
        and (
            not answers[name].HasField("watermark_us") or answers[name].watermark_us < watermark_us
        )
    )
