"""Reading the past: archived predictions of a span of time, in portions."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa

from homeostat_ledger.app.ports import Archive, Index, PartPlace
from homeostat_ledger.domain.blocks import ARM_HISTORY, Micros
from homeostat_ledger.domain.columns import KNOWN_AT, TRUTH
from homeostat_ledger.domain.past import Features, Heads, Rows, Sweep, chunks, portion

# A merge may take a file away while it is read; the parts then lie elsewhere.
_ATTEMPTS = 5
# Blocks asked for at once, and the rows that are worth a question.
_MOST_BLOCKS = 2_000
_LEAST_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class PastQuestion:
    """Which predictions, and as of when. Times in microseconds UTC."""

    model_name: str
    # None: every version.
    version: int | None
    event_from_us: int
    event_before_us: int
    known_at_most_us: int
    arms: Sequence[int]
    newest_rows: int | None
    labelled_only: bool
    portion_rows: int


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is; ``skip`` of the first rows are as old as the oldest that is wanted, but
    come before it."""

    rows: int = 0
    first_us: int | None = None
    last_us: int | None = None
    skip: int = 0


class Past(Protocol):
    """The index, as far as spans of time go."""

    async def heads(self, question: PastQuestion) -> Heads:
        """Blocks that may hold asked rows; UnknownModel."""
        ...

    async def rows(self, numbers: Sequence[int], known_at_most_us: int) -> Rows:
        """All rows of these blocks, with the truth that holds at the cut."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer that is being given. Blocks that come in after it began are not in it."""

    question: PastQuestion
    extent: Extent
    heads: Heads
    past: Past
    index: Index
    archive: Archive

    async def portions(self) -> AsyncIterator[pa.Table]:
        """Tables of at most ``portion_rows`` rows by (event time, prediction id)."""
        if not self.extent.rows:
            return
        heads = self.heads[np.argsort(self.heads["min_event_us"], kind="stable")]
        sweep = Sweep(self.question.portion_rows, self.extent.skip)
        parts = list(chunks(heads, max(self.question.portion_rows, _LEAST_ROWS), _MOST_BLOCKS))
        for place, part in enumerate(parts, start=1):
            rows = await _rows(self.question, part, self)
            is_last = place == len(parts)
            final = None if is_last else int(parts[place]["min_event_us"][0])
            for each in sweep.add(rows, final):
                yield await self._table(each)

    async def _table(self, rows: Rows) -> pa.Table:
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._with_features(rows)
            except FileNotFoundError:
                continue
        return await self._with_features(rows)

    async def _with_features(self, rows: Rows) -> pa.Table:
        places = await self.index.parts(np.unique(rows["part_id"]).tolist())
        return await asyncio.to_thread(_assemble, rows, places, self.archive)


async def read(question: PastQuestion, *, past: Past, index: Index, archive: Archive) -> Reading:
    """How much there is, known before the first row is given. Raises UnknownModel."""
    heads = await past.heads(question)
    reading = Reading(question, Extent(), heads, past, index, archive)
    if question.newest_rows is None or _most_rows(heads) <= question.newest_rows:
        return replace(reading, extent=await _extent(reading))
    return await _newest(reading, question.newest_rows)


def _most_rows(heads: Heads) -> int:
    return int(heads["row_count"].sum())


async def _extent(reading: Reading) -> Extent:
    """Blocks that lie within the span need not be read to be counted."""
    question, heads = reading.question, reading.heads
    whole = (heads["min_event_us"] >= question.event_from_us) & (
        heads["max_event_us"] < question.event_before_us
    )
    if question.labelled_only:
        whole[:] = False
    rows = int(heads["row_count"][whole].sum())
    times = [heads["min_event_us"][whole], heads["max_event_us"][whole]]
    for part in chunks(heads[~whole], _LEAST_ROWS, _MOST_BLOCKS):
        found = (await _rows(question, part, reading))["event_time_us"]
        rows += len(found)
        times += [found[found.argmin() :][:1], found[found.argmax() :][:1]] if len(found) else []
    seen = np.concatenate(times)
    if not len(seen):
        return Extent()
    return Extent(rows, int(seen.min()), int(seen.max()))


async def _newest(reading: Reading, wanted: int) -> Reading:
    """Blocks are read from the last one backwards, until none can hold a newer row."""
    question, heads = reading.question, reading.heads
    newest = np.empty(0, dtype=np.int64)
    if wanted:
        by_end = heads[np.argsort(-heads["max_event_us"], kind="stable")]
        for part in chunks(by_end, _LEAST_ROWS, _MOST_BLOCKS):
            if len(newest) >= wanted and int(part["max_event_us"][0]) < newest.min():
                break
            rows = await _rows(question, part, reading)
            newest = _last(np.concatenate([newest, rows["event_time_us"]]), wanted)
    if not len(newest):
        return reading
    first = int(newest.min())
    return replace(
        reading,
        question=replace(question, event_from_us=first),
        extent=Extent(
            min(wanted, len(newest)), first, int(newest.max()), max(0, len(newest) - wanted)
        ),
        heads=heads[heads["max_event_us"] >= first],
    )


def _last(times: Micros, wanted: int) -> Micros:
    """The greatest ``wanted``, and whatever is as great as the least of them."""
    if len(times) <= wanted:
        return times
    least = np.partition(times, len(times) - wanted)[len(times) - wanted]
    kept: Micros = times[times >= least]
    return kept


async def _rows(question: PastQuestion, heads: Heads, reading: Reading) -> Rows:
    """The rows of these blocks that are asked for."""
    rows = await reading.past.rows(heads["block_number"].tolist(), question.known_at_most_us)
    rows = rows[
        (rows["event_time_us"] >= question.event_from_us)
        & (rows["event_time_us"] < question.event_before_us)
    ]
    if (rows["arm"] == ARM_HISTORY).any():
        rows = await _with_own_truth(rows, question.known_at_most_us, reading)
    return rows[rows["is_known"]] if question.labelled_only else rows


async def _with_own_truth(rows: Rows, known_at_most_us: int, reading: Reading) -> Rows:
    """Rows of history have their truth beside them."""
    for attempt in range(_ATTEMPTS):
        places = await reading.index.parts(np.unique(rows["part_id"]).tolist())
        try:
            return await asyncio.to_thread(
                _own_truth, rows, known_at_most_us, places, reading.archive
            )
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise
    return rows


def _own_truth(
    rows: Rows, known_at_most_us: int, places: Mapping[int, PartPlace], archive: Archive
) -> Rows:
    rows = rows.copy()
    history = np.flatnonzero(rows["arm"] == ARM_HISTORY)
    for each in _features(rows[history], places, archive):
        at = history[each.at]
        for name, column in (("truth", TRUTH), ("known_at_us", KNOWN_AT)):
            rows[name][at] = np.asarray(each.table[column])[each.rows]
        rows["is_known"][at] = rows["known_at_us"][at] <= known_at_most_us
    return rows


def _assemble(rows: Rows, places: Mapping[int, PartPlace], archive: Archive) -> pa.Table:
    return portion(rows, _features(rows, places, archive))


def _features(rows: Rows, places: Mapping[int, PartPlace], archive: Archive) -> list[Features]:
    """File by file."""
    parts, part_of = np.unique(rows["part_id"], return_inverse=True)
    names = sorted({places[int(part)].file_name for part in parts})
    number_of = {name: number for number, name in enumerate(names)}
    file_of = np.array([number_of[places[int(part)].file_name] for part in parts], dtype=np.intp)
    first = np.array([places[int(part)].first_row for part in parts], dtype=np.int64)
    found = []
    for number, name in enumerate(names):
        at = np.flatnonzero(file_of[part_of] == number)
        found.append(
            Features(archive.features(name), first[part_of[at]] + rows["part_row"][at], at)
        )
    return found
