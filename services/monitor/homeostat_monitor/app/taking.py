"""Taking in what was predicted and what became true: sums per window, losses in waiting."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from homeostat.topics import JOINED, PREDICTIONS
from homeostat_monitor.domain.alerts import Subject
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.domain.sums import Rows
from homeostat_monitor.ports import BlockOfLosses, BlockSegments, Sum, SumKey, Transaction

Mask = NDArray[np.bool_]

# A window that closed holds its blocks' ids on for as long as a broker may send them again.
_REMEMBER_US = 7 * 86_400_000_000
# A truth that comes later than this counts for all rows alone, for no segment.
_REMEMBER_TRUTH_US = 60 * 86_400_000_000


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
    # Per segment of the policy, which rows are its.
    segments: Mapping[str, Mask] = field(default_factory=dict)

    def last_event_us(self) -> list[int]:
        """Per block its latest event time."""
        last = np.zeros(len(self.block_ids), dtype=np.int64)
        np.maximum.at(last, self.block_of, self.event_times_us)
        return [int(each) for each in last]


async def take_predictions(taken: Sequence[TakenRows], *, tx: Transaction) -> int:
    """Adds rows to their windows' sums, each block once in its life; how many rows were new."""
    await tx.share_models(sorted({each.subject.model_name for each in taken}))
    reached = await tx.current_us(PREDICTIONS.name)
    sums: dict[SumKey, Sum] = {}
    total = 0
    for each in taken:
        new = await _new_blocks(each, tx)
        is_new = np.isin(each.block_of, new)
        rows = int(is_new.sum())
        await _tally_rows(each, rows, tx)
        total += rows
        if rows and each.profile is not None:
            sums.update(await _window_sums(each, each.profile, is_new, reached, tx))
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
    keep: Mask,
    reached_us: int | None,
    tx: Transaction,
) -> Mapping[SumKey, Sum]:
    standing = await tx.standing(taken.subject)
    if not standing.is_watched:
        await tx.tally(taken.subject, {"superseded_rows": int(taken.rows.groups.size)})
        return {}
    length = profile.length_us
    starts = taken.event_times_us - taken.event_times_us % length
    # What the mark has passed is closed, whether or not it was judged by now.
    closed = [standing.closed_until_us] if standing.closed_until_us is not None else []
    if reached_us is not None:
        closed.append(reached_us - reached_us % length)
    if closed:
        late = keep & (starts < max(closed))
        if late.any():
            await tx.tally(taken.subject, {"late_rows": int(late.sum())})
            keep = keep & ~late
    await _remember_segments(taken, tx)
    return dict(_sums_of(taken, profile, starts, keep))


def _sums_of(
    taken: TakenRows, profile: VersionProfile, starts: NDArray[np.int64], keep: Mask
) -> Iterator[tuple[SumKey, Sum]]:
    """Of all rows, and of each segment's."""
    layout = profile.layout.fingerprint
    masks = {name: keep & mask for name, mask in taken.segments.items()}
    for segment, mask in {"": keep, **masks}.items():
        keys, groups = _groups(starts, taken.partitions, mask)
        if not keys:
            continue
        # Rows that are left out fall into one more group, which is dropped.
        rows = replace(taken.rows, groups=groups, group_count=len(keys) + 1)
        counted = profile.counter.count(rows)
        for place, (start, partition) in enumerate(keys):
            key = SumKey(taken.subject, segment, start, partition)
            yield key, Sum(start + profile.length_us, layout, counted[place])


async def _remember_segments(taken: TakenRows, tx: Transaction) -> None:
    """Which rows are in which segments, for when their truth comes."""
    if not taken.segments:
        return
    names = tuple(taken.segments)
    masks = np.array([taken.segments[name] for name in names])
    ends = np.searchsorted(taken.block_of, np.arange(len(taken.block_ids)), side="right")
    parts = np.split(masks, ends[:-1], axis=1)
    remembered = [
        BlockSegments(block_id, names, part)
        for block_id, part in zip(taken.block_ids, parts, strict=True)
        if part.any()
    ]
    last = dict(zip(taken.block_ids, taken.last_event_us(), strict=True))
    await tx.add_block_segments(
        remembered, [last[each.block_id] + _REMEMBER_TRUTH_US for each in remembered]
    )


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


async def _known_until(
    subjects: Sequence[Subject], tx: Transaction
) -> Mapping[Subject, int | None]:
    """What became known before this is late: judged already, or passed by the mark."""
    reached = await tx.current_us(JOINED.name)
    until: dict[Subject, int | None] = {}
    for each in subjects:
        judged = await tx.losses_until(each.model_name)
        marks = [mark for mark in (judged, reached) if mark is not None]
        until[each] = max(marks, default=None)
    return until


async def take_losses(blocks: Sequence[BlockOfLosses], *, tx: Transaction) -> int:
    """Keeps first truths until the watermark passes them; those that come after it are counted."""
    await tx.share_models(sorted({each.subject.model_name for each in blocks}))
    forget_after = [int(each.known_at_us.max()) + _REMEMBER_US for each in blocks]
    fresh = set(await tx.hear([each.event_id for each in blocks], forget_after))
    subjects = sorted({each.subject for each in blocks})
    watched = {each: (await tx.standing(each)).is_watched for each in subjects}
    until = await _known_until(subjects, tx)
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
