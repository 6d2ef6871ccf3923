"""Merging small files, so that cuts over thousands of polls read few of them."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import groupby

import pyarrow as pa

from homeostat_ledger.app.ports import Archive, ArchiveFile, Index, MergeCandidate

# Files of one size class are merged as soon as there are so many, and there are three classes below
# the largest size: a row is rewritten three or four times, however many polls there are.
_FILES_PER_MERGE = 16
_CLASSES = (2_000, 16_000)
LARGE_ROWS = 128_000


async def compact(*, index: Index, archive: Archive) -> list[str]:
    """Merges what is due; the names of the files that nothing names any longer. Readers may still
    have them open: forget them later."""
    replaced: list[str] = []
    for files in due(await index.merge_candidates(LARGE_ROWS)):
        merged = await asyncio.to_thread(_merge, files, archive)
        await index.replace_files(files, merged)
        replaced += [file.name for file in files]
    return replaced


def due(candidates: Sequence[MergeCandidate]) -> Iterator[list[MergeCandidate]]:
    """Which files to merge, each into one."""
    for _, alike in groupby(candidates, key=lambda file: (file.model_id, file.layout)):
        classes: dict[int, list[MergeCandidate]] = {}
        for file in alike:
            size = sum(file.row_count >= limit for limit in _CLASSES)
            classes.setdefault(size, []).append(file)
        for files in classes.values():
            for chosen in _filled(files):
                if len(chosen) >= _FILES_PER_MERGE or _rows(chosen) >= LARGE_ROWS:
                    yield chosen


def _filled(files: Sequence[MergeCandidate]) -> Iterator[list[MergeCandidate]]:
    """Runs of files up to the largest size."""
    run: list[MergeCandidate] = []
    for file in files:
        if run and _rows(run) + file.row_count > 2 * LARGE_ROWS:
            yield run
            run = []
        run.append(file)
    if len(run) > 1:
        yield run


def _rows(files: Sequence[MergeCandidate]) -> int:
    return sum(file.row_count for file in files)


def _merge(files: Sequence[MergeCandidate], archive: Archive) -> ArchiveFile:
    tables = [archive.whole(file.name) for file in files]
    return archive.write(pa.concat_tables(tables).unify_dictionaries().combine_chunks())
