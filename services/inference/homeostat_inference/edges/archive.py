"""Asking the ledger what the journal may forget."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc

from homeostat.ledger.v1.ledger_pb2 import AreArchivedRequest
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub

_QUESTION_BLOCKS = 1000


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of some blocks."""

    # Archived, or set aside for good: sending any of them again is no use.
    is_settled: bool
    # Seen by the ledger, unreadable for it, never to be archived: lost.
    set_aside: tuple[bytes, ...] = ()


AskFate = Callable[[Sequence[bytes]], Awaitable[Fate]]


def fate_by(ledger: grpc.aio.Channel | None) -> AskFate:
    """What the ledger has of some blocks; without a ledger all of it; while it is away nothing."""

    async def ask(block_ids: Sequence[bytes]) -> Fate:
        if ledger is None:
            return Fate(is_settled=True)
        stub = LedgerServiceStub(ledger)
        lost: list[bytes] = []
        for first in range(0, len(block_ids), _QUESTION_BLOCKS):
            some = block_ids[first : first + _QUESTION_BLOCKS]
            try:
                answer = await stub.AreArchived(AreArchivedRequest(block_ids=some), timeout=5.0)
            except grpc.aio.AioRpcError:
                return Fate(is_settled=False)
            # A ledger of an older make says nothing of what it set aside.
            aside = list(answer.are_set_aside) or [False] * len(some)
            if not len(answer.are_archived) == len(aside) == len(some):
                return Fate(is_settled=False)
            lost += [each for each, is_lost in zip(some, aside, strict=True) if is_lost]
            if not all(map(max, answer.are_archived, aside)):
                return Fate(is_settled=False)
        return Fate(True, tuple(lost))

    return ask
