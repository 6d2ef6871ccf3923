"""The order of the past does not depend on how blocks come, and little of it is held."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from homeostat_ledger.archive.answers import portions
from homeostat_ledger.domain.past import HEAD, ROW, Sweep, chunks, in_order

BLOCKS = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6), min_size=1, max_size=8)


def a_block(number: int, times: list[int]) -> np.ndarray:
    rows = np.zeros(len(times), dtype=ROW)
    rows["event_time_us"], rows["low"], rows["row"] = times, number, np.arange(len(times))
    return rows


@given(BLOCKS, st.integers(1, 5), st.integers(0, 3), st.integers(1, 9))
def test_portions_are_the_sorted_rows(
    blocks: list[list[int]], portion_rows: int, skip: int, least_rows: int
) -> None:
    rows = [a_block(number, times) for number, times in enumerate(blocks)]
    heads = np.array(
        [(number, min(times), max(times), len(times)) for number, times in enumerate(blocks)], HEAD
    )
    heads = heads[np.argsort(heads["min_event_us"], kind="stable")]
    parts = list(chunks(heads, least_rows, 3))
    assert sum(len(part) for part in parts) == len(heads)
    sweep, found = Sweep(portion_rows, skip), []
    for place, part in enumerate(parts, start=1):
        final = None if place == len(parts) else int(parts[place]["min_event_us"][0])
        found += list(sweep.add(np.concatenate([rows[n] for n in part["block_number"]]), final))
    expected = in_order(np.concatenate(rows))[skip:]
    assert np.concatenate([np.empty(0, ROW), *found]).tolist() == expected.tolist()
    assert [len(each) for each in found[:-1]] == [portion_rows] * (len(found) - 1)


def test_a_portion_that_no_message_holds_comes_in_several_files() -> None:
    random = np.random.default_rng(1)
    table = pa.table({f"x{each}": random.random(20_000) for each in range(40)})
    files = portions(table)
    assert len(files) > 1
    assert max(map(len, files)) < 4 * 1024 * 1024
    read = [pq.read_table(io.BytesIO(each)) for each in files]
    assert pa.concat_tables(read).combine_chunks().equals(table)
