"""Asking the ledger what the journal may forget."""

from collections.abc import Awaitable, Callable, Sequence

import grpc

from homeostat.ledger.v1.ledger_pb2 import AreArchivedRequest
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub

_QUESTION_BLOCKS = 1000


def archived_by(ledger: grpc.aio.Channel | None) -> Callable[[Sequence[bytes]], Awaitable[bool]]:
    """Whether the ledger has all of some blocks; without a ledger, yes; while it is away, no."""

    async def are_archived(block_ids: Sequence[bytes]) -> bool:
        if ledger is None:
            return True
        stub = LedgerServiceStub(ledger)
        for first in range(0, len(block_ids), _QUESTION_BLOCKS):
            some = block_ids[first : first + _QUESTION_BLOCKS]
            try:
                answer = await stub.AreArchived(AreArchivedRequest(block_ids=some), timeout=5.0)
            except grpc.aio.AioRpcError:
                return False
            if len(answer.are_archived) != len(some) or not all(answer.are_archived):
                return False
        return True

    return are_archived
