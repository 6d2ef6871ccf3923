"""Every call gets its own answer, whatever runs beside it."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.journals import MemoryJournal

from homeostat.client import infer_request, read_answer
from homeostat.events.v1.column_pb2 import TASK_REGRESSION
from homeostat.inference.v2.open_inference_pb2 import ModelInferResponse
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec
from homeostat_inference.app.book import BLOCK_BYTES, BlockBook
from homeostat_inference.app.engine import Engine, Rules
from homeostat_inference.app.ports import Kind
from homeostat_inference.app.serving import NotLoaded, Runner, Served, Table
from homeostat_inference.domain.errors import (
    InferenceError,
    InvalidInput,
    Leaving,
    ModelFailed,
    NotKept,
    Overloaded,
)
from homeostat_inference.domain.schema import schema_of
from homeostat_inference.domain.times import bounds
from homeostat_kit.clock import FixedClock

SIGNATURE = Signature(
    task=TASK_REGRESSION,
    inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1, 1])],
    outputs=[TensorSpec(name="y", datatype="FP32", shape=[-1, 1])],
    score_output="y",
)
WIDTH = 25_000
WIDE = Signature(
    task=TASK_REGRESSION,
    inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1, 1])],
    outputs=[
        TensorSpec(name="y", datatype="FP32", shape=[-1, 1]),
        TensorSpec(name="embedding", datatype="FP32", shape=[-1, WIDTH]),
    ],
    score_output="y",
)
POISON = 666.0


class Doubles:
    """Answers twice its input; can't digest poison."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, inputs: Sequence[Any], options: Any = None) -> list[Any]:
        if (inputs[0] == POISON).any():
            raise RuntimeError("poison")
        self.batches.append(len(inputs[0]))
        return [inputs[0] * 2]


class MemoryCall:
    """Remembers its one answer."""

    def __init__(self, values: list[float], **more: Any) -> None:
        request = infer_request("m", {"x": np.array(values, np.float32)}, **more)
        self.payload: bytes = request.SerializeToString()
        self.received_ns = time.monotonic_ns()
        self.deadline_ns = 0
        self.answers: list[list[float]] = []
        self.errors: list[Exception] = []
        self.is_answered = threading.Event()

    def respond(self, payload: bytes) -> None:
        answer = read_answer(ModelInferResponse.FromString(payload))
        self.answers.append(answer.outputs["y"].reshape(-1).tolist())
        self.is_answered.set()

    def fail(self, error: Exception) -> None:
        self.errors.append(error)
        self.is_answered.set()


class World:
    """An engine over one model."""

    def __init__(
        self,
        *,
        inline_seconds: float = 1.0,
        queue_rows: int = 1000,
        signature: Signature = SIGNATURE,
        rules: Rules | None = None,
    ) -> None:
        clock = FixedClock(1_000_000)
        self.model = Doubles()
        self.journal = MemoryJournal()
        self.fetched: list[NotLoaded] = []
        self.served = Served(
            schema_of("m", 1, signature),
            self.model,
            run_seconds=lambda rows: 0.5,
            inline_seconds=inline_seconds,
            queue_rows=queue_rows,
            queue_bytes=1 << 20,
        )
        table = Table(pinned_versions=1)
        table.swap(self.served)
        self.engine = Engine(
            table=table,
            book=BlockBook(self.journal, clock),
            clock=clock,
            rules=rules or Rules(1 << 20, b"secret", "durable"),
            times=lambda now_us: bounds(now_us, None, 10),
            see=lambda newest_us, now_us: None,
            fetch=lambda call, missing: self.fetched.append(missing),
            log=lambda event, error: None,
        )

    def errors(self, calls: list[MemoryCall]) -> list[type[Exception] | None]:
        assert all(len(each.answers) + len(each.errors) == 1 for each in calls)
        assert self.served.rows_in_hand == 0
        return [type(each.errors[0]) if each.errors else None for each in calls]


def test_what_waits_together_runs_together() -> None:
    world = World()
    calls = [MemoryCall([float(number)] * 2) for number in range(5)]
    world.engine.handle(calls)
    assert world.errors(calls) == [None] * 5
    assert [each.answers[0] for each in calls] == [[2.0 * n] * 2 for n in range(5)]
    assert world.model.batches == [10]


def test_a_request_that_the_model_can_not_digest_fails_alone() -> None:
    world = World()
    calls = [MemoryCall([1.0]), MemoryCall([POISON]), MemoryCall([3.0])]
    world.engine.handle(calls)
    assert world.errors(calls) == [None, ModelFailed, None]
    assert "poison" not in str(calls[1].errors[0])


def test_a_refused_request_is_not_refused_again_when_the_model_fails_on_those_beside_it() -> None:
    world = World()
    for _ in range(3):
        calls = [MemoryCall([np.nan]), MemoryCall([POISON]), MemoryCall([3.0])]
        world.engine.handle(calls)
        assert world.errors(calls) == [InvalidInput, ModelFailed, None]
    assert world.served.admit(1, 1, 2000, 0) == 1000


def test_what_is_released_twice_makes_no_room() -> None:
    served = World().served
    assert served.admit(2, 10, 1, 0) == 1
    assert served.release(2, 10, 1, 0)
    assert not served.release(2, 10, 1, 0)
    assert served.rows_in_hand == 0


def test_bad_values_are_refused_and_spare_those_beside_them() -> None:
    world = World()
    calls = [MemoryCall([1.0]), MemoryCall([1.0, np.nan]), MemoryCall([np.inf]), MemoryCall([4.0])]
    world.engine.handle(calls)
    assert world.errors(calls) == [None, InvalidInput, InvalidInput, None]
    assert "row 1" in str(calls[1].errors[0])
    assert calls[3].answers == [[8.0]]


def test_what_the_journal_refuses_is_not_answered() -> None:
    world = World()
    world.journal.error = NotKept("full")
    calls = [MemoryCall([1.0]), MemoryCall([2.0])]
    world.engine.handle(calls)
    assert world.errors(calls) == [NotKept, NotKept]


@pytest.mark.parametrize("name", ["_prepare", "_sizes", "_payload"])
def test_whoever_can_not_be_kept_for_want_of_memory_is_refused_and_not_in_hand(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*told: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(f"homeostat_inference.app.keeping._Group.{name}", fail)
    world = World()
    calls = [MemoryCall([1.0]), MemoryCall([2.0, 3.0])]
    world.engine.handle(calls)
    assert world.errors(calls) == [MemoryError, MemoryError]


def test_whoever_can_not_be_read_for_want_of_memory_is_refused_and_not_in_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*told: Any) -> None:
        raise MemoryError

    world = World()
    for _ in range(3):
        world.engine.handle([MemoryCall([1.0])])
    assert world.engine.intake.layouts_count == 1
    monkeypatch.setattr("homeostat_inference.app.intake.part_of", fail)
    monkeypatch.setattr("homeostat_inference.domain.layouts.Layout.part", fail)
    calls = [MemoryCall([1.0]), MemoryCall([2.0, 3.0])]
    world.engine.handle(calls)
    assert world.errors(calls) == [MemoryError, MemoryError]


def test_large_outputs_end_a_block_before_it_is_too_large_for_the_broker() -> None:
    world = World(signature=WIDE)
    world.model.run = lambda inputs: [  # type: ignore[method-assign]
        inputs[0],
        np.zeros((len(inputs[0]), WIDTH), np.float32),
    ]
    for _ in range(4):
        calls = [MemoryCall([1.0]) for _ in range(50)]
        world.engine.handle(calls)
        assert world.errors(calls) == [None] * 50
    sizes: dict[bytes, int] = {}
    for block in world.journal.blocks:
        sizes[block.block_id] = sizes.get(block.block_id, 0) + block.ByteSize()
    assert sum(sizes.values()) > 200 * 4 * WIDTH
    assert max(sizes.values()) <= BLOCK_BYTES


def test_rows_in_hand_keep_a_promise_that_is_made_while_they_run() -> None:
    world = World()
    doubles = world.model.run

    def run(inputs: Sequence[Any]) -> list[Any]:
        world.engine.book.mark(Kind.CALLER_MARK, 1_000_005)
        return doubles(inputs)

    world.model.run = run  # type: ignore[method-assign]
    calls = [
        MemoryCall([float(at)], event_times_us=np.array([at]))
        for at in (1_000_009, 1_000_004, 1_000_005)
    ]
    calls.append(MemoryCall([7.0]))
    world.engine.handle(calls)
    assert world.errors(calls) == [None, InvalidInput, None, None]
    assert [each.answers for each in calls[2:]] == [[[2_000_010.0]], [[14.0]]]
    times = [np.frombuffer(each.event_times_us, "<i8").tolist() for each in world.journal.blocks]
    assert times == [[1_000_009, 1_000_005, 1_000_005]]


def test_rows_of_a_version_that_was_swapped_out_are_in_hand_until_they_are_answered() -> None:
    world = World(inline_seconds=0.0)
    table, go_on = world.engine.table, threading.Event()
    doubles = world.model.run

    def run(inputs: Sequence[Any]) -> list[Any]:
        assert go_on.wait(60)
        return doubles(inputs)

    world.model.run = run  # type: ignore[method-assign]
    call = MemoryCall([1.0, 2.0])
    world.engine.handle([call])
    table.drop("m")
    assert (table.rows_in_hand, table.oldest_arrival_us) == (2, 1_000_000)
    go_on.set()
    assert call.is_answered.wait(60)
    assert (table.rows_in_hand, table.oldest_arrival_us) == (0, None)


def test_a_model_that_does_not_answer_row_by_row_fails_and_nothing_is_kept() -> None:
    world = World(signature=WIDE)
    world.model.run = lambda inputs: [  # type: ignore[method-assign]
        inputs[0],
        np.zeros((len(inputs[0]) + 1, WIDTH), np.float32),
    ]
    calls = [MemoryCall([1.0]), MemoryCall([2.0, 3.0])]
    world.engine.handle(calls)
    assert world.errors(calls) == [ModelFailed, ModelFailed]
    assert world.journal.blocks == []


def test_other_context_columns_make_another_block_and_answers_do_not_mix() -> None:
    world = World()
    calls = [
        MemoryCall([float(n)], contexts={f"c{n % 2}": np.array([f"v{n}"], dtype=object)})
        for n in range(6)
    ]
    world.engine.handle(calls)
    assert world.errors(calls) == [None] * 6
    assert [each.answers[0] for each in calls] == [[2.0 * n] for n in range(6)]
    for block in world.journal.blocks:
        (context,) = block.contexts
        numbers = np.frombuffer(block.inputs[0].values, np.float32)
        expected = [f"v{int(number)}" for number in numbers]
        assert [context.dictionary[c] for c in np.frombuffer(context.values, "<i4")] == expected


def test_beyond_the_queue_callers_are_told_to_come_back() -> None:
    world = World(queue_rows=4)
    calls = [MemoryCall([1.0] * 3), MemoryCall([1.0] * 3), MemoryCall([1.0])]
    world.engine.handle(calls)
    assert world.errors(calls) == [None, Overloaded, None]
    large = MemoryCall([1.0] * 9)
    world.engine.handle([large])
    assert world.errors([large]) == [None]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_bytes_come_in_every_call_is_answered_once_and_never_as_our_own_fault(
    data: st.DataObject,
) -> None:
    world = World()
    good, bad = MemoryCall([1.0]), MemoryCall([1.0, 2.0], client_ids=["a", "ü"])
    content = bytearray(bad.payload)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        content = content or bytearray(b"x")
    bad.payload = bytes(content)
    world.engine.handle([bad, good])
    if world.fetched:
        return
    assert good.answers == [[2.0]]
    assert len(bad.answers) + len(bad.errors) == 1
    assert all(isinstance(each, InferenceError) for each in bad.errors)
    assert not any(isinstance(each, ModelFailed) for each in bad.errors)


def test_a_server_that_leaves_takes_nothing_on() -> None:
    world = World()
    world.engine.is_leaving = True
    call = MemoryCall([1.0])
    world.engine.handle([call])
    assert world.errors([call]) == [Leaving]


def test_a_slow_model_runs_in_its_own_thread_and_answers_there_after_it_was_swapped_out() -> None:
    world = World(inline_seconds=0.0)
    first = [MemoryCall([1.0]), MemoryCall([2.0])]
    world.engine.handle(first)
    assert all(each.is_answered.wait(60) for each in first)
    world.served.retire()
    late = MemoryCall([3.0])
    world.engine.handle([late])
    assert late.is_answered.wait(60)
    assert late.answers == [[6.0]]


def test_a_closed_runner_finishes_what_waits() -> None:
    done: list[Any] = []
    world = World()
    runner: Runner[Any] = Runner("test", done.extend, 10)

    class Rows:
        rows = 4

    waiting = [Rows() for _ in range(7)]
    assert runner.submit(waiting)
    runner.close()
    assert not runner.submit([Rows()])
    runner._thread.join(5)
    assert len(done) == 7
    assert world.served.rows_in_hand == 0


def test_a_version_that_is_not_loaded_is_fetched() -> None:
    world = World()
    world.engine.handle([MemoryCall([1.0], version=7)])
    assert [(each.model_name, each.version) for each in world.fetched] == [("m", 7)]


@pytest.mark.parametrize("error", InferenceError.__subclasses__())
def test_every_error_has_a_status(error: type[Exception]) -> None:
    from homeostat_inference.edges.errors import status_of  # noqa: PLC0415

    assert status_of(error("why"))[1] == "why"
    assert status_of(ValueError("secret"))[1] == "internal error"


@pytest.mark.parametrize(
    "rules",
    [
        {"durability": "durable", "sheds_when_full": True},
        {"durability": "sampled", "sample_share": 0.0},
    ],
)
def test_what_is_answered_and_not_kept_is_counted_in_rows(rules: dict[str, Any]) -> None:
    world = World(rules=Rules(1 << 20, b"secret", **rules))
    world.journal.error = NotKept("full")
    calls = [MemoryCall([1.0, 2.0, 3.0]), MemoryCall([4.0] * 5)]
    world.engine.handle(calls)
    assert world.errors(calls) == [None, None]
    assert world.engine.counts.shed + world.engine.counts.sampled_out == 8
