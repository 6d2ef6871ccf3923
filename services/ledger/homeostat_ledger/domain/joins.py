"""From settled truth to the blocks that subscribers read, and to the checksum."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat import checksum
from homeostat.events.v1.column_pb2 import Column
from homeostat_ledger.domain.blocks import Floats, Micros, StoredBlock
from homeostat_ledger.domain.columns import to_array, to_column
from homeostat_ledger.domain.truths import Settled, Truths

MAX_JOINED_ROWS = 1000
_REGRESSION = 3
_PREDICTION_ID = np.dtype([("block", "V16"), ("row", "<u4")])
_CLIENT_ROW = np.uint64(2**32)


@dataclass(frozen=True, slots=True)
class Joined:
    """News of one model, version and arm: at most MAX_JOINED_ROWS rows by (known-at, event time,
    id)."""

    model_name: str
    version: int
    arm: int
    task: int
    # 20 bytes each.
    prediction_ids: bytes
    event_times_us: Micros
    known_at_us: Micros
    scores: Floats
    decisions: Floats
    truths: Floats
    losses: Floats
    revisions: NDArray[np.uint32]
    previous: Floats
    contexts: Sequence[Column]

    @property
    def content_key(self) -> bytes:
        """The same news has the same key."""
        digest = hashlib.sha256(self.prediction_ids)
        for column in (self.truths, self.known_at_us, self.revisions):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.digest()


class Touched:
    """The blocks that truths speak of, their rows as one run of columns."""

    def __init__(self, blocks: Mapping[int, StoredBlock]) -> None:
        self.blocks = [blocks[number] for number in sorted(blocks)]
        counts = [block.row_count for block in self.blocks]
        self._numbers = np.array([block.number for block in self.blocks], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def block_of(self, truths: Truths) -> NDArray[np.intp]:
        """Index into ``blocks`` per truth."""
        return np.searchsorted(self._numbers, truths["block"])

    def at(self, truths: Truths) -> NDArray[np.int64]:
        """Index into the run per truth."""
        at: NDArray[np.int64] = self._starts[self.block_of(truths)] + truths["row"]
        return at

    def column(self, name: str) -> NDArray[Any]:
        """One of a block's arrays, over all blocks."""
        return np.concatenate([getattr(block, name) for block in self.blocks])

    def of_block(self, name: str) -> NDArray[Any]:
        """One of a block's numbers, per block."""
        return np.array([getattr(block, name) for block in self.blocks])

    def ids(self) -> NDArray[np.void]:
        """Per block; 16 bytes whatever they end with."""
        packed = b"".join(block.block_id for block in self.blocks)
        return np.frombuffer(packed, dtype="V16")

    def subjects(
        self, truths: Truths
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
        """What the checksum names a prediction by: halves of a key, and a row."""
        of = self.block_of(truths)
        ids = self.ids().view("<u8").reshape(-1, 2)[of]
        keys = np.concatenate(
            [
                np.zeros((block.row_count, 2), dtype=np.uint64)
                if block.client_keys is None
                else block.client_keys
                for block in self.blocks
            ]
        )[self.at(truths)]
        has_key = np.asarray(keys.any(axis=1))
        named = np.where(has_key[:, None], keys, ids)
        rows = np.where(has_key, _CLIENT_ROW, truths["row"].astype(np.uint64))
        return named[:, 0], named[:, 1], rows


def checksum_change(settled: Settled, touched: Touched) -> int:
    """What to add to the checksum, modulo 2^64."""
    now, before = (
        checksum.total(
            checksum.hashes(*touched.subjects(truths), truths["truth"], truths["known_at_us"])
        )
        if len(truths)
        else 0
        for truths in (settled.held_now, settled.held_before)
    )
    return (now - before) % 2**64


def joined_blocks(model_name: str, settled: Settled, touched: Touched) -> Iterator[Joined]:
    """The news as blocks, the same for the same news."""
    news = settled.news
    if not len(news):
        return
    of = touched.block_of(news)
    kinds = {block.number: _kind(block) for block in touched.blocks}
    distinct = sorted(set(kinds.values()))
    kind_of = np.array([distinct.index(kinds[block.number]) for block in touched.blocks])[of]
    for kind in range(len(distinct)):
        chosen = np.flatnonzero(kind_of == kind)
        if len(chosen):
            yield from _of_kind(model_name, news[chosen], settled.previous[chosen], touched)


Kind = tuple[int, int, int, tuple[tuple[str, str, int], ...]]


def _kind(block: StoredBlock) -> Kind:
    contexts = tuple((each.name, each.datatype, each.width or 1) for each in block.contexts)
    return block.version, block.arm, block.task, contexts


def _of_kind(model_name: str, news: Truths, previous: Floats, touched: Touched) -> Iterator[Joined]:
    named = set(np.unique(news["block"]).tolist())
    own = Touched({block.number: block for block in touched.blocks if block.number in named})
    at, ids = own.at(news), own.ids()[own.block_of(news)]
    event_times, scores = own.column("event_times_us")[at], own.column("scores")[at]
    decisions, contexts = own.column("decisions")[at], _contexts(own)
    order = _news_order(news, ids, event_times)
    first = own.blocks[0]
    for start in range(0, len(order), MAX_JOINED_ROWS):
        rows = order[start : start + MAX_JOINED_ROWS]
        truths = news["truth"][rows]
        yield Joined(
            model_name=model_name,
            version=first.version,
            arm=first.arm,
            task=first.task,
            prediction_ids=_packed_ids(ids[rows], news["row"][rows]),
            event_times_us=event_times[rows],
            known_at_us=news["known_at_us"][rows],
            scores=scores[rows],
            decisions=decisions[rows],
            truths=truths,
            losses=losses(first.task, decisions[rows], truths),
            revisions=news["revision"][rows].astype(np.uint32),
            previous=previous[rows],
            contexts=[to_column(name, array.take(pa.array(at[rows]))) for name, array in contexts],
        )


def _news_order(news: Truths, ids: NDArray[Any], event_times: Micros) -> NDArray[np.intp]:
    """(known-at, event time, prediction id), then revisions as they follow."""
    high = ids.view(">u8").reshape(-1, 2)
    return np.lexsort(
        (news["revision"], news["row"], high[:, 1], high[:, 0], event_times, news["known_at_us"])
    )


def losses(task: int, decisions: Floats, truths: Floats) -> Floats:
    """0 or 1 for classes, the squared error for values."""
    if task == _REGRESSION:
        return np.square(np.subtract(decisions, truths, dtype=np.float64))
    return np.not_equal(decisions, truths).astype(np.float64)


def _contexts(own: Touched) -> list[tuple[str, pa.Array]]:
    rows = [block.row_count for block in own.blocks]
    return [
        (each.name, to_array([block.contexts[position] for block in own.blocks], rows))
        for position, each in enumerate(own.blocks[0].contexts)
    ]


def _packed_ids(ids: NDArray[Any], rows: NDArray[Any]) -> bytes:
    packed = np.empty(len(ids), dtype=_PREDICTION_ID)
    packed["block"], packed["row"] = ids, rows
    return packed.tobytes()
