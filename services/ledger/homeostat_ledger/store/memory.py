"""The index within one transaction."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from homeostat_kit.kafka import Batch
from homeostat_kit.offsets import advance_offsets
from homeostat_kit.outbox import Event, put_many
from homeostat_kit.postgres import Connection, queries
from homeostat_ledger.app.ports import Expired, Marks, Numbers, Written
from homeostat_ledger.domain.blocks import (
    OUTCOME,
    Keys,
    Outcomes,
    StoredBlock,
    key_halves,
)
from homeostat_ledger.domain.counts import Counts
from homeostat_ledger.domain.errors import Superseded
from homeostat_ledger.domain.joins import Joined, Touched
from homeostat_ledger.domain.truths import TRUTH, Truths
from homeostat_ledger.store.copying import copy_in, signed, unsigned
from homeostat_ledger.store.events import joined_event, mark_events
from homeostat_ledger.store.records import (
    block_record,
    numbered,
    stored_block,
    truths,
)

SQL = queries("homeostat_ledger")
_EXPIRE_AT_ONCE = 10_000
_NO_NUMBERS = np.zeros(0, dtype=np.int64)
_COUNTED = (
    "predictions",
    "blocks",
    "history_rows",
    "outcomes_received",
    "predictions_joined",
    "outcomes_parked",
    "outcomes_dead_lettered",
    "outcomes_repeated",
    "corrections",
    "duplicate_blocks",
)


class PostgresMemory:
    """What one transaction may do. Takes the writer's lock before anything else."""

    def __init__(
        self,
        connection: Connection,
        token: int,
        recent: Mapping[int, StoredBlock],
        sources: Mapping[str, int],
        now_us: int,
    ) -> None:
        self._connection = connection
        self._token = token
        self._recent = recent
        self._now_us = now_us
        # As they were when this transaction first needed them.
        self._models: dict[str, Any] = {}
        self._sources = sources
        self.new_sources: dict[str, int] = {}
        self._events: list[Event] = []
        # For the memory of recent blocks, once this is committed.
        self.touched: dict[int, StoredBlock] = {}
        self.forwarded_us: int | None = None

    async def hold(self, blocks: int = 0, parts: int = 0) -> tuple[int, int]:
        """The writer's lock, and the first of so many block numbers and part ids."""
        row = await self._connection.fetchrow(SQL["hold_writer"], self._token, blocks, parts)
        if row is None:
            raise Superseded("a newer ledger process writes this database; this one leaves")
        return row["block_number"], row["part_id"]

    async def close(self) -> None:
        """What must come last: events lock out everybody else who has some."""
        await put_many(self._connection, self._events)

    async def advance(self, position: Batch) -> None:
        await self.hold()
        await advance_offsets(self._connection, position)

    async def number(self, written: Sequence[Written]) -> list[StoredBlock]:
        blocks = sum(len(file.blocks) for file in written)
        if not blocks:
            return []
        number, part_id = await self.hold(blocks, len(written))
        stored: list[StoredBlock] = []
        for file in written:
            first_row = 0
            for block in file.blocks:
                stored.append(numbered(block, number, part_id, first_row))
                number += 1
                first_row += block.row_count
            part_id += 1
        return stored

    async def add_blocks(self, written: Sequence[Written], stored: Sequence[StoredBlock]) -> None:
        start = 0
        for file in written:
            own = stored[start : start + len(file.blocks)]
            start += len(file.blocks)
            model_id = await self._model(file.model_name)
            await self._connection.execute(
                SQL["add_part"],
                model_id,
                file.layout,
                file.file.name,
                file.file.row_count,
                file.file.byte_count,
                own[0].part_id,
            )
            records = [block_record(model_id, block) for block in own]
            await self._connection.execute(SQL["add_blocks"], *zip(*records, strict=True))
            await self._add_client_rows(model_id, own)
        self.touched.update({block.number: block for block in stored})

    async def _add_client_rows(self, model_id: int, blocks: Sequence[StoredBlock]) -> None:
        keys, number, row = _keyed(blocks)
        await copy_in(
            self._connection,
            "client_row",
            {
                "key_high": keys[:, 0],
                "key_low": keys[:, 1],
                "block_number": number,
                "row_index": row.astype(np.int32),
                "model_id": np.full(len(row), model_id, dtype=np.int32),
            },
        )

    async def waiting_for(
        self, model_name: str, blocks: Sequence[StoredBlock]
    ) -> tuple[Truths, int]:
        model_id = await self._model(model_name)
        model = self._models[model_name]
        found: list[Truths] = [np.zeros(0, dtype=TRUTH)]
        unparked: set[int] = set()
        keys, number, row = _keyed(blocks)
        origins = [block for block in blocks if block.origin_block_id]
        # Whatever has a truth has had it from an outcome; rows of shadows alone count nowhere else.
        if model["outcomes_received"] and len(keys):
            found.append(await self._of_siblings(model_id, keys, number, row))
        if model["outcomes_received"] and origins:
            found.append(await self._of_origins(model_id, origins))
        if model["outcomes_parked"]:
            rows = await self._fetch_keyed("parked_of_clients", model_id, keys) if len(keys) else []
            place = _ints(rows, "place")
            found.append(_owned(rows, number[place], row[place], by_client=True))
            unparked.update(each["parked_id"] for each in rows)
            rows = await self._parked_of_blocks(model_id, blocks)
            found.append(_of_places(rows, blocks))
            unparked.update(each["parked_id"] for each in rows)
            # They go on waiting for the rows that were answered.
            rows = await self._parked_of_blocks(model_id, origins, are_origins=True)
            found.append(_of_places(rows, origins))
            if unparked:
                await self._connection.execute(SQL["unpark"], sorted(unparked))
        return np.concatenate(found), len(unparked)

    async def _of_siblings(
        self, model_id: int, keys: Keys, number: Numbers, row: Numbers
    ) -> Truths:
        rows = await self._fetch_keyed("truths_of_siblings", model_id, keys)
        place = _ints(rows, "place")
        return _owned(rows, number[place], row[place], by_client=True)

    async def _of_origins(self, model_id: int, shadows: Sequence[StoredBlock]) -> Truths:
        rows = await self._connection.fetch(
            SQL["truths_of_origins"],
            model_id,
            [block.origin_block_id for block in shadows],
            [block.row_count for block in shadows],
        )
        return _of_places(rows, shadows)

    async def _parked_of_blocks(
        self, model_id: int, blocks: Sequence[StoredBlock], *, are_origins: bool = False
    ) -> list[Any]:
        if not blocks:
            return []
        ids = key_halves(
            b"".join(block.origin_block_id if are_origins else block.block_id for block in blocks)
        )
        return await self._connection.fetch(
            SQL["parked_of_blocks"],
            model_id,
            signed(ids[:, 0]),
            signed(ids[:, 1]),
            [block.row_count for block in blocks],
        )

    async def _fetch_keyed(self, query: str, model_id: int, keys: Keys) -> list[Any]:
        return await self._connection.fetch(
            SQL[query], model_id, signed(keys[:, 0]), signed(keys[:, 1])
        )

    async def unseen_outcomes(self, block_ids: Sequence[bytes]) -> set[bytes]:
        rows = await self._connection.fetch(SQL["add_outcome_block"], list(block_ids))
        return {row["block_id"] for row in rows}

    async def source_id(self, source: str) -> int:
        known = self._sources.get(source) or self.new_sources.get(source)
        if known is None:
            known = await self._connection.fetchval(SQL["read_source"], source)
            if known is None:
                known = await self._connection.fetchval(SQL["add_source"], source)
            self.new_sources[source] = known
        return int(known)

    async def rows_of_clients(self, model_name: str, keys: Keys) -> tuple[Numbers, ...]:
        if not len(keys):
            return _NO_NUMBERS, _NO_NUMBERS, _NO_NUMBERS
        rows = await self._fetch_keyed("rows_of_clients", await self._model(model_name), keys)
        return _ints(rows, "place"), _ints(rows, "block_number"), _ints(rows, "row_index")

    async def rows_of_blocks(
        self, model_name: str, block_ids: Sequence[bytes]
    ) -> Mapping[bytes, tuple[int, int]]:
        model_id = await self._model(model_name)
        rows = await self._connection.fetch(SQL["numbers_of_blocks"], model_id, list(block_ids))
        return {row["block_id"]: (row["block_number"], row["row_count"]) for row in rows}

    async def shadows_of_blocks(
        self, model_name: str, block_ids: Sequence[bytes]
    ) -> Sequence[tuple[bytes, int, int]]:
        rows = await self._connection.fetch(
            SQL["shadows_of_blocks"], await self._model(model_name), list(block_ids)
        )
        return [(row["origin_block_id"], row["block_number"], row["row_count"]) for row in rows]

    async def set_aside(self, block_ids: Sequence[bytes]) -> None:
        if block_ids:
            await self._connection.execute(SQL["set_aside"], list(block_ids))

    async def truths_of(self, blocks: Numbers, rows: Numbers) -> Truths:
        if not len(blocks):
            return np.zeros(0, dtype=TRUTH)
        pairs = np.unique(np.stack([blocks, rows], axis=1), axis=0)
        return truths(
            await self._connection.fetch(
                SQL["truths_of_rows"], pairs[:, 0].tolist(), pairs[:, 1].tolist()
            )
        )

    async def blocks(self, numbers: Sequence[int]) -> Mapping[int, StoredBlock]:
        found = {each: self._recent[each] for each in numbers if each in self._recent}
        missing = [each for each in numbers if each not in found]
        if missing:
            rows = await self._connection.fetch(SQL["stored_blocks"], missing)
            found.update({row["block_number"]: stored_block(row) for row in rows})
        self.touched.update(found)
        return found

    async def remember(
        self, model_name: str, told: Truths, blocks: Mapping[int, StoredBlock]
    ) -> None:
        if not len(told):
            return
        touched = Touched(blocks)
        of, count = touched.block_of(told), len(told)
        await copy_in(
            self._connection,
            "truth",
            {
                "block_number": told["block"],
                "known_at_us": told["known_at_us"],
                "event_time_us": touched.column("event_times_us")[touched.at(told)],
                "truth": told["truth"],
                "event_high": np.ascontiguousarray(told["event_high"]),
                "event_low": np.ascontiguousarray(told["event_low"]),
                "part_id": touched.of_block("part_id")[of],
                "part_row": (touched.of_block("part_row")[of] + told["row"]).astype(np.int32),
                "row_index": told["row"],
                "event_row": told["event_row"].astype(np.int64),
                "revision": told["revision"],
                "source_id": told["source_id"],
                "model_id": np.full(count, await self._model(model_name), dtype=np.int32),
                "arm": touched.of_block("arm")[of].astype(np.int16),
                "by_client": told["by_client"],
            },
        )

    async def park(self, model_name: str, outcomes: Outcomes) -> None:
        if not len(outcomes):
            return
        model_id = await self._model(model_name)
        columns = {
            name: np.ascontiguousarray(outcomes[name])
            for name in OUTCOME.names or ()
            if name != "row"
        }
        columns["event_row"] = columns["event_row"].astype(np.int64)
        columns["row_index"] = outcomes["row"].astype(np.int64)
        columns["model_id"] = np.full(len(outcomes), model_id, dtype=np.int32)
        await copy_in(self._connection, "parked", columns)

    async def publish(self, joined: Sequence[Joined], traceparent: str | None) -> None:
        self._events += [joined_event(each, self._now_us, traceparent) for each in joined]

    async def count(self, model_name: str, counts: Counts) -> None:
        change = counts.joined_checksum % 2**64
        await self._connection.execute(
            SQL["count"],
            await self._model(model_name),
            *(getattr(counts, name) for name in _COUNTED),
            change - 2**64 if change >= 2**63 else change,
        )

    async def mark(self, marks: Marks) -> None:
        row = await self._connection.fetchrow(SQL["read_watermark"])
        before = row["forwarded_us"] if row else None
        for now in marks.rises_us:
            if before is None or now > before:
                self._events += mark_events(now, self._now_us)
                before = now
        self.forwarded_us = before
        await self._connection.execute(SQL["write_watermark"], marks.epoch, marks.text, before)

    async def expire(self, before_us: int) -> Sequence[Expired]:
        await self.hold()
        rows = await self._connection.fetch(SQL["expire"], before_us, _EXPIRE_AT_ONCE)
        of_model: dict[str, list[Any]] = {}
        for row in rows:
            of_model.setdefault(row["model_name"], []).append(row)
        return [Expired(name, _outcomes(own)) for name, own in sorted(of_model.items())]

    async def add_history(self, model_name: str, history_id: str, rows: int) -> bool:
        await self.hold()
        model_id = await self._model(model_name)
        if await self._connection.fetchval(SQL["has_history"], model_id, history_id) is not None:
            return False
        await self._connection.execute(SQL["add_history"], model_id, history_id, rows)
        return True

    async def _model(self, model_name: str) -> int:
        if model_name not in self._models:
            row: Any = await self._connection.fetchrow(SQL["read_model"], model_name)
            if row is None:
                row = await self._connection.fetchrow(SQL["add_model"], model_name)
            self._models[model_name] = row
        return int(self._models[model_name]["model_id"])


def _keyed(blocks: Sequence[StoredBlock]) -> tuple[Keys, Numbers, Numbers]:
    """Keys of the rows that have one, with block and row."""
    of = [block for block in blocks if block.client_keys is not None]
    if not of:
        return np.zeros((0, 2), dtype=np.uint64), _NO_NUMBERS, _NO_NUMBERS
    keys = np.concatenate([block.client_keys for block in of if block.client_keys is not None])
    number = np.repeat([block.number for block in of], [block.row_count for block in of])
    row = np.concatenate([np.arange(block.row_count) for block in of])
    has = keys.any(axis=1)
    return keys[has], number[has], row[has]


def _ints(rows: Sequence[Any], name: str) -> Numbers:
    return np.array([row[name] for row in rows], dtype=np.int64)


def _of_places(rows: Sequence[Any], blocks: Sequence[StoredBlock]) -> Truths:
    """Truths told by ids; ``place`` is the block's in ``blocks``."""
    own = np.array([block.number for block in blocks], dtype=np.int64)[_ints(rows, "place")]
    return _owned(rows, own, _ints(rows, "row_index"), by_client=False)


def _owned(rows: Sequence[Any], block: Numbers, row: Numbers, *, by_client: bool) -> Truths:
    told = truths(rows)
    told["block"], told["row"], told["by_client"] = block, row, by_client
    return told


def _outcomes(rows: Sequence[Any]) -> Outcomes:
    found = np.zeros(len(rows), dtype=OUTCOME)
    found["row"] = [row["row_index"] for row in rows]
    for name in ("high", "low", "event_high", "event_low"):
        found[name] = unsigned([row[name] for row in rows])
    for name in ("known_at_us", "event_row", "source_id"):
        found[name] = [row[name] for row in rows]
    return found
