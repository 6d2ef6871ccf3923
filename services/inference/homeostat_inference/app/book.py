"""The open blocks: which rows of a batch go into which block, and when a block is closed."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from homeostat.ids import new_block_id
from homeostat_inference.app.ports import Chain, Clock, Done, Journal, Kind
from homeostat_inference.app.records import pack_mark, pack_seal

BLOCK_ROWS = 200
BLOCK_AGE_US = 20_000


@dataclass(slots=True)
class OpenBlock:
    """A block that takes more rows."""

    block_id: bytes
    opened_at_us: int
    rows: int = 0
    chain: Chain = field(default_factory=Chain)


@dataclass(frozen=True, slots=True)
class Placed:
    """Requests ``first`` up to ``after`` of a batch stand in a block from ``first_row`` on."""

    first: int
    after: int
    block_id: bytes
    first_row: int
    row_count: int
    chain: Chain


Key = tuple[object, ...]
Write = Callable[[Placed], tuple[bytes, Done]]


class BlockBook:
    """Gives rows their places and puts slices, seals and marks into the journal in one order."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        random: Callable[[int], bytes] = os.urandom,
        block_rows: int = BLOCK_ROWS,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._random = random
        self._block_rows = block_rows
        self._open: dict[Key, OpenBlock] = {}
        self._lock = threading.Lock()

    def keep(self, key: Key, rows: Sequence[int], write: Write) -> None:
        """Places requests of so many rows each, and journals every slice that ``write`` makes.

        A request's rows stay together; ``key`` says what the rows of one block have in common.
        """
        with self._lock:
            for placed in self._places(key, rows):
                payload, done = write(placed)
                self._journal.append(Kind.ROWS, payload, done=done, chain=placed.chain)
                if placed.first_row + placed.row_count >= self._block_rows:
                    self._seal(key)

    def seal_older_than(self, opened_before_us: int) -> None:
        """Closes blocks opened before that time."""
        with self._lock:
            for key in [k for k, b in self._open.items() if b.opened_at_us <= opened_before_us]:
                self._seal(key)

    def mark(self, kind: Kind, mark_us: int, done: Done | None = None) -> None:
        """A promise about everything after it; what was answered before goes out before it."""
        with self._lock:
            for key in list(self._open):
                self._seal(key)
            self._journal.append(kind, pack_mark(mark_us), done=done)

    @property
    def open_rows(self) -> int:
        """Rows in open blocks."""
        return sum(block.rows for block in list(self._open.values()))

    def _places(self, key: Key, rows: Sequence[int]) -> Iterator[Placed]:
        first = 0
        while first < len(rows):
            block = self._room_for(key, rows[first])
            after, count = first, 0
            while after < len(rows) and (
                block.rows + count + rows[after] <= self._block_rows
                or (block.rows == 0 and count == 0)
            ):
                count += rows[after]
                after += 1
            yield Placed(first, after, block.block_id, block.rows, count, block.chain)
            block.rows += count
            first = after

    def _room_for(self, key: Key, rows: int) -> OpenBlock:
        block = self._open.get(key)
        if block is not None and not (
            block.chain.is_broken or block.rows + rows > self._block_rows
        ):
            return block
        if block is not None:
            self._seal(key)
        now_us = self._clock.now_us()
        block = OpenBlock(new_block_id(now_us // 1000, self._random(10)), now_us)
        self._open[key] = block
        return block

    def _seal(self, key: Key) -> None:
        block = self._open.pop(key)
        payload = pack_seal(block.block_id, self._clock.now_us())
        self._journal.append(Kind.SEAL, payload, must=True)
