"""The store's plans and files."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from homeostat.columns import pack
from homeostat.events.v1.column_pb2 import Column
from homeostat_kit.postgres import Connection, migrate, open_pool
from homeostat_ledger.archive.files import ParquetArchive
from homeostat_ledger.domain.columns import to_array, to_column
from homeostat_ledger.domain.data_sets import row_hashes
from homeostat_ledger.store.copying import copy_in, copy_out
from homeostat_ledger.store.index import INDEX_SCANS
from homeostat_ledger.store.memory import SQL

KEYED = {
    "rows_of_clients": ("1, '{1}', '{1}'", "client_row_by_key"),
    "truths_of_siblings": ("1, '{1}', '{1}'", "truth_of_prediction"),
    "parked_of_clients": ("1, '{1}', '{1}'", "parked_by_key"),
    "parked_of_blocks": ("1, '{1}', '{1}', '{1}'", "parked_by_key"),
    "truths_of_rows": ("'{1}', '{1}'", "truth_of_prediction"),
    "least_of_newest": ("1, 1, 1, '{1}', 1, 1", "truth_by_known_at"),
    "known_blocks": ("'{}'", "prediction_block_block_id_key"),
    "shadows_of_blocks": ("1, '{}'", "prediction_block_of_origin"),
    "truths_of_origins": ("1, '{}', '{1}'", "truth_of_prediction"),
    "set_aside_blocks": ("'{}'", "set_aside_block_pkey"),
}
TYPES = {
    "truths_of_rows": "bigint[], int[]",
    "least_of_newest": "int, bigint, bigint, smallint[], bigint, bigint",
    "known_blocks": "bytea[]",
    "shadows_of_blocks": "int, bytea[]",
    "truths_of_origins": "int, bytea[], int[]",
    "set_aside_blocks": "bytea[]",
    "parked_of_blocks": "int, bigint[], bigint[], bigint[]",
}


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[Connection]:
    pool = await open_pool(postgres_url, max_size=2)
    await migrate(pool, "homeostat_ledger")
    async with pool.acquire() as connection:
        yield connection
    await pool.close()


@pytest.mark.parametrize("name", KEYED)
async def test_what_is_asked_per_key_is_answered_by_an_index(
    connection: Connection, name: str
) -> None:
    values, index = KEYED[name]
    async with connection.transaction():
        await connection.execute(INDEX_SCANS)
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        types = TYPES.get(name, "int, bigint[], bigint[]")
        await connection.execute(f"PREPARE asked ({types}) AS {SQL[name]}")
        plan = await connection.fetch(f"EXPLAIN EXECUTE asked({values})")
        await connection.execute("DEALLOCATE asked")
    text = "\n".join(row[0] for row in plan)
    assert index in text
    assert "Seq Scan" not in text


async def test_what_is_copied_in_is_copied_out(connection: Connection) -> None:
    columns = {
        "a": np.array([2**63 + 5, 0], dtype="u8"),
        "b": np.array([-(2**63), 7], dtype="i8"),
        "c": np.array([1.5, -0.0]),
        "d": np.array([True, False]),
        "e": np.array([2**32 - 1, 3], dtype="u4"),
        "f": np.array([-3, 4], dtype="i2"),
    }
    await connection.execute(
        "CREATE TEMP TABLE t (a bigint, b bigint, c double precision, d boolean, e bigint,"
        " f smallint)"
    )
    await copy_in(connection, "t", columns)
    kinds = {name: values.dtype.str[1:] for name, values in columns.items()}
    rows = await copy_out(connection, "SELECT a, b, c, d, e, f FROM t", kinds)
    for name, values in columns.items():
        assert rows[name].tolist() == values.tolist()


def every_type() -> dict[str, Column]:
    rows = 3
    columns = {
        f"{kind}-{width}": pack(
            f"{kind}-{width}",
            np.arange(rows * width).astype(kind).reshape((rows, width) if width > 1 else rows),
            np.array([True, False, True]),
        )
        for kind in ("?", "i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8")
        for width in (1, 2)
    }
    for width in (1, 2):
        texts = np.array([f"t{each % 2}" for each in range(rows * width)], dtype=object)
        shaped = texts.reshape((rows, width) if width > 1 else rows)
        columns[f"text-{width}"] = pack(f"text-{width}", shaped, np.array([True, False, True]))
    return columns


@pytest.mark.parametrize("name", every_type())
def test_every_type_survives_the_file(tmp_path: Path, name: str) -> None:
    column = every_type()[name]
    table = pa.table({f"i.{name}": to_array([column, column], [3, 3])})
    archive = ParquetArchive(tmp_path, cache_bytes=0)
    file = archive.write(table)
    back = archive.features(file.name)[f"i.{name}"].combine_chunks()
    back = back.chunk(0) if isinstance(back, pa.ChunkedArray) else back
    assert back.to_pylist() == table[f"i.{name}"].to_pylist()
    assert to_array([to_column(name, back)], [6]).to_pylist() == back.to_pylist()
    merged = pa.concat_tables([archive.whole(file.name)] * 2).unify_dictionaries()
    again = archive.write(merged.combine_chunks())
    assert archive.features(again.name)[f"i.{name}"].to_pylist() == back.to_pylist() * 2
    twice = row_hashes(archive.features(again.name))
    assert twice[:3].tolist() == twice[3:6].tolist() == row_hashes(table)[:3].tolist()


def test_only_files_that_nothing_names_are_cleaned(tmp_path: Path) -> None:
    archive = ParquetArchive(tmp_path, cache_bytes=10_000)
    kept, stray = (archive.write(pa.table({"i.x": [1.0]})) for _ in range(2))
    assert archive.clean([kept.name]) == 1
    assert archive.whole(kept.name).num_rows == 1
    with pytest.raises(FileNotFoundError):
        archive.whole(stray.name)
