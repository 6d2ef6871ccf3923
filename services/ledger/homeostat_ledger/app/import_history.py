"""Taking in rows from before: their truth comes with them, and nobody is told of it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from homeostat.ids import event_id
from homeostat_ledger.app.ports import Archive, Index, Memory, Written
from homeostat_ledger.app.take_in import write_files
from homeostat_ledger.domain.blocks import Block
from homeostat_ledger.domain.counts import Counts
from homeostat_ledger.domain.errors import BadRequest


@dataclass(frozen=True, slots=True)
class History:
    """What the first message says."""

    model_name: str
    history_id: str
    row_count: int
    task: int


@dataclass(frozen=True, slots=True)
class Imported:
    """How many rows are there because of this call."""

    rows: int
    is_repeat: bool


def history_block_id(history: History, number: int) -> bytes:
    """The same rows have the same id."""
    return bytes.fromhex(event_id("history", history.model_name, history.history_id, number))


async def import_history(
    history: History, blocks: AsyncIterator[Block], *, index: Index, archive: Archive
) -> Imported:
    """All rows in one transaction. BadRequest if there are not as many as were announced."""
    if await index.has_history(history.model_name, history.history_id):
        return Imported(0, is_repeat=True)
    written = await _write(history, blocks, archive)

    async def work(memory: Memory) -> Imported:
        if not await memory.add_history(history.model_name, history.history_id, history.row_count):
            return Imported(0, is_repeat=True)
        await memory.add_blocks(written, await memory.number(written))
        await memory.count(history.model_name, Counts(history_rows=history.row_count))
        return Imported(history.row_count, is_repeat=False)

    return await index.change(work)


async def _write(history: History, blocks: AsyncIterator[Block], archive: Archive) -> list[Written]:
    """The files of all rows; none of them is left if the rows end early."""
    written: list[Written] = []
    try:
        async for block in blocks:
            written += await asyncio.to_thread(write_files, [block], archive)
        rows = sum(file.file.row_count for file in written)
        if rows != history.row_count:
            raise BadRequest(
                f"the history of {history.model_name} was announced with {history.row_count} rows "
                f"and came with {rows}; send it again as a whole"
            )
    except BaseException:
        archive.forget([file.file.name for file in written])
        raise
    return written
