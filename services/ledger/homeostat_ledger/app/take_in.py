"""Taking in what the topics say: archive blocks, join truth, tell what is news. Once each."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_ledger.app.ports import Archive, Index, Intake, Memory, Numbers, Written
from homeostat_ledger.domain.blocks import (
    ARM_SHADOW,
    BY_CLIENT,
    OUTCOME,
    Block,
    OutcomeBatch,
    Outcomes,
    StoredBlock,
)
from homeostat_ledger.domain.columns import layout, to_table
from homeostat_ledger.domain.counts import Counts
from homeostat_ledger.domain.joins import Touched, checksum_change, joined_blocks
from homeostat_ledger.domain.truths import TRUTH, Truths, settle


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What one poll amounted to, for the metrics."""

    predictions: int
    duplicate_blocks: int
    outcomes: int
    parked: int
    news: int


async def take_in(intake: Intake, *, index: Index, archive: Archive) -> TakenIn:
    """Files first, then one transaction with everything else. A second delivery changes nothing."""
    fresh = await _fresh(intake.blocks, index)
    written = await asyncio.to_thread(write_files, fresh, archive)
    return await index.change(lambda memory: _apply(memory, intake, written))


async def _fresh(blocks: Sequence[Block], index: Index) -> list[Block]:
    by_id = {block.block_id: block for block in blocks}
    known = await index.known_blocks(list(by_id)) if by_id else set()
    return [block for block_id, block in by_id.items() if block_id not in known]


def write_files(blocks: Sequence[Block], archive: Archive) -> list[Written]:
    """One file per model and layout."""
    alike: dict[tuple[str, str], list[Block]] = {}
    for block in blocks:
        alike.setdefault((block.model_name, layout(block)), []).append(block)
    return [
        Written(archive.write(to_table(same)), model_name, kind, same)
        for (model_name, kind), same in sorted(alike.items(), key=lambda each: each[0])
    ]


async def _apply(memory: Memory, intake: Intake, written: Sequence[Written]) -> TakenIn:
    await memory.advance(intake.position)
    await memory.set_aside(intake.set_aside)
    stored = await memory.number(written)
    counts: dict[str, Counts] = {}
    _count_blocks(counts, intake.blocks, written)
    of_model = _by_model(written, stored)
    arriving: dict[str, list[Truths]] = {}
    for model_name, blocks in sorted(of_model.items()):
        waiting, unparked = await memory.waiting_for(model_name, blocks)
        arriving.setdefault(model_name, []).append(waiting)
        counts[model_name].outcomes_parked -= unparked
    await memory.add_blocks(written, stored)
    outcomes = await _unseen(memory, intake.outcomes, counts)
    for model_name, rows in sorted(outcomes.items()):
        own = counts[model_name]
        matched, unmatched = await _match(memory, model_name, rows)
        own.outcomes_parked += len(unmatched)
        await memory.park(model_name, unmatched)
        arriving.setdefault(model_name, []).append(matched)
    news = 0
    new_blocks = {block.number: block for block in stored}
    for model_name, truths in sorted(arriving.items()):
        told = np.concatenate(truths)
        if len(told):
            news += await _join(
                memory, model_name, told, new_blocks, counts[model_name], intake.traceparent
            )
    for model_name, change in sorted(counts.items()):
        await memory.count(model_name, change)
    if intake.marks is not None:
        await memory.mark(intake.marks)
    return TakenIn(
        predictions=sum(block.row_count for block in stored),
        duplicate_blocks=sum(each.duplicate_blocks for each in counts.values()),
        outcomes=sum(each.outcomes_received for each in counts.values()),
        parked=sum(each.outcomes_parked for each in counts.values()),
        news=news,
    )


def _count_blocks(
    counts: dict[str, Counts], came: Sequence[Block], written: Sequence[Written]
) -> None:
    for block in came:
        counts.setdefault(block.model_name, Counts()).duplicate_blocks += 1
    for file in written:
        own = counts[file.model_name]
        own.duplicate_blocks -= len(file.blocks)
        own.blocks += len(file.blocks)
        own.predictions += sum(b.row_count for b in file.blocks if b.arm != ARM_SHADOW)


def _by_model(
    written: Sequence[Written], stored: Sequence[StoredBlock]
) -> Mapping[str, list[StoredBlock]]:
    of_model: dict[str, list[StoredBlock]] = {}
    names = [file.model_name for file in written for _ in file.blocks]
    for model_name, block in zip(names, stored, strict=True):
        of_model.setdefault(model_name, []).append(block)
    return of_model


async def _unseen(
    memory: Memory, batches: Sequence[OutcomeBatch], counts: dict[str, Counts]
) -> Mapping[str, Outcomes]:
    by_id = {batch.block_id: batch for batch in batches}
    unseen = await memory.unseen_outcomes(list(by_id)) if by_id else set()
    rows: dict[str, list[Outcomes]] = {}
    for block_id, batch in by_id.items():
        if block_id in unseen:
            batch.rows["source_id"] = await memory.source_id(batch.source)
            rows.setdefault(batch.model_name, []).append(batch.rows)
            own = counts.setdefault(batch.model_name, Counts())
            own.outcomes_received += len(batch.rows) + batch.refused_rows
            own.outcomes_dead_lettered += batch.refused_rows
    return {model_name: np.concatenate(parts) for model_name, parts in rows.items()}


async def _match(memory: Memory, model_name: str, rows: Outcomes) -> tuple[Truths, Outcomes]:
    """Truths with their predictions, and those whose prediction is not there."""
    is_client = rows["row"] == BY_CLIENT
    by_client, by_id = rows[is_client], rows[~is_client]
    keys = np.stack([by_client["high"], by_client["low"]], axis=1)
    place, block, row = await memory.rows_of_clients(model_name, keys)
    found = np.zeros(len(by_client), dtype=bool)
    found[place] = True
    numbers, known = await _numbers(memory, model_name, by_id)
    shadowed, shadow = await _shadows(memory, model_name, by_id)
    matched = np.concatenate(
        [
            truths_for(by_client[place], block, row, by_client=True),
            truths_for(by_id[known], numbers[known], by_id["row"][known], by_client=False),
            truths_for(by_id[shadowed], shadow, by_id["row"][shadowed], by_client=False),
        ]
    )
    return matched, np.concatenate([by_client[~found], by_id[~known]])


async def _numbers(
    memory: Memory, model_name: str, by_id: Outcomes
) -> tuple[Numbers, NDArray[np.bool_]]:
    """Block number per row, and whether there is such a row."""
    if not len(by_id):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
    ids, at = _distinct(by_id)
    found = await memory.rows_of_blocks(model_name, ids)
    number, count = np.array([found.get(block_id, (0, 0)) for block_id in ids]).T
    return number[at].astype(np.int64), by_id["row"] < count[at]


async def _shadows(memory: Memory, model_name: str, by_id: Outcomes) -> tuple[Numbers, Numbers]:
    """Which of these truths hold for rows of shadows, too; and the numbers of their blocks.

    That says nothing about the rows that were answered: they may be on their way still.
    """
    nothing = np.zeros(0, dtype=np.int64)
    if not len(by_id):
        return nothing, nothing
    ids, inverse = _distinct(by_id)
    place_of = {block_id: place for place, block_id in enumerate(ids)}
    order = np.argsort(inverse, kind="stable")
    bounds = np.searchsorted(inverse[order], np.arange(len(ids) + 1))
    at, numbers = [nothing], [nothing]
    for origin, number, row_count in await memory.shadows_of_blocks(model_name, ids):
        place = place_of[origin]
        told = order[bounds[place] : bounds[place + 1]]
        told = told[by_id["row"][told] < row_count]
        at.append(told)
        numbers.append(np.full(len(told), number, dtype=np.int64))
    return np.concatenate(at), np.concatenate(numbers)


def _distinct(by_id: Outcomes) -> tuple[list[bytes], NDArray[np.intp]]:
    """The blocks that truths name, and each one's place among them."""
    halves = np.stack([by_id["high"], by_id["low"]], axis=1).astype("<u8")
    distinct, inverse = np.unique(halves, axis=0, return_inverse=True)
    return [each.tobytes() for each in distinct], inverse.reshape(-1)


def truths_for(outcomes: Outcomes, block: Numbers, row: Numbers, *, by_client: bool) -> Truths:
    """Outcomes as truths of predictions, one by one."""
    truths = np.zeros(len(outcomes), dtype=TRUTH)
    for name in set(TRUTH.names or ()) & set(OUTCOME.names or ()) - {"row"}:
        truths[name] = outcomes[name]
    truths["block"], truths["row"], truths["by_client"] = block, row, by_client
    return truths


async def _join(
    memory: Memory,
    model_name: str,
    told: Truths,
    new_blocks: Mapping[int, StoredBlock],
    counts: Counts,
    traceparent: str | None,
) -> int:
    numbers = np.unique(told["block"])
    old = [int(number) for number in numbers if int(number) not in new_blocks]
    blocks = {int(n): new_blocks[int(n)] for n in numbers if int(n) in new_blocks}
    blocks.update(await memory.blocks(old))
    is_old = np.isin(told["block"], np.array(old, dtype=np.int64))
    known = await memory.truths_of(told["block"][is_old], told["row"][is_old])
    news = 0
    for is_shadow in (False, True):
        own = {n: block for n, block in blocks.items() if (block.arm == ARM_SHADOW) == is_shadow}
        if own:
            ids = np.array(list(own))
            touched = Touched(own)
            settled = settle(known[np.isin(known["block"], ids)], told[np.isin(told["block"], ids)])
            if not is_shadow:
                counts.predictions_joined += settled.joined
                counts.corrections += settled.corrections
                counts.outcomes_repeated += settled.repeated
                counts.joined_checksum += checksum_change(settled, touched)
            await memory.remember(model_name, settled.stored, own)
            await memory.publish(list(joined_blocks(model_name, settled, touched)), traceparent)
            news += len(settled.news)
    return news
