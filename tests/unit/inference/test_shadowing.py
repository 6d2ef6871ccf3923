"""What a shadow makes of a block, and how the shadow process follows a journal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.inference import a_signature

from homeostat.columns import pack, unpack
from homeostat.events.v1.column_pb2 import (
    ARM_CANARY,
    ARM_CHAMPION,
    ARM_FALLBACK,
    ARM_PINNED,
    ARM_SHADOW,
    TASK_BINARY,
)
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import new_block_id
from homeostat_inference.app.plan import ModelPlan, ServingPlan
from homeostat_inference.app.ports import Kind
from homeostat_inference.app.records import pack_mark
from homeostat_inference.app.shadowing import (
    Lag,
    Tail,
    due_versions,
    inputs_of,
    least_promise,
    shadow_block,
    shadow_block_id,
)
from homeostat_inference.app.whole import pack_whole, unpack_whole
from homeostat_inference.domain.batches import present
from homeostat_inference.domain.blocks import timestamp
from homeostat_inference.domain.errors import InvalidInput
from homeostat_inference.domain.schema import schema_of

SCHEMA = schema_of("risk", 2, a_signature())
PLAN = ServingPlan(models={"risk": ModelPlan("risk", 1, champion=1, shadows=(2, 3))})


def a_block(
    number: int = 1,
    *,
    amounts: Sequence[float] = (1.0, float("nan")),
    kinds: Sequence[str] = ("red", ""),
    arm: int = ARM_CHAMPION,
    version: int = 1,
    at_us: int = 1_000_000,
) -> PredictionBlock:
    rows = len(amounts)
    given = {
        "amount": np.array(amounts, np.float32),
        "kind": np.array(kinds, dtype=object),
        "count": np.arange(rows, dtype=np.int64),
    }
    return PredictionBlock(
        model_name="risk",
        version=version,
        arm=arm,  # type: ignore[arg-type]
        task=TASK_BINARY,
        block_id=new_block_id(number, bytes(10)),
        row_count=rows,
        inputs=[pack(name, values, present(values)) for name, values in given.items()],
        contexts=[pack("origin", np.array(["JFK"] * rows, dtype=object))],
        event_times_us=np.arange(rows, dtype="<i8").tobytes(),
        client_keys=bytes(range(16)) * rows,
        scores=np.zeros(rows).tobytes(),
        decisions=np.zeros(rows).tobytes(),
        produced_at=timestamp(at_us),
    )


@dataclass(frozen=True)
class Rec:
    position: int
    kind: int
    payload: bytes


def records(*made: PredictionBlock | int) -> Iterator[Rec]:
    """Blocks, and promises by the clock; one position each."""
    for position, each in enumerate(made):
        if isinstance(each, int):
            yield Rec(position, Kind.CLOCK_MARK, pack_mark(each))
        else:
            yield Rec(position, Kind.BLOCK, pack_whole(each, ""))


def fed(*made: PredictionBlock | int) -> Tail:
    tail = Tail("worker-0", 0)
    tail.feed(records(*made), len(made), lambda each: bool(due_versions(PLAN, each)), _raise)
    return tail


def _raise(error: Exception) -> None:
    raise error


@given(st.binary(min_size=16, max_size=16), st.integers(1, 2**31), st.integers(1, 2**31))
def test_a_shadows_block_has_always_the_same_id_and_no_other_has_it(
    origin: bytes, one: int, other: int
) -> None:
    made = shadow_block_id(origin, one)
    assert made == shadow_block_id(origin, one)
    assert made[:6] == origin[:6]
    assert (made[6] >> 4, made[8] >> 6) == (7, 2)
    assert (made == shadow_block_id(origin, other)) == (one == other)


@given(
    st.lists(
        st.tuples(
            st.floats(width=32, allow_infinity=False) | st.just(float("nan")),
            st.sampled_from(["", "red", "grün", "x" * 300]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_a_shadow_is_given_what_the_champion_was_given_nulls_among_it(
    rows: list[tuple[float, str]],
) -> None:
    amounts, kinds = [each[0] for each in rows], [each[1] for each in rows]
    amount, kind, count = inputs_of(SCHEMA, a_block(amounts=amounts, kinds=kinds))
    np.testing.assert_array_equal(amount, np.array(amounts, np.float32).reshape(-1, 1))
    assert kind.tolist() == [[each] for each in kinds]
    assert count.tolist() == [[each] for each in range(len(rows))]


def test_a_shadows_block_repeats_its_origin_row_by_row() -> None:
    origin = a_block()
    outputs: list[Any] = [np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)]
    made = shadow_block(SCHEMA, origin, outputs, run_seconds=0.5, produced_at_us=7)
    assert (made.version, made.arm, made.row_count) == (2, ARM_SHADOW, 2)
    assert made.origin_block_id == origin.block_id
    assert made.block_id == shadow_block_id(origin.block_id, 2)
    for name in ("inputs", "contexts", "event_times_us", "client_keys"):
        assert getattr(made, name) == getattr(origin, name)
    assert np.frombuffer(made.decisions).tolist() == [0.0, 1.0]
    np.testing.assert_allclose(np.frombuffer(made.scores), [0.1, 0.8], rtol=1e-6)
    assert unpack(made.outputs[0], 2)[0].tolist() == [0, 1]
    assert unpack_whole(pack_whole(made, "00-trace")).block() == made


def test_a_shadow_that_does_not_answer_row_by_row_makes_no_block() -> None:
    outputs: list[Any] = [np.array([0]), np.array([[0.9, 0.1]], np.float32)]
    with pytest.raises(ValueError, match=r"2 rows"):
        shadow_block(SCHEMA, a_block(), outputs, run_seconds=0.5, produced_at_us=7)


def test_a_shadow_that_takes_other_inputs_says_which() -> None:
    other = a_block()
    other.inputs[0].datatype = "FP64"
    with pytest.raises(InvalidInput, match=r"'amount'.*expected 1 FP32.*got 1 FP64"):
        inputs_of(SCHEMA, other)
    del other.inputs[0]
    with pytest.raises(InvalidInput, match=r"'amount'.*got none"):
        inputs_of(SCHEMA, other)


@pytest.mark.parametrize(
    ("arm", "version", "expected"),
    [
        (ARM_CHAMPION, 1, (2, 3)),
        (ARM_FALLBACK, 2, (3,)),
        (ARM_CANARY, 3, ()),
        (ARM_PINNED, 1, ()),
        (ARM_SHADOW, 2, ()),
    ],
)
def test_what_clients_were_answered_with_is_repeated(
    arm: int, version: int, expected: tuple[int, ...]
) -> None:
    assert due_versions(PLAN, a_block(arm=arm, version=version)) == expected


def test_blocks_and_promises_take_their_turn_in_the_journals_order() -> None:
    tail = fed(a_block(1), 10, a_block(2), 20)
    assert (tail.floor, tail.rows) == (0, 4)
    assert tail.pass_mark() is None
    tail.drop_first()
    assert tail.promised_us is None
    assert tail.pass_mark() is not None
    assert (tail.promised_us, tail.floor, tail.rows) == (10, 2, 2)
    assert tail.first is not None
    tail.drop_first()
    assert tail.pass_mark() is not None
    assert (tail.promised_us, tail.floor, tail.is_empty) == (20, 4, True)


def test_what_nobody_repeats_does_not_wait() -> None:
    tail = fed(a_block(1, arm=ARM_CANARY), a_block(2, arm=ARM_PINNED))
    assert (tail.is_empty, tail.floor) == (True, 2)


def test_a_damaged_record_takes_nothing_else_with_it() -> None:
    errors: list[Exception] = []
    tail = Tail("worker-0", 0)
    damaged = [Rec(0, Kind.BLOCK, b"\xff"), Rec(1, Kind.BLOCK, pack_whole(a_block(2), ""))]
    tail.feed(damaged, 2, lambda each: True, errors.append)
    assert len(errors) == 1
    assert tail.rows == 2


def test_what_is_too_old_or_too_much_is_given_up() -> None:
    tail = fed(a_block(1, at_us=1_000_000))
    assert tail.first is not None
    lag = Lag(us=5_000_000, rows=2)
    assert not lag.is_over([tail], tail.first, 6_000_000)
    assert lag.is_over([tail], tail.first, 6_000_001)
    assert Lag(rows=1).is_over([tail], tail.first, 1_000_000)
    assert Lag(bytes=1).is_full([tail])


def test_nothing_is_promised_that_one_journal_has_not() -> None:
    one, other = fed(10), fed()
    one.pass_mark()
    assert least_promise([one, other]) is None
    other.promise(7)
    assert least_promise([one, other]) == 7
    other.promise(5)
    assert least_promise([one, other]) == 7
    assert least_promise([]) is None
