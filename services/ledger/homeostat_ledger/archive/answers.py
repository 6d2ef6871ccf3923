"""Tables as the Parquet files that callers are sent."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

# A client with a message limit of 4 MiB can read every portion.
_PORTION_BYTES = 3 * 1024 * 1024


def portions(table: pa.Table) -> list[bytes]:
    """One Parquet file, or several where it would be too large for a message."""
    content = to_parquet(table)
    if len(content) <= _PORTION_BYTES or table.num_rows == 1:
        return [content]
    half = table.num_rows // 2
    return portions(table.slice(0, half)) + portions(table.slice(half))


def to_parquet(table: pa.Table) -> bytes:
    """One file."""
    sink = io.BytesIO()
    strings = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=strings,
        write_statistics=False,
    )
    return sink.getvalue()
