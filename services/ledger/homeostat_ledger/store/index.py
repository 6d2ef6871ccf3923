"""The index: transactions that change it and questions that don't."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from homeostat_kit.clock import Clock
from homeostat_kit.postgres import Connection, Pool
from homeostat_ledger.app.ports import (
    Answered,
    ArchiveFile,
    HistoryBlock,
    Memory,
    MergeCandidate,
    PartPlace,
    Question,
)
from homeostat_ledger.domain.blocks import StoredBlock
from homeostat_ledger.domain.errors import BadRequest, Superseded, UnknownModel
from homeostat_ledger.domain.truths import TRUTH, Held, Truths, held
from homeostat_ledger.store.away import fetch, fetchrow, reading
from homeostat_ledger.store.copying import copy_out
from homeostat_ledger.store.memory import SQL, PostgresMemory

T = TypeVar("T")
# Lists of keys against large tables: the planner does not know how short the lists are.
INDEX_SCANS = "SET LOCAL enable_seqscan = off; SET LOCAL jit = off"
_RECENT_BYTES = 64 * 1024 * 1024
# More don't fit into one data set in memory.
MAX_ROWS = 5_000_000
_SPARE_ROWS = 1000
_ANSWER = {
    "block_number": "i8",
    "row_index": "i4",
    "truth": "f8",
    "known_at_us": "i8",
    "event_high": "u8",
    "event_low": "u8",
    "event_row": "u4",
    "event_time_us": "i8",
    "part_id": "i8",
    "part_row": "i4",
}


class RecentBlocks(OrderedDict[int, StoredBlock]):
    """Blocks that were last used in committed transactions, up to a size."""

    def __init__(self, max_bytes: int = _RECENT_BYTES) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._bytes = 0

    def keep(self, blocks: Mapping[int, StoredBlock]) -> None:
        """Those are now the most recent."""
        for number, block in blocks.items():
            if number not in self:
                self._bytes += _size(block)
            self[number] = block
            self.move_to_end(number)
        while self._bytes > self._max_bytes:
            _, oldest = self.popitem(last=False)
            self._bytes -= _size(oldest)


def _size(block: StoredBlock) -> int:
    """About what a block takes in memory: its objects weigh more than a few rows."""
    return 2_000 + 64 * block.row_count


class PostgresIndex:
    """One process's view of the database. It alone may change it: see ``become_writer``."""

    def __init__(self, pool: Pool, token: int, clock: Clock, wake: Callable[[], None]) -> None:
        """``wake`` is called after each commit that may have filled the outbox."""
        self._pool = pool
        self._token = token
        self._clock = clock
        self._wake = wake
        self._recent = RecentBlocks()
        self._sources: dict[str, int] = {}
        self.forwarded_us: int | None = None

    async def change(self, work: Callable[[Memory], Awaitable[T]]) -> T:
        memories: list[PostgresMemory] = []

        async def in_transaction(connection: Connection) -> T:
            await connection.execute(INDEX_SCANS)
            memory = PostgresMemory(
                connection, self._token, self._recent, self._sources, self._clock.now_us()
            )
            memories.append(memory)
            result = await work(memory)
            await memory.close()
            return result

        result = await reading(self._pool, in_transaction)
        committed = memories[-1]
        self._recent.keep(committed.touched)
        self._sources.update(committed.new_sources)
        if committed.forwarded_us is not None:
            self.forwarded_us = committed.forwarded_us
        self._wake()
        return result

    async def known_blocks(self, block_ids: Sequence[bytes]) -> set[bytes]:
        rows = await fetch(self._pool, SQL["known_blocks"], list(block_ids))
        return {row["block_id"] for row in rows}

    async def has_history(self, model_name: str, history_id: str) -> bool:
        model = await fetchrow(self._pool, SQL["read_model"], model_name)
        if model is None:
            return False
        found = await fetchrow(self._pool, SQL["has_history"], model["model_id"], history_id)
        return found is not None

    async def answer(self, question: Question) -> Answered:
        model_id = await self._model(question.model_name)

        async def at_one_moment(connection: Connection) -> tuple[NDArray[np.void], Held]:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            return await self._held(connection, model_id, question)

        rows, now = await reading(self._pool, at_one_moment)
        rows = rows[now.at]
        truths = _as_truths(rows)
        truths["known_at_us"] = now.known_at_us
        return Answered(
            truths=truths,
            first_known_at_us=now.first_known_at_us,
            event_times_us=np.ascontiguousarray(rows["event_time_us"]),
            part_ids=np.ascontiguousarray(rows["part_id"]),
            part_rows=rows["part_row"].astype(np.int64),
        )

    async def _held(
        self, connection: Connection, model_id: int, question: Question
    ) -> tuple[NDArray[np.void], Held]:
        """Truths, and which of them hold: as many as are wanted, or all there are."""
        wanted = MAX_ROWS if question.newest_rows is None else question.newest_rows
        # Repeated and corrected rows are there more than once.
        taken = wanted + wanted // 20 + _SPARE_ROWS
        while True:
            least = await self._least(connection, model_id, question, taken)
            if question.newest_rows is None and least is not None:
                raise BadRequest(
                    f"model {question.model_name!r} has more than {MAX_ROWS} rows by then; "
                    "ask for the newest_rows"
                )
            rows = await copy_out(connection, _answer_query(model_id, question, least), _ANSWER)
            if least is None:
                return rows, held(_as_truths(rows))
            earlier = await copy_out(connection, _earlier_query(model_id, question, least), _ANSWER)
            rows = np.concatenate([rows, earlier])
            now = held(_as_truths(rows)).known_since(least)
            if len(now.at) >= wanted:
                return rows, now
            taken *= 2

    async def _least(
        self, connection: Connection, model_id: int, question: Question, taken: int
    ) -> int | None:
        least: int | None = await connection.fetchval(
            SQL["least_of_newest"],
            model_id,
            question.known_at_most_us,
            taken,
            list(question.arms),
            question.event_from_us,
            question.event_before_us,
        )
        return least

    async def history_blocks(self, model_name: str) -> Sequence[HistoryBlock]:
        rows = await fetch(self._pool, SQL["history_blocks"], await self._model(model_name))
        return [HistoryBlock(row["part_id"], row["part_row"], row["row_count"]) for row in rows]

    async def parts(self, part_ids: Sequence[int]) -> Mapping[int, PartPlace]:
        rows = await fetch(self._pool, SQL["places_of_parts"], list(part_ids))
        return {row["part_id"]: PartPlace(row["file_name"], row["first_row"]) for row in rows}

    async def merge_candidates(self, below_rows: int) -> Sequence[MergeCandidate]:
        rows = await fetch(self._pool, SQL["files_to_merge"], below_rows)
        return [
            MergeCandidate(
                row["file_id"],
                row["model_id"],
                row["layout"],
                row["file_name"],
                row["row_count"],
            )
            for row in rows
        ]

    async def replace_files(self, old: Sequence[MergeCandidate], new: ArchiveFile) -> None:
        async def work(connection: Connection) -> None:
            if await connection.fetchrow(SQL["hold_writer"], self._token, 0, 0) is None:
                raise Superseded("a newer ledger process writes this database")
            file_id = await connection.fetchval(
                SQL["add_file"],
                old[0].model_id,
                old[0].layout,
                new.name,
                new.row_count,
                new.byte_count,
            )
            first_row = 0
            for file in old:
                await connection.execute(SQL["move_parts"], file.file_id, file_id, first_row)
                await connection.execute(SQL["drop_file"], file.file_id)
                first_row += file.row_count

        await reading(self._pool, work)

    async def _model(self, model_name: str) -> int:
        row = await fetchrow(self._pool, SQL["read_model"], model_name)
        if row is None:
            raise UnknownModel(
                f"the ledger has nothing of model {model_name!r}; import its history or send "
                "predictions first"
            )
        return int(row["model_id"])


async def become_writer(pool: Pool) -> int:
    """The token of this process; whoever had the last one can't change anything any longer."""
    token: int = await pool.fetchval(SQL["become_writer"])
    return token


def _answer_query(model_id: int, question: Question, least: int | None) -> str:
    since = "" if least is None else f" AND known_at_us >= {int(least)}"
    return f"SELECT {', '.join(_ANSWER)} FROM truth WHERE {_asked(model_id, question)}{since}"


def _earlier_query(model_id: int, question: Question, least: int) -> str:
    """What was known before ``least`` of predictions that have several truths."""
    return (
        f"SELECT {', '.join(f't.{name}' for name in _ANSWER)} FROM ("
        "SELECT DISTINCT block_number, row_index FROM truth"
        f" WHERE {_asked(model_id, question)} AND revision <> 1) AS again"
        " CROSS JOIN LATERAL (SELECT * FROM truth AS t WHERE t.block_number = again.block_number"
        " AND t.row_index = again.row_index OFFSET 0) AS t"
        f" WHERE t.known_at_us < {int(least)}"
    )


def _asked(model_id: int, question: Question) -> str:
    arms = ",".join(str(int(arm)) for arm in question.arms)
    return (
        f"model_id = {int(model_id)} AND known_at_us <= {int(question.known_at_most_us)}"
        f" AND arm = ANY('{{{arms}}}'::smallint[])"
        f" AND event_time_us >= {int(question.event_from_us)}"
        f" AND event_time_us < {int(question.event_before_us)}"
    )


def _as_truths(rows: NDArray[np.void]) -> Truths:
    truths = np.zeros(len(rows), dtype=TRUTH)
    truths["block"], truths["row"] = rows["block_number"], rows["row_index"]
    for name in ("truth", "known_at_us", "event_high", "event_low", "event_row"):
        truths[name] = rows[name]
    return truths
