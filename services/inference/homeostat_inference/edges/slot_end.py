"""What a dead process of a slot left: how it ended, and what may have ended it."""

import signal
import time
from collections.abc import Collection
from dataclasses import dataclass

from homeostat_inference.app.supervising import DeadRun, end_reason
from homeostat_inference.edges.board import Board
from homeostat_inference.edges.slot_watch import Blame

# A run that had only just begun is not what filled the memory.
_BLAMED_NS = 50_000_000


@dataclass(frozen=True, slots=True)
class End:
    """How a process ended."""

    reason: str
    is_crash: bool
    # What ran and may have ended it.
    blamed: list[DeadRun]


def end_of(
    board: Board, status: int, *, was_leaving: bool, killed_for: str, blames: Collection[Blame]
) -> End:
    """``killed_for``: why the keeper killed it, if it did. The board is as the dead one left it."""
    if was_leaving and status == 0:
        return End(killed_for or end_reason(status, [], killed_for), is_crash=False, blamed=[])
    runs = [
        DeadRun(each.model_name, each.version, each.rows, tuple(board.fingerprints(each)))
        for each in board.running()
        if Blame.THE_WEIGHT not in blames or time.monotonic_ns() - each.started_ns > _BLAMED_NS
    ]
    # Whoever kills it from outside (an operator, a system short of memory) or because it starts or
    # leaves too slowly, says nothing of what ran.
    is_of_itself = status & 0x7F not in (signal.SIGKILL, signal.SIGTERM)
    is_blamed = bool(blames) if killed_for else is_of_itself
    reason = end_reason(status, runs, killed_for)
    return End(reason, is_crash=True, blamed=runs if is_blamed else [])
