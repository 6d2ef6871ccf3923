"""Which files are merged."""

import itertools

from homeostat_ledger.app.compact import LARGE_ROWS, due
from homeostat_ledger.app.ports import MergeCandidate

ids = itertools.count(1)


def files(count: int, rows: int, *, model: int = 1, layout: str = "a") -> list[MergeCandidate]:
    return [
        MergeCandidate(number, model, layout, f"{number}.parquet", rows)
        for number in itertools.islice(ids, count)
    ]


def test_sixteen_small_files_are_merged_and_fifteen_are_not() -> None:
    assert not list(due(files(15, 100)))
    (merged,) = due(files(16, 100))
    assert len(merged) == 16


def test_files_of_other_models_layouts_and_sizes_stay_apart() -> None:
    candidates = [
        *files(15, 100),
        *files(15, 100, layout="b"),
        *files(15, 100, model=2),
        *files(15, 5_000, model=3),
        *files(15, 100, model=3),
    ]
    assert not list(due(candidates))


def test_a_row_is_rewritten_a_few_times_however_many_polls_there_are() -> None:
    sizes = [100] * 5_000
    rewritten = 0
    stored: list[MergeCandidate] = []
    for size in sizes:
        stored += files(1, size)
        for merged in due([file for file in stored if file.row_count < LARGE_ROWS]):
            rows = sum(file.row_count for file in merged)
            rewritten += rows
            stored = [file for file in stored if file not in merged] + files(1, rows)
    assert rewritten <= 4 * sum(sizes)
    assert len(stored) < 60
