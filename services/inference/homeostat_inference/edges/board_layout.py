"""How a board is laid out: a head of 64-bit words, an area per version, an area per run."""

import enum

MAGIC = 0x6472_616F_6268
VERSION = 1
WORD = 8

# Runs that are watched at once; more than that many threads run unseen.
RUN_AREAS = 16
RUN_WORDS = 16
NAME_BYTES = 1024
LAYOUT_BYTES = 32 * 1024
# Larger batches are not kept: who crashed is then known by version only.
DATA_BYTES = 256 * 1024
RUN_BYTES = RUN_WORDS * WORD + NAME_BYTES + LAYOUT_BYTES + DATA_BYTES

# Versions that are counted one by one.
MODEL_AREAS = 64
# Batch rows 1, 2, 4 ... 4096 and more.
BATCH_BUCKETS = 14
MODEL_WORDS = 8 + BATCH_BUCKETS
MODEL_BYTES = MODEL_WORDS * WORD + NAME_BYTES

HEAD_WORDS = 128
MODELS_AT = HEAD_WORDS * WORD
RUNS_AT = MODELS_AT + MODEL_AREAS * MODEL_BYTES
BOARD_BYTES = RUNS_AT + RUN_AREAS * RUN_BYTES


class Word(enum.IntEnum):
    """Words of the head."""

    MAGIC = 0
    VERSION = 1
    SIZE = 2
    # Written by the keeper. The oldest position that the journal still needs, for its quota.
    JOURNAL_START = 8
    # 1 while the relay sleeps until it is woken.
    IS_RELAY_IDLE = 9
    # Written by the worker. 0 until it has opened its journal.
    IS_WRITING = 16
    COMMITTED_END = 17
    HEARTBEAT_NS = 18
    PROCESS_ID = 19
    REQUESTS = 24
    ROWS = 25
    REFUSED = 26
    FAILED = 27
    RUNS = 28
    RUN_NS = 29
    BATCH_ROWS_MAX = 30
    ROWS_IN_HAND = 31
    FETCHING = 32
    JOURNAL_RECORDS = 33
    JOURNAL_GROUPS = 34
    JOURNAL_REFUSED = 35
    JOURNAL_UNSETTLED = 36
    LAST_MARK_US = 37
    LOADS = 38
    QUEUE_NS = 39
    SAMPLED_OUT = 40
    SHED = 41
    OVERDUE = 42
    HELD_BACK = 43
    IS_REFUSING = 44
    # Files of the journal given up because they could not be written any longer.
    DISK_ERRORS = 45
    # Written by the shadow process: rows that a shadow was to repeat and did not.
    SHADOW_SKIPPED_ROWS = 46
    # Left unfinished by the life before, and cut.
    JOURNAL_CUT_BYTES = 47


class RunWord(enum.IntEnum):
    """Words of a run's area."""

    STATE = 0
    STARTED_NS = 1
    DEADLINE_NS = 2
    ROWS = 3
    VERSION = 4
    NAME_BYTES = 5
    LAYOUT_BYTES = 6
    # 0 if the rows were too large to be kept.
    DATA_BYTES = 7
    # Rises with each run, so that a reader sees that it read two.
    SEQUENCE = 8


IDLE, RUNNING = 0, 1


def run_at(area: int) -> int:
    """Where a run's area begins, in bytes."""
    return RUNS_AT + area * RUN_BYTES


def model_at(area: int) -> int:
    """Where a version's area begins, in bytes."""
    return MODELS_AT + area * MODEL_BYTES
