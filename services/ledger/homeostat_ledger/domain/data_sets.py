"""A data set: chosen rows in an order that their content decides, and the hash of that content."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from homeostat.checksum import mix
from homeostat_ledger.domain.blocks import Floats, Micros
from homeostat_ledger.domain.columns import CONTEXT, INPUT
from homeostat_ledger.domain.errors import IncompatibleColumns

EVENT_TIME = "homeostat.event_time_us"
KNOWN_AT = "homeostat.known_at_us"
FIRST_KNOWN_AT = "homeostat.first_known_at_us"
TRUTH = "homeostat.truth"
_NULL = np.uint64(0x6E756C6C6E756C6C)
Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one file of the archive with the truth that held at the cut."""

    table: pa.Table
    rows: NDArray[np.int64]
    event_times_us: Micros
    known_at_us: Micros
    first_known_at_us: Micros
    truths: Floats

    def only(self, chosen: NDArray[np.intp]) -> "Piece":
        """Some of its rows."""
        return Piece(
            self.table,
            self.rows[chosen],
            self.event_times_us[chosen],
            self.known_at_us[chosen],
            self.first_known_at_us[chosen],
            self.truths[chosen],
        )


def no_rows() -> pa.Table:
    """A data set without rows has no features either."""
    return pa.table(
        {
            EVENT_TIME: pa.array([], pa.int64()),
            KNOWN_AT: pa.array([], pa.int64()),
            FIRST_KNOWN_AT: pa.array([], pa.int64()),
            TRUTH: pa.array([], pa.float64()),
        }
    )


def assemble(pieces: Sequence[Piece], newest_rows: int | None) -> pa.Table:
    """Rows by (known-at, event time, content), only the last ``newest_rows`` of them.

    The same rows give the same table, whatever blocks and files they came in. A context column that
    clients sent with different datatypes is left out: no model is trained on it.
    Raises IncompatibleColumns where an input is of different datatypes.
    """
    table = features_together([piece.table.take(pa.array(piece.rows)) for piece in pieces])
    event_times = np.concatenate([piece.event_times_us for piece in pieces])
    known_at = np.concatenate([piece.known_at_us for piece in pieces])
    first_known_at = np.concatenate([piece.first_known_at_us for piece in pieces])
    table = (
        table.append_column(EVENT_TIME, pa.array(event_times))
        .append_column(KNOWN_AT, pa.array(known_at))
        .append_column(FIRST_KNOWN_AT, pa.array(first_known_at))
        .append_column(TRUTH, pa.array(np.concatenate([piece.truths for piece in pieces])))
    )
    order = np.lexsort((row_hashes(table), event_times, known_at))
    if newest_rows is not None:
        order = order[max(0, len(order) - newest_rows) :]
    return canonical(table.take(pa.array(order)))


def features_together(tables: Sequence[pa.Table]) -> pa.Table:
    """Inputs by their names, then "context.<name>", of rows that came in several files.

    Raises IncompatibleColumns where an input is of different datatypes.
    """
    table = _together([_features(each) for each in tables]).unify_dictionaries().combine_chunks()
    table = table.select(sorted(table.column_names, key=lambda name: (name[:2] == CONTEXT, name)))
    return table.rename_columns([_public(name) for name in table.column_names])


def _together(tables: Sequence[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException:
        torn = _torn_contexts(tables)
    try:
        return pa.concat_tables(
            [table.drop_columns([n for n in table.column_names if n in torn]) for table in tables],
            promote_options="permissive",
        )
    except pa.ArrowException as error:
        raise IncompatibleColumns(
            f"rows of several versions don't fit together: {error}"
        ) from error


def _torn_contexts(tables: Sequence[pa.Table]) -> set[str]:
    types: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            if field.name[:2] == CONTEXT:
                types.setdefault(field.name, set()).add(field.type)
    return {name for name, seen in types.items() if len(seen) > 1}


def _features(table: pa.Table) -> pa.Table:
    return table.select([name for name in table.column_names if name[:2] in (INPUT, CONTEXT)])


def _public(name: str) -> str:
    return name[2:] if name[:2] == INPUT else f"context.{name[2:]}"


def canonical(table: pa.Table) -> pa.Table:
    """Dictionaries hold the used values only, sorted."""
    columns = []
    for column in table.columns:
        array = column.combine_chunks()
        array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
        columns.append(_sorted_dictionary(array) if pa.types.is_dictionary(array.type) else array)
    return pa.table(columns, names=table.column_names)


def _sorted_dictionary(array: pa.DictionaryArray) -> pa.DictionaryArray:
    used = pc.unique(array.indices.drop_null())
    values = array.dictionary.take(used)
    by_text = pc.sort_indices(values)
    rank = np.zeros(len(array.dictionary) + 1, dtype=np.int32)
    rank[np.asarray(used)[np.asarray(by_text)]] = np.arange(len(used), dtype=np.int32)
    codes = rank[np.asarray(array.indices.fill_null(len(array.dictionary)))]
    mask = np.asarray(array.is_null()) if array.null_count else None
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=mask), values.take(by_text))


def row_hashes(table: pa.Table) -> Words:
    """64 bits of each row's content: names, values, nulls; codes of dictionaries don't count."""
    chain = np.zeros(table.num_rows, dtype=np.uint64)
    for name, column in zip(table.column_names, table.columns, strict=True):
        chain = chain ^ np.uint64(_text_word(name))
        for words in _words(column.combine_chunks()):
            chain = mix(chain ^ words)
    return chain


def _words(column: Any) -> Sequence[Words]:
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) and column.num_chunks else column
    if not len(array):
        return []
    if pa.types.is_fixed_size_list(array.type):
        width = array.type.list_size
        flat = _words(array.values.slice(array.offset * width, len(array) * width))[0]
        wide = flat.reshape(-1, width)
        return [_nulled(wide[:, each], array) for each in range(width)]
    if pa.types.is_dictionary(array.type):
        texts = array.dictionary.to_pylist()
        words = np.array([*map(_text_word, texts), 0], dtype=np.uint64)
        return [_nulled(words[np.asarray(array.indices.fill_null(len(texts)))], array)]
    if pa.types.is_string(array.type):
        return _words(array.dictionary_encode())
    return [_nulled(_number_words(array), array)]


def _number_words(array: pa.Array) -> Words:
    values = np.asarray(array.fill_null(False if array.type == pa.bool_() else 0))
    if values.dtype.kind == "f":
        wide = values.astype(np.float64) + 0.0
        wide[np.isnan(wide)] = np.nan
        return wide.view(np.uint64)
    if values.dtype.kind == "u":
        return values.astype(np.uint64)
    return values.astype(np.int64).view(np.uint64)


def _nulled(words: Words, array: pa.Array) -> Words:
    return np.where(np.asarray(array.is_null()), _NULL, words) if array.null_count else words


def _text_word(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def content_sha256(table: pa.Table) -> str:
    """Of the rows in order: the same rows repeat it in any installation."""
    digest = hashlib.sha256(str(table.num_rows).encode())
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(f"\0{name}\0{column.type}\0".encode())
        for words in _words(column.combine_chunks()):
            digest.update(np.ascontiguousarray(words, dtype="<u8").data)
    return digest.hexdigest()
