"""Giving up truth that no prediction came for."""

from collections.abc import Awaitable, Callable, Sequence

from homeostat_ledger.app.ports import Expired, Index, Memory
from homeostat_ledger.domain.counts import Counts

Tell = Callable[[Sequence[Expired]], Awaitable[None]]


async def expire(before_us: int, *, index: Index, tell: Tell) -> int:
    """Dead-letters parked truths known before ``before_us`` (microseconds UTC); how many.

    They are told of before the commit: a crash in between tells of them again under the same id.
    """

    async def work(memory: Memory) -> int:
        expired = await memory.expire(before_us)
        if expired:
            await tell(expired)
        for each in expired:
            count = len(each.rows)
            change = Counts(outcomes_parked=-count, outcomes_dead_lettered=count)
            await memory.count(each.model_name, change)
        return sum(len(each.rows) for each in expired)

    return await index.change(work)
