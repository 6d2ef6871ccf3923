"""Packed columns of many blocks as Arrow tables, and back."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat.columns import DTYPES, pack_validity, unpack_validity
from homeostat.events.v1.column_pb2 import Column
from homeostat_ledger.domain.blocks import Block, packed_keys
from homeostat_ledger.domain.errors import Unreadable

INPUT = "i."
CONTEXT = "c."
OUTPUT = "o."
EVENT_TIME = "h.event_time_us"
SCORE = "h.score"
DECISION = "h.decision"
LATENCY = "h.latency_seconds"
CLIENT_KEY = "h.client_key"
KNOWN_AT = "h.known_at_us"
TRUTH = "h.truth"

_MAX_WIDTH = 4096


def check(columns: Iterable[Column], rows: int) -> None:
    """Unreadable where a column's lengths, codes or datatype do not fit ``rows``."""
    for column in columns:
        width = column.width or 1
        if width > _MAX_WIDTH:
            raise Unreadable(f"column {column.name!r} has width {width}, at most {_MAX_WIDTH}")
        itemsize = 4 if column.datatype == "BYTES" else _itemsize(column)
        if len(column.values) != rows * width * itemsize:
            raise Unreadable(f"column {column.name!r} has a length that does not fit its rows")
        if column.validity and len(column.validity) != (rows + 7) // 8:
            raise Unreadable(f"column {column.name!r} has validity that does not fit its rows")
        if column.datatype == "BYTES" and rows:
            codes = np.frombuffer(column.values, dtype="<u4")
            if int(codes.max()) >= len(column.dictionary):
                raise Unreadable(f"column {column.name!r} has a code outside its dictionary")


def _itemsize(column: Column) -> int:
    dtype = DTYPES.get(column.datatype)
    if dtype is None:
        raise Unreadable(f"column {column.name!r} has unknown datatype {column.datatype!r}")
    return dtype.itemsize


def layout(block: Block) -> str:
    """Blocks of one layout fit in one file: same columns, types and widths."""
    digest = hashlib.sha256()
    for prefix, columns in _sections(block):
        for column in columns:
            digest.update(
                f"{prefix}{column.name}\0{column.datatype}\0{column.width or 1}\n".encode()
            )
    has = (block.latencies_seconds, block.client_keys, block.truths)
    digest.update(bytes(each is not None for each in has))
    return digest.hexdigest()[:32]


def _sections(block: Block) -> tuple[tuple[str, Sequence[Column]], ...]:
    return (INPUT, block.inputs), (CONTEXT, block.contexts), (OUTPUT, block.outputs)


def to_table(blocks: Sequence[Block]) -> pa.Table:
    """Rows of blocks of one layout, one after the other."""
    rows = [block.row_count for block in blocks]
    arrays: dict[str, pa.Array] = {}
    for section, (prefix, columns) in enumerate(_sections(blocks[0])):
        for position, column in enumerate(columns):
            same = [_sections(block)[section][1][position] for block in blocks]
            arrays[prefix + column.name] = to_array(same, rows)
    arrays[EVENT_TIME] = _joined(block.event_times_us for block in blocks)
    arrays[SCORE] = _joined(block.scores for block in blocks)
    arrays[DECISION] = _joined(block.decisions for block in blocks)
    if blocks[0].latencies_seconds is not None:
        arrays[LATENCY] = _joined(_given(block.latencies_seconds) for block in blocks)
    if blocks[0].client_keys is not None:
        keys = b"".join(packed_keys(_given(block.client_keys)) for block in blocks)
        arrays[CLIENT_KEY] = pa.Array.from_buffers(
            pa.binary(16), sum(rows), [None, pa.py_buffer(keys)]
        )
    if blocks[0].truths is not None:
        arrays[KNOWN_AT] = _joined(_given(block.known_at_us) for block in blocks)
        arrays[TRUTH] = _joined(_given(block.truths) for block in blocks)
    return pa.table(arrays)


def _given(value: NDArray[Any] | None) -> NDArray[Any]:
    assert value is not None  # noqa: S101 - of one layout: present in the first, present in all
    return value


def _joined(arrays: Iterable[NDArray[Any]]) -> pa.Array:
    return pa.array(np.concatenate(list(arrays)))


def to_array(columns: Sequence[Column], rows: Sequence[int]) -> pa.Array:
    """One column of several blocks, strings dictionary-encoded."""
    width = columns[0].width or 1
    bitmap, nulls = _validity(columns, rows)
    if columns[0].datatype == "BYTES":
        return _strings(columns, sum(rows), width, bitmap)
    data = b"".join([column.values for column in columns])
    values = np.frombuffer(data, dtype=DTYPES[columns[0].datatype])
    if width > 1:
        return _fixed_lists(pa.array(values), width, bitmap)
    if columns[0].datatype == "BOOL":
        return pa.array(values, mask=None if bitmap is None else ~_bits(bitmap, sum(rows)))
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(values.dtype), sum(rows), [bitmap, pa.py_buffer(data)], nulls
    )


def _validity(columns: Sequence[Column], rows: Sequence[int]) -> tuple[pa.Buffer | None, int]:
    if not any(column.validity for column in columns):
        return None, 0
    valid = np.concatenate(
        [
            unpack_validity(column.validity, count)
            for column, count in zip(columns, rows, strict=True)
        ]
    )
    return pa.py_buffer(pack_validity(valid)), int((~valid).sum())


def _bits(bitmap: pa.Buffer, rows: int) -> NDArray[np.bool_]:
    return unpack_validity(bitmap.to_pybytes(), rows)


def _strings(
    columns: Sequence[Column], rows: int, width: int, bitmap: pa.Buffer | None
) -> pa.Array:
    index: dict[str, int] = {}
    codes = np.empty(rows * width, dtype=np.int32)
    at = 0
    for column in columns:
        mapping = np.array(
            [index.setdefault(value, len(index)) for value in column.dictionary], dtype=np.int32
        )
        own = np.frombuffer(column.values, dtype="<i4")
        codes[at : at + len(own)] = mapping[own]
        at += len(own)
    dictionary = pa.array(list(index), pa.string())
    flat_bitmap = None if width > 1 else bitmap
    indices = pa.Array.from_buffers(pa.int32(), len(codes), [flat_bitmap, pa.py_buffer(codes)])
    array = pa.DictionaryArray.from_arrays(indices, dictionary)
    # Parquet has no dictionaries within lists.
    return _fixed_lists(array.dictionary_decode(), width, bitmap) if width > 1 else array


def _fixed_lists(values: pa.Array, width: int, bitmap: pa.Buffer | None) -> pa.Array:
    mask = None
    if bitmap is not None:
        mask = pa.array(~_bits(bitmap, len(values) // width))
    return pa.FixedSizeListArray.from_arrays(values, width, mask=mask)


def to_column(name: str, array: pa.Array) -> Column:
    """A packed column of an Arrow array as `to_array` makes them."""
    width, values = 1, array
    if pa.types.is_fixed_size_list(array.type):
        width = array.type.list_size
        values = array.values.slice(array.offset * width, len(array) * width)
    valid = np.asarray(array.is_valid())
    dictionary: list[str] = []
    if pa.types.is_string(values.type):
        values = values.dictionary_encode()
    if pa.types.is_dictionary(values.type):
        datatype = "BYTES"
        packed, dictionary = _used_codes(values)
    else:
        plain = np.asarray(values.fill_null(False if values.type == pa.bool_() else 0))
        datatype = _DATATYPES[plain.dtype]
        packed = plain.tobytes()
    validity = b"" if valid.all() else pack_validity(valid)
    return Column(
        name=name,
        datatype=datatype,
        values=packed,
        validity=validity,
        dictionary=dictionary,
        width=width,
    )


_DATATYPES = {dtype: name for name, dtype in DTYPES.items()}


def _used_codes(values: pa.DictionaryArray) -> tuple[bytes, list[str]]:
    """Codes into the values that are used, in order of first use; nulls take the first."""
    codes = np.asarray(values.indices.fill_null(0))
    used, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    by_use = np.argsort(first)
    rank = np.empty(len(used), dtype="<i4")
    rank[by_use] = np.arange(len(used))
    texts = values.dictionary.take(pa.array(used[by_use])).to_pylist() if len(used) else []
    return rank[inverse].tobytes(), texts
