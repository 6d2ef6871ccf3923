"""The board tells, after a death too, what ran; and overdue runs are told to end."""

import os
import time
from dataclasses import dataclass

import numpy as np
import pytest

from homeostat.events.v1.column_pb2 import TASK_BINARY
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec
from homeostat_inference.domain.fingerprints import fingerprints, layout_of, packed
from homeostat_inference.domain.schema import Schema, schema_of
from homeostat_inference.edges.board import Board
from homeostat_inference.edges.board_layout import Word
from homeostat_inference.edges.board_runs import BoardRuns

SIGNATURE = Signature(
    task=TASK_BINARY,
    inputs=[
        TensorSpec(name="amount", datatype="FP32", shape=[-1, 2]),
        TensorSpec(name="kind", datatype="BYTES", shape=[-1, 1]),
    ],
    outputs=[TensorSpec(name="p", datatype="FP32", shape=[-1, 2])],
    classes=["no", "yes"],
    score_output="p",
)
LATER = 1 << 62


@dataclass
class Options:
    terminate: bool = False


@pytest.fixture
def board() -> Board:
    return Board.create("test")


@pytest.fixture
def runs(board: Board) -> BoardRuns:
    return BoardRuns(board, Options, limit_ns=10**12)


def a_schema(version: int = 3) -> Schema:
    return schema_of("risk", version, SIGNATURE)


def rows(*amounts: float) -> list[np.ndarray]:
    amount = np.array([[each, each] for each in amounts], np.float32)
    kind = np.array([[f"k{each}"] for each in amounts], dtype=object)
    return [amount, kind]


def test_what_runs_is_seen_through_another_mapping_and_gone_when_it_ends(
    board: Board, runs: BoardRuns
) -> None:
    other = Board.open(os.dup(board.descriptor))
    assert other.running() == []
    run = runs.enter(a_schema(), LATER, rows(1, 2), 2)
    (seen,) = other.running()
    assert (seen.model_name, seen.version, seen.rows) == ("risk", 3, 2)
    layout = layout_of(a_schema())
    assert other.fingerprints(seen) == fingerprints(layout, 2, packed(layout, rows(1, 2)))
    runs.exit(run)
    assert other.running() == []


def test_a_row_has_the_same_name_alone_and_among_others() -> None:
    layout = layout_of(a_schema())
    many = fingerprints(layout, 3, packed(layout, rows(1, 2, 3)))
    alone = [fingerprints(layout, 1, packed(layout, rows(each)))[0] for each in (1, 2, 3)]
    assert many == alone
    assert len(set(many)) == 3


def test_damaged_rows_have_no_names() -> None:
    layout = layout_of(a_schema())
    data = packed(layout, rows(1, 2))
    assert fingerprints(layout, 2, data[:-1]) == []
    assert fingerprints(layout, 3, data) == []


def test_a_zero_byte_in_a_text_does_not_hide_a_row() -> None:
    layout = layout_of(a_schema())
    arrays = rows(1)
    arrays[1][0, 0] = "a\0b"
    assert len(fingerprints(layout, 1, packed(layout, arrays))) == 1


def test_held_back_rows_are_found(runs: BoardRuns) -> None:
    layout = layout_of(a_schema())
    held = frozenset(fingerprints(layout, 1, packed(layout, rows(2))))
    assert runs.held_back(a_schema(), rows(1, 2, 3, 2), held) == [1, 3]


def test_rows_that_do_not_fit_are_not_kept_but_the_run_is_seen(
    board: Board, runs: BoardRuns
) -> None:
    run = runs.enter(a_schema(), LATER, rows(*range(30_000)), 30_000)
    (seen,) = board.running()
    assert seen.rows == 30_000
    assert board.fingerprints(seen) == []
    runs.exit(run)


def test_a_run_beyond_its_deadline_is_told_to_end_and_the_next_is_not(runs: BoardRuns) -> None:
    run = runs.enter(a_schema(), 5, rows(1), 1)
    assert runs.end_overdue(5) == 0
    assert runs.end_overdue(6) == 1
    assert run.is_overdue and run.options.terminate
    assert runs.end_overdue(7) == 0
    runs.exit(run)
    again = runs.enter(a_schema(), LATER, rows(1), 1)
    assert not again.is_overdue
    assert not again.options.terminate


def test_a_callers_deadline_ends_a_run_and_does_not_make_the_keeper_end_the_process(
    board: Board,
) -> None:
    runs = BoardRuns(board, Options, limit_ns=10**9)
    run = runs.enter(a_schema(), time.monotonic_ns() + 1, rows(1), 1)
    (seen,) = board.running()
    assert seen.deadline_ns - seen.started_ns == 10**9
    assert runs.end_overdue(time.monotonic_ns() + 10) == 1
    runs.exit(run)


def test_more_runs_than_areas_go_on_unseen(board: Board, runs: BoardRuns) -> None:
    entered = [runs.enter(a_schema(), LATER, rows(1), 1) for _ in range(20)]
    assert len(board.running()) == 16
    for run in entered:
        runs.exit(run)
    assert board.running() == []
    assert len({id(runs.enter(a_schema(), LATER, rows(1), 1)) for _ in range(16)}) == 16


def test_versions_are_counted_one_by_one(board: Board, runs: BoardRuns) -> None:
    for version, count in ((1, 1), (2, 3), (1, 70)):
        runs.exit(runs.enter(a_schema(version), LATER, rows(*range(count)), count))
    found = {each.version: (each.runs, each.rows) for each in board.models()}
    assert found == {1: (2, 71), 2: (1, 3)}


def test_loading_is_a_run_without_rows(board: Board, runs: BoardRuns) -> None:
    with runs.loading(a_schema(), 60):
        (seen,) = board.running()
        assert seen.rows == 0
    assert not board.running()
    assert not any(each.runs for each in board.models())


def test_a_new_life_remembers_nothing_but_where_the_journal_starts(
    board: Board, runs: BoardRuns
) -> None:
    runs.enter(a_schema(), LATER, rows(1), 1)
    board.set(Word.ROWS, 5)
    board.set(Word.IS_WRITING, 1)
    board.set(Word.JOURNAL_START, 7)
    board.begin_life()
    assert board.running() == [] and board.models() == []
    assert board.get(Word.ROWS) == 0
    assert board.committed_end is None
    assert board.get(Word.JOURNAL_START) == 7


def test_a_file_that_is_no_board_is_not_taken_for_one() -> None:
    descriptor = os.memfd_create("none")
    os.ftruncate(descriptor, 16 << 20)
    with pytest.raises(ValueError, match="expected a board"):
        Board.open(descriptor)
