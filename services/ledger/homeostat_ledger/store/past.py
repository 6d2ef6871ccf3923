"""Blocks and rows of a span of time, for whoever reads the past."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat_kit.postgres import Connection, Pool
from homeostat_ledger.app.read import PastQuestion
from homeostat_ledger.domain.errors import UnknownModel
from homeostat_ledger.domain.past import HEAD, ROW, Heads, Rows
from homeostat_ledger.domain.truths import TRUTH, Truths, held
from homeostat_ledger.store.away import fetchrow, reading
from homeostat_ledger.store.copying import copy_out
from homeostat_ledger.store.index import INDEX_SCANS
from homeostat_ledger.store.memory import SQL

_HEAD = {name: HEAD[name].str[1:] for name in HEAD.names or ()}
_TRUTH = {
    "block_number": "i8",
    "row_index": "i4",
    "truth": "f8",
    "known_at_us": "i8",
    "event_high": "u8",
    "event_low": "u8",
    "event_row": "u4",
}


class PostgresPast:
    """Reads only."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def heads(self, question: PastQuestion) -> Heads:
        """Blocks that may hold asked rows, in no order; UnknownModel."""
        model = await fetchrow(self._pool, SQL["read_model"], question.model_name)
        if model is None:
            raise UnknownModel(
                f"the ledger has nothing of model {question.model_name!r}; send predictions first"
            )
        query = _heads_query(int(model["model_id"]), question)

        async def work(connection: Connection) -> NDArray[np.void]:
            return await copy_out(connection, query, _HEAD)

        return (await reading(self._pool, work)).astype(HEAD)

    async def rows(self, numbers: Sequence[int], known_at_most_us: int) -> Rows:
        """All rows of these blocks, with the truth that holds at the cut; history's is not here."""

        async def work(connection: Connection) -> tuple[list[Any], NDArray[np.void]]:
            await connection.execute(INDEX_SCANS)
            blocks = await connection.fetch(SQL["past_blocks"], list(numbers))
            told = await copy_out(connection, _truths_query(numbers, known_at_most_us), _TRUTH)
            return blocks, told

        blocks, told = await reading(self._pool, work)
        return _rows(blocks, _as_truths(told))


def _heads_query(model_id: int, question: PastQuestion) -> str:
    arms = ",".join(str(int(arm)) for arm in question.arms)
    version = "" if question.version is None else f" AND version = {int(question.version)}"
    return (
        f"SELECT {', '.join(_HEAD)} FROM prediction_block WHERE model_id = {model_id}"
        f" AND arm = ANY('{{{arms}}}'::smallint[]){version}"
        f" AND max_event_us >= {int(question.event_from_us)}"
        f" AND min_event_us < {int(question.event_before_us)}"
    )


def _truths_query(numbers: Sequence[int], known_at_most_us: int) -> str:
    blocks = ",".join(str(int(number)) for number in numbers)
    return (
        f"SELECT {', '.join(_TRUTH)} FROM truth WHERE block_number = ANY('{{{blocks}}}'::bigint[])"
        f" AND known_at_us <= {int(known_at_most_us)}"
    )


def _as_truths(told: NDArray[np.void]) -> Truths:
    truths = np.zeros(len(told), dtype=TRUTH)
    truths["block"], truths["row"] = told["block_number"], told["row_index"]
    for name in ("truth", "known_at_us", "event_high", "event_low", "event_row"):
        truths[name] = told[name]
    return truths


def _rows(blocks: Sequence[Any], truths: Truths) -> Rows:
    if not blocks:
        return np.empty(0, dtype=ROW)
    counts = np.array([block["row_count"] for block in blocks], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rows = np.zeros(int(counts.sum()), dtype=ROW)
    rows["row"] = np.arange(len(rows)) - np.repeat(starts, counts)
    for name in ("version", "arm", "task", "part_id", "part_row"):
        rows[name] = np.repeat([block[name] for block in blocks], counts)
    rows["part_row"] += rows["row"]
    ids = np.frombuffer(b"".join(block["block_id"] for block in blocks), dtype=">u8")
    rows["high"], rows["low"] = (np.repeat(each, counts) for each in ids.reshape(-1, 2).T)
    for name, stored, kind in (
        ("event_time_us", "event_times", "<i8"),
        ("score", "scores", "<f8"),
        ("decision", "decisions", "<f8"),
    ):
        rows[name] = np.frombuffer(b"".join(block[stored] for block in blocks), dtype=kind)
    rows["truth"] = np.nan
    now = held(truths)
    numbers = np.array([block["block_number"] for block in blocks], dtype=np.int64)
    order = np.argsort(numbers)
    block_of = order[np.searchsorted(numbers, truths["block"][now.at], sorter=order)]
    at = starts[block_of] + truths["row"][now.at]
    rows["is_known"][at] = True
    rows["truth"][at] = truths["truth"][now.at]
    rows["known_at_us"][at] = now.first_known_at_us
    return rows
