"""Taking in what was predicted and what became true: sums per window, losses in waiting."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.alerts import Subject
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.domain.sums import Counts, Rows, count
from homeostat_monitor.ports import BlockOfLosses, SumKey, Transaction

# A window that closed holds its blocks' ids on for as long as a broker may send them again.
_REMEMBER_US = 7 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class TakenRows:
    """All rows that a poll brought of one version. ``block_of`` says which block a row is from."""

    subject: Subject
    # None: the version has no usable reference, rows are only counted.
    profile: VersionProfile | None
    block_ids: Sequence[bytes]
    block_of: NDArray[np.intp]
    partitions: NDArray[np.int32]
    event_times_us: NDArray[np.int64]
    rows: Rows

    def last_event_us(self) -> list[int]:
        """Per block its latest event time."""
        last = np.zeros(len(self.block_ids), dtype=np.int64)
        np.maximum.at(last, self.block_of, self.event_times_us)
        return [int(each) for each in last]


async def take_predictions(taken: Sequence[TakenRows], *, tx: Transaction) -> int:
    """Adds rows to their windows' sums, each block once in its life; how many rows were new."""
    await tx.share_models(sorted({each.subject.model_name for each in taken}))
    sums: dict[SumKey, tuple[str, Counts]] = {}
    total = 0
    for each in taken:
        new = await _new_blocks(each, tx)
        is_new = np.isin(each.block_of, new) if len(new) < len(each.block_ids) else None
        rows = len(each.block_of) if is_new is None else int(is_new.sum())
        await _tally_rows(each, rows, tx)
        total += rows
        if rows and each.profile is not None:
            sums.update(await _window_sums(each, each.profile, is_new, tx))
    await tx.add_sums(sums)
    return total


async def _new_blocks(taken: TakenRows, tx: Transaction) -> NDArray[np.intp]:
    forget_after = [last + _REMEMBER_US for last in taken.last_event_us()]
    fresh = await tx.hear(taken.block_ids, forget_after)
    # A block that came twice in one poll is counted by its first copy.
    places = {each: i for i, each in reversed(list(enumerate(taken.block_ids)))}
    return np.array(sorted(places[each] for each in fresh), dtype=np.intp)


async def _tally_rows(taken: TakenRows, rows: int, tx: Transaction) -> None:
    repeated = len(taken.block_of) - rows
    await tx.tally(taken.subject, {"predictions": rows, "repeated_rows": repeated})


async def _window_sums(
    taken: TakenRows,
    profile: VersionProfile,
    is_new: NDArray[np.bool_] | None,
    tx: Transaction,
) -> Mapping[SumKey, tuple[str, Counts]]:
    standing = await tx.standing(taken.subject)
    if not standing.is_watched:
        await tx.tally(taken.subject, {"superseded_rows": int(taken.rows.groups.size)})
        return {}
    starts = taken.event_times_us - taken.event_times_us % profile.length_us
    keep = np.ones(len(starts), dtype=bool) if is_new is None else is_new
    if standing.closed_until_us is not None:
        late = keep & (starts < standing.closed_until_us)
        if late.any():
            await tx.tally(taken.subject, {"late_rows": int(late.sum())})
            keep = keep & ~late
    keys, groups = _groups(starts, taken.partitions, keep)
    if not keys:
        return {}
    # Rows that are left out fall into one more group, which is dropped.
    rows = replace(taken.rows, groups=groups, group_count=len(keys) + 1)
    counted = count(profile.layout, rows)
    return {
        SumKey(taken.subject, start, partition): (profile.layout.fingerprint, counted[place])
        for place, (start, partition) in enumerate(keys)
    }


def _groups(
    starts: NDArray[np.int64], partitions: NDArray[np.int32], keep: NDArray[np.bool_]
) -> tuple[list[tuple[int, int]], NDArray[np.intp]]:
    """The windows and partitions that occur among the kept rows, and each row's place in them."""
    kept_starts = np.unique(starts[keep])
    kept_partitions = np.unique(partitions[keep])
    width = max(len(kept_partitions), 1)
    code = np.searchsorted(kept_starts, starts) * width + np.searchsorted(
        kept_partitions, partitions
    )
    space = len(kept_starts) * width
    held = np.flatnonzero(np.bincount(code[keep], minlength=space))
    place = np.full((len(kept_starts) + 1) * width + 1, len(held), dtype=np.intp)
    place[held] = np.arange(len(held))
    groups = np.where(keep, place[code], len(held))
    keys = [(int(kept_starts[each // width]), int(kept_partitions[each % width])) for each in held]
    return keys, groups


async def take_losses(blocks: Sequence[BlockOfLosses], *, tx: Transaction) -> int:
    """Keeps first truths until the watermark passes them; those that come after it are counted."""
    await tx.share_models(sorted({each.subject.model_name for each in blocks}))
    forget_after = [int(each.known_at_us.max()) + _REMEMBER_US for each in blocks]
    fresh = set(await tx.hear([each.event_id for each in blocks], forget_after))
    subjects = sorted({each.subject for each in blocks})
    watched = {each: (await tx.standing(each)).is_watched for each in subjects}
    until = {each: await tx.losses_until(each.model_name) for each in subjects}
    tallies: dict[Subject, Counter[str]] = {each: Counter() for each in subjects}
    kept: list[BlockOfLosses] = []
    for each in blocks:
        counts, rows = tallies[each.subject], len(each.losses)
        if each.event_id not in fresh:
            counts["repeated_losses"] += rows
            continue
        fresh.discard(each.event_id)
        if not watched[each.subject]:
            counts["superseded_losses"] += rows
            continue
        in_time = each.after(until[each.subject])
        counts["losses"] += len(in_time.losses)
        counts["late_losses"] += rows - len(in_time.losses)
        if len(in_time.losses):
            kept.append(in_time)
    for subject, counts in tallies.items():
        await tx.tally(subject, counts)
    await tx.add_losses(kept)
    return sum(len(each.losses) for each in kept)
