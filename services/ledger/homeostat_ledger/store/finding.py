"""Single predictions and counts, for whoever asks."""

from typing import Any

import numpy as np

from homeostat_kit.postgres import Pool
from homeostat_ledger.app.look_up import Found, Told
from homeostat_ledger.app.ports import PartPlace
from homeostat_ledger.domain.blocks import key_halves
from homeostat_ledger.domain.counts import Counts
from homeostat_ledger.domain.truths import in_order
from homeostat_ledger.store.away import fetch, fetchrow
from homeostat_ledger.store.copying import signed
from homeostat_ledger.store.memory import SQL
from homeostat_ledger.store.records import stored_block, truths


class PostgresFinder:
    """Reads only."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def by_prediction(self, block_id: bytes, row: int) -> list[Found]:
        """One or none."""
        block = await fetchrow(self._pool, SQL["look_up_block"], block_id)
        if block is None or row >= block["row_count"]:
            return []
        return [await self._found(block, row)]

    async def by_client(self, model_name: str, key: bytes) -> list[Found]:
        """Oldest first, at most 1000."""
        halves = signed(key_halves(key)[0])
        places = await fetch(self._pool, SQL["look_up_client"], model_name, *halves)
        numbers = list({place["block_number"] for place in places})
        rows = await fetch(self._pool, SQL["look_up_numbers"], numbers)
        blocks = {row["block_number"]: row for row in rows}
        # Block ids begin with the time of their making.
        places.sort(key=lambda each: (blocks[each["block_number"]]["block_id"], each["row_index"]))
        return [
            await self._found(blocks[place["block_number"]], place["row_index"]) for place in places
        ]

    async def place(self, part_id: int) -> PartPlace:
        """Where the part lies now."""
        row: Any = await fetchrow(self._pool, SQL["place_of_part"], part_id)
        return PartPlace(row["file_name"], row["first_row"])

    async def _found(self, row: Any, row_index: int) -> Found:
        rows = await fetch(self._pool, SQL["truths_of_prediction"], row["block_number"], row_index)
        order: list[int] = in_order(truths(rows)).tolist()
        told = [
            Told(
                rows[at]["truth"],
                rows[at]["known_at_us"],
                rows[at]["revision"],
                rows[at]["source_name"],
            )
            for at in order
        ]
        return Found(row["model_name"], stored_block(row), row_index, told)

    async def counts(self, model_name: str) -> Counts:
        """Totals; zeros for a model that nothing was heard of."""
        row = await fetchrow(self._pool, SQL["read_model"], model_name)
        if row is None:
            return Counts()
        values = {name: row[name] for name in Counts.__slots__}
        values["joined_checksum"] = int(np.int64(values["joined_checksum"]).view(np.uint64))
        return Counts(**values)

    async def are_archived(self, block_ids: list[bytes]) -> list[bool]:
        """Of predictions and of outcomes, in the order of the question."""
        rows = await fetch(self._pool, SQL["archived_blocks"], block_ids)
        known = {row["block_id"] for row in rows}
        return [block_id in known for block_id in block_ids]

    async def are_set_aside(self, block_ids: list[bytes]) -> list[bool]:
        """Seen, and unreadable; in the order of the question."""
        rows = await fetch(self._pool, SQL["set_aside_blocks"], block_ids)
        known = {row["block_id"] for row in rows}
        return [block_id in known for block_id in block_ids]
