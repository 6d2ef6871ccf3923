"""Cutting a data set: the rows whose truth was known by a point in time, as it was known then."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat_ledger.app.ports import Answered, Archive, HistoryBlock, Index, PartPlace, Question
from homeostat_ledger.domain.blocks import ARM_HISTORY
from homeostat_ledger.domain.columns import EVENT_TIME, KNOWN_AT, TRUTH
from homeostat_ledger.domain.data_sets import Piece, assemble, content_sha256, no_rows

# A merge may take a file away while it is read; the parts then lie elsewhere.
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class DataSet:
    """Rows in their order and the hash of their content."""

    table: pa.Table
    content_sha256: str


async def cut(question: Question, *, index: Index, archive: Archive) -> DataSet:
    """The data set that answers the question. Raises UnknownModel, IncompatibleColumns."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return await _cut(question, index, archive)
        except FileNotFoundError:
            continue
    return await _cut(question, index, archive)


async def _cut(question: Question, index: Index, archive: Archive) -> DataSet:
    history = (
        await index.history_blocks(question.model_name) if ARM_HISTORY in question.arms else []
    )
    answered = await index.answer(question)
    part_ids = {*np.unique(answered.part_ids).tolist(), *(block.part_id for block in history)}
    places = await index.parts(sorted(part_ids))
    return await asyncio.to_thread(_assemble, question, answered, list(history), places, archive)


def _assemble(
    question: Question,
    answered: Answered,
    history: list[HistoryBlock],
    places: Mapping[int, PartPlace],
    archive: Archive,
) -> DataSet:
    pieces = _pieces(answered, places, archive)
    for block in history:
        pieces += _history_piece(question, block, places[block.part_id], archive)
    pieces = _newest(pieces, question.newest_rows)
    table = assemble(pieces, question.newest_rows) if pieces else no_rows()
    return DataSet(table, content_sha256(table))


def _pieces(answered: Answered, places: Mapping[int, PartPlace], archive: Archive) -> list[Piece]:
    parts, at = np.unique(answered.part_ids, return_inverse=True)
    names = sorted({places[int(part)].file_name for part in parts})
    number_of = {name: number for number, name in enumerate(names)}
    file_of_part = np.array(
        [number_of[places[int(part)].file_name] for part in parts], dtype=np.int64
    )
    first_of_part = np.array([places[int(part)].first_row for part in parts], dtype=np.int64)
    rows = first_of_part[at] + answered.part_rows if len(parts) else answered.part_rows
    order = np.argsort(file_of_part[at], kind="stable") if len(parts) else at
    pieces, start = [], 0
    for number, count in enumerate(np.bincount(file_of_part[at], minlength=len(names))):
        chosen = order[start : start + count]
        start += count
        pieces.append(
            Piece(
                archive.features(names[number]),
                rows[chosen],
                answered.event_times_us[chosen],
                answered.truths["known_at_us"][chosen],
                answered.first_known_at_us[chosen],
                answered.truths["truth"][chosen],
            )
        )
    return pieces


def _history_piece(
    question: Question, block: HistoryBlock, place: PartPlace, archive: Archive
) -> list[Piece]:
    table = archive.features(place.file_name)
    first = place.first_row + block.part_row
    own = table.slice(first, block.row_count)
    event_times, known_at = _column(own, EVENT_TIME), _column(own, KNOWN_AT)
    chosen = np.flatnonzero(
        (known_at <= question.known_at_most_us)
        & (event_times >= question.event_from_us)
        & (event_times < question.event_before_us)
    )
    if not len(chosen):
        return []
    return [
        Piece(
            table,
            chosen + first,
            event_times[chosen],
            known_at[chosen],
            known_at[chosen],
            _column(own, TRUTH)[chosen],
        )
    ]


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    return np.asarray(table[name])


def _newest(pieces: list[Piece], newest_rows: int | None) -> list[Piece]:
    """Leaves out rows that can't be among the newest, so that fewer are read and ordered."""
    total = sum(len(piece.rows) for piece in pieces)
    if newest_rows is None or total <= newest_rows:
        return pieces
    if newest_rows == 0:
        return []
    known_at = np.concatenate([piece.known_at_us for piece in pieces])
    least = np.partition(known_at, total - newest_rows)[total - newest_rows]
    kept = [(piece, np.flatnonzero(piece.known_at_us >= least)) for piece in pieces]
    return [piece.only(rows) for piece, rows in kept if len(rows)]
