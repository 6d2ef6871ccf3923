"""Consumer offsets in the service's own database, moved in the transaction of the effect."""

from homeostat_kit.kafka.consumer import OffsetReader
from homeostat_kit.kafka.records import Batch, Place
from homeostat_kit.postgres import Connection, Pool, queries

_SQL = queries("homeostat_kit")


class OffsetConflict(Exception):
    """Somebody else moved an offset, or this batch was applied before: keep nothing of it."""


async def read_offsets(pool: Pool, epoch: str) -> dict[Place, int]:
    """Next offsets to apply in that epoch, by (topic, partition)."""
    rows = await pool.fetch(_SQL["read_offsets"], epoch)
    return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}


def stored_offsets(pool: Pool) -> OffsetReader:
    """What ``consume`` takes as its ``offsets``."""

    async def read(epoch: str) -> dict[Place, int]:
        return await read_offsets(pool, epoch)

    return read


async def advance_offsets(connection: Connection, batch: Batch) -> None:
    """Moves the offsets over ``batch`` by compare-and-set, in the caller's transaction.

    OffsetConflict, which must leave that transaction, if one of them was not where it should be.
    """
    places = sorted(batch.next_offsets)
    if not places:
        return
    moved = await connection.fetchval(
        _SQL["advance_offsets"],
        batch.epoch,
        [topic for topic, _ in places],
        [partition for _, partition in places],
        [batch.from_offsets[place] for place in places],
        [batch.next_offsets[place] for place in places],
    )
    if moved != len(places):
        raise OffsetConflict(
            f"{len(places) - moved} of {len(places)} offsets were not where this batch began"
        )
