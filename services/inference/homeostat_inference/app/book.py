"""The open blocks: which rows of a batch go into which block, and when a block is closed."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from homeostat.ids import new_block_id
from homeostat_inference.app.ports import Chain, Clock, Done, Journal, Kind
from homeostat_inference.app.records import pack_mark, pack_seal

# Fewer, larger blocks cost less on the whole way: as records of a broker, as rows of a ledger.
BLOCK_ROWS = 512
BLOCK_AGE_US = 20_000
# Long strings or wide rows end a block early: the broker takes no record beyond 16 MiB.
BLOCK_BYTES = 4 * 1024 * 1024


class Size(NamedTuple):
    """What a request brings to its block: rows, and about how many bytes with their outputs; and
    how many requests bring just that."""

    rows: int
    size_bytes: int
    requests: int = 1


@dataclass(slots=True)
class OpenBlock:
    """A block that takes more rows."""

    block_id: bytes
    opened_at_us: int
    rows: int = 0
    bytes: int = 0
    chain: Chain = field(default_factory=Chain)


class Placed(NamedTuple):
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
        # While it is held no mark is made; held again by who keeps rows meanwhile.
        self.lock = threading.RLock()
        # What the caller promised last: no row that is kept from now on may be earlier.
        self.promised_us: int | None = None

    def keep(self, key: Key, sizes: Sequence[Size], write: Write) -> None:
        """Places requests of these sizes, and journals every slice that ``write`` makes.

        A request's rows stay together; ``key`` says what the rows of one block have in common. Kept
        they are once the journal is committed.
        """
        with self.lock:
            for placed in self._places(key, sizes):
                payload, done = write(placed)
                self._journal.append(Kind.ROWS, payload, done=done, chain=placed.chain)
                if placed.first_row + placed.row_count >= self._block_rows:
                    self._seal(key, placed.row_count)

    def has_older_than(self, opened_before_us: int) -> bool:
        """Whether `seal_older_than` has anything to do."""
        return any(each.opened_at_us <= opened_before_us for each in list(self._open.values()))

    def seal_older_than(self, opened_before_us: int) -> None:
        """Closes blocks opened before that time."""
        with self.lock:
            keys = [k for k, b in self._open.items() if b.opened_at_us <= opened_before_us]
            for key in keys:
                self._seal(key)
        if keys:
            self._journal.commit()

    def mark(self, kind: Kind, mark_us: int, done: Done | None = None) -> None:
        """A promise about everything after it; what was answered before goes out before it."""
        with self.lock:
            for key in list(self._open):
                self._seal(key)
            if kind == Kind.CALLER_MARK:
                self.promised_us = mark_us
            self._journal.append(kind, pack_mark(mark_us), done=done)
        self._journal.commit()

    def commit(self) -> None:
        """Keeps everything that was placed; raises nothing."""
        self._journal.commit()

    @property
    def open_rows(self) -> int:
        """Rows in open blocks."""
        return sum(block.rows for block in list(self._open.values()))

    def _places(self, key: Key, sizes: Sequence[Size]) -> Iterator[Placed]:
        first = at = 0
        left = sizes[0].requests if sizes else 0
        while at < len(sizes):
            block = self._room_for(key, sizes[at])
            after, rows, taken = first, 0, 0
            while at < len(sizes):
                size = sizes[at]
                count = min(left, self._fitting(block, rows, taken, size))
                rows += size.rows * count
                taken += size.size_bytes * count
                after += count
                left -= count
                if left:
                    break
                at += 1
                left = sizes[at].requests if at < len(sizes) else 0
            yield Placed(first, after, block.block_id, block.rows, rows, block.chain)
            block.rows += rows
            block.bytes += taken
            first = after

    def _fitting(self, block: OpenBlock, rows: int, taken: int, size: Size) -> int:
        """How many more such requests the block takes; an empty one takes any."""
        by_rows = (self._block_rows - block.rows - rows) // size.rows
        by_bytes = (BLOCK_BYTES - block.bytes - taken) // max(1, size.size_bytes)
        return max(min(by_rows, by_bytes), 0 if block.rows + rows else 1)

    def _room_for(self, key: Key, size: Size) -> OpenBlock:
        block = self._open.get(key)
        if block is not None:
            if not block.chain.is_broken and self._fitting(block, 0, 0, size):
                return block
            self._seal(key)
        now_us = self._clock.now_us()
        block = OpenBlock(new_block_id(now_us // 1000, self._random(10)), now_us)
        self._open[key] = block
        return block

    def _seal(self, key: Key, just_placed: int = 0) -> None:
        block = self._open.pop(key)
        if not block.rows + just_placed:
            # Its first rows could not be written.
            return
        payload = pack_seal(block.block_id, self._clock.now_us())
        self._journal.append(Kind.SEAL, payload, chain=block.chain, must=True)
