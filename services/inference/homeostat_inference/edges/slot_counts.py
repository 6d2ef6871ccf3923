"""What the workers of one slot have counted on its board, over all their lives."""

from collections import Counter

from homeostat_inference.edges.board import Board, ModelCounts
from homeostat_inference.edges.board_layout import BATCH_BUCKETS, Word

# Counters that go on from one life to the next.
COUNTERS = (
    Word.REQUESTS,
    Word.ROWS,
    Word.REFUSED,
    Word.FAILED,
    Word.RUNS,
    Word.RUN_NS,
    Word.JOURNAL_RECORDS,
    Word.JOURNAL_GROUPS,
    Word.JOURNAL_REFUSED,
    Word.LOADS,
    Word.QUEUE_NS,
    Word.SAMPLED_OUT,
    Word.SHED,
    Word.OVERDUE,
    Word.HELD_BACK,
    Word.DISK_ERRORS,
    Word.SHADOW_SKIPPED_ROWS,
    Word.JOURNAL_CUT_BYTES,
)


class SlotCounts:
    """The board has those of the present life; the rest is remembered here."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._totals: Counter[Word] = Counter()
        self._models: dict[tuple[str, int], ModelCounts] = {}

    def of(self, word: Word) -> int:
        """A counter over all lives."""
        return self._totals[word] + self._board.get(word)

    def models(self) -> dict[tuple[str, int], ModelCounts]:
        """What each version has run, over all lives."""
        found = dict(self._models)
        for each in self._board.models():
            key = (each.model_name, each.version)
            found[key] = _sum(found[key], each) if key in found else each
        return found

    def begin_life(self) -> None:
        """Remembers what the board has, and clears it."""
        for word in COUNTERS:
            self._totals[word] += self._board.get(word)
        self._models = self.models()
        self._board.begin_life()


def _sum(one: ModelCounts, other: ModelCounts) -> ModelCounts:
    return ModelCounts(
        one.model_name,
        one.version,
        one.runs + other.runs,
        one.rows + other.rows,
        one.run_seconds + other.run_seconds,
        tuple(one.batch_rows[at] + other.batch_rows[at] for at in range(BATCH_BUCKETS)),
    )
