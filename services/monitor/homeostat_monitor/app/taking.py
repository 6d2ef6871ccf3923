"""Taking in what was predicted and what became true: sums per window, losses in waiting."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from homeostat.topics import JOINED, PREDICTIONS
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.domain.windows.sums import Rows
from homeostat_monitor.ports import (
    BlockOfLosses,
    BlockSegments,
    Standing,
    Sum,
    SumKey,
    Transaction,
)

Mask = NDArray[np.bool_]

# Before a segment's name: the tally of its rows.
SEGMENT_TALLY = "predictions@"

_BEFORE_ALL = -(2**62)
_NONE_PASSED: Mapping[bytes, int] = MappingProxyType({})
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


async def take_predictions(
    taken: Sequence[TakenRows], *, tx: Transaction, passed_us: Mapping[bytes, int] = _NONE_PASSED
) -> int:
    """Adds rows to their windows' sums, each block once in its life; how many rows were new.

    ``passed_us``: per block id which mark stands before it on its partition. Rows of windows that
    this mark has closed are late, whether or not the same poll brought it.
    """
    # Before anybody has to wait for us: hardly ever rows are repeated or late.
    counted = [_sums_of_all(each) for each in taken]
    await tx.share_models(sorted({each.subject.model_name for each in taken}))
    reached = await tx.current_us(PREDICTIONS.name)
    standings = await tx.standings(sorted({each.subject for each in taken}))
    fresh = await _fresh_blocks(taken, tx)
    tallies: dict[Subject, Counter[str]] = {}
    sums: dict[SumKey, Sum] = {}
    remembered: list[tuple[BlockSegments, int]] = []
    total = 0
    for each, whole in zip(taken, counted, strict=True):
        is_new = np.isin(each.block_of, _first_copies(each, fresh))
        rows = int(is_new.sum())
        counts = tallies.setdefault(each.subject, Counter())
        counts.update({"predictions": rows, "repeated_rows": len(each.block_of) - rows})
        counts["scores_not_finite"] += int((is_new & ~np.isfinite(each.rows.scores)).sum())
        total += rows
        if not rows or each.profile is None:
            continue
        standing = standings[each.subject]
        if not standing.is_watched:
            counts["superseded_rows"] += rows
            continue
        counts.update(
            {f"{SEGMENT_TALLY}{name}": int((is_new & m).sum()) for name, m in each.segments.items()}
        )
        own = np.array([passed_us.get(block, _BEFORE_ALL) for block in each.block_ids])
        starts, kept = _in_time(each, each.profile, is_new, standing, reached, own)
        counts["late_rows"] += rows - int(kept.sum())
        sums.update(whole if kept.all() else _sums_of(each, each.profile, starts, kept))
        remembered += _rows_of_segments(each)
    await tx.tally_many(tallies)
    await tx.add_block_segments(
        [each for each, _ in remembered], [until for _, until in remembered]
    )
    await tx.add_sums(sums)
    return total


async def _fresh_blocks(taken: Sequence[TakenRows], tx: Transaction) -> set[bytes]:
    ids = [block_id for each in taken for block_id in each.block_ids]
    forget_after = [last + _REMEMBER_US for each in taken for last in each.last_event_us()]
    return set(await tx.hear(ids, forget_after))


def _first_copies(taken: TakenRows, fresh: set[bytes]) -> NDArray[np.intp]:
    """A block that came twice in one poll is counted by its first copy."""
    places = []
    for place, block_id in enumerate(taken.block_ids):
        if block_id in fresh:
            fresh.discard(block_id)
            places.append(place)
    return np.array(places, dtype=np.intp)


def _in_time(
    taken: TakenRows,
    profile: VersionProfile,
    is_new: Mask,
    standing: Standing,
    reached_us: int | None,
    passed_us: NDArray[np.int64],
) -> tuple[NDArray[np.int64], Mask]:
    """Each row's window, and which rows are new and not late; ``passed_us``: one per block."""
    length, starts = profile.length_us, _starts(taken, profile)
    # What the mark has passed is closed, whether or not it was judged by now.
    closed = [standing.closed_until_us] if standing.closed_until_us is not None else []
    if reached_us is not None:
        closed.append(reached_us - reached_us % length)
    of_block = passed_us - passed_us % length
    if closed:
        of_block = np.maximum(of_block, max(closed))
    return starts, is_new & (starts >= of_block[taken.block_of])


def _starts(taken: TakenRows, profile: VersionProfile) -> NDArray[np.int64]:
    return taken.event_times_us - taken.event_times_us % profile.length_us


def _sums_of_all(taken: TakenRows) -> dict[SumKey, Sum]:
    """As if every row were new and in time."""
    if taken.profile is None:
        return {}
    everything = np.ones(len(taken.block_of), dtype=np.bool_)
    return dict(_sums_of(taken, taken.profile, _starts(taken, taken.profile), everything))


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


def _rows_of_segments(taken: TakenRows) -> list[tuple[BlockSegments, int]]:
    """Which rows are in which segments, for when their truth comes, and until when to know it."""
    if not taken.segments:
        return []
    names = tuple(taken.segments)
    masks = np.array([taken.segments[name] for name in names])
    ends = np.searchsorted(taken.block_of, np.arange(len(taken.block_ids)), side="right")
    parts = np.split(masks, ends[:-1], axis=1)
    return [
        (BlockSegments(block_id, names, part), last + _REMEMBER_TRUTH_US)
        for block_id, part, last in zip(taken.block_ids, parts, taken.last_event_us(), strict=True)
        if part.any()
    ]


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
    judged = await tx.losses_until(sorted({each.model_name for each in subjects}))
    return {
        each: max(
            (mark for mark in (judged.get(each.model_name), reached) if mark is not None),
            default=None,
        )
        for each in subjects
    }


async def take_losses(
    blocks: Sequence[BlockOfLosses],
    *,
    tx: Transaction,
    passed_us: Mapping[bytes, int] = _NONE_PASSED,
) -> int:
    """Keeps first truths until the watermark passes them; those that come after it are counted.

    ``passed_us``: per event id which mark stands before it on its partition.
    """
    await tx.share_models(sorted({each.subject.model_name for each in blocks}))
    forget_after = [int(each.known_at_us.max()) + _REMEMBER_US for each in blocks]
    fresh = set(await tx.hear([each.event_id for each in blocks], forget_after))
    subjects = sorted({each.subject for each in blocks})
    standings = await tx.standings(subjects)
    until = await _known_until(subjects, tx)
    tallies: dict[Subject, Counter[str]] = {each: Counter() for each in subjects}
    kept: list[BlockOfLosses] = []
    for each in blocks:
        counts, rows = tallies[each.subject], len(each.losses)
        if each.event_id not in fresh:
            counts["repeated_losses"] += rows
            continue
        fresh.discard(each.event_id)
        if not standings[each.subject].is_watched:
            counts["superseded_losses"] += rows
            continue
        in_time = each.after(until[each.subject]).after(passed_us.get(each.event_id))
        counts["losses"] += len(in_time.losses)
        counts["late_losses"] += rows - len(in_time.losses)
        if len(in_time.losses):
            kept.append(in_time)
    await tx.tally_many(tallies)
    await tx.add_losses(kept)
    return sum(len(each.losses) for each in kept)
