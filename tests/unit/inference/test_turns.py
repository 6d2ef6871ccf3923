"""Versions take turns, batches follow their policy, and every answer says what became of it."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from tests.support.journals import MemoryJournal
from tests.support.waiting import PATIENCE_SECONDS

from homeostat.client import infer_request
from homeostat.events.v1.column_pb2 import TASK_REGRESSION
from homeostat.inference.v2.open_inference_pb2 import ModelInferResponse
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec
from homeostat_inference.app.book import BlockBook
from homeostat_inference.app.engine import Engine
from homeostat_inference.app.intake import Rules
from homeostat_inference.app.plan import BatchingPlan, ModelPlan, QuarantinePlan, ServingPlan
from homeostat_inference.app.serving import Served, Table
from homeostat_inference.domain.errors import (
    DeadlineExceeded,
    ModelFailed,
    NotKept,
    Overloaded,
    Quarantined,
)
from homeostat_inference.domain.schema import Schema, schema_of
from homeostat_inference.domain.times import bounds
from homeostat_inference.edges.lane import Lane
from homeostat_kit.clock import FixedClock

SIGNATURE = Signature(
    task=TASK_REGRESSION,
    inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1, 1])],
    outputs=[TensorSpec(name="y", datatype="FP32", shape=[-1, 1])],
    score_output="y",
    request_id_is_client_id=True,
)


@dataclass
class Clock:
    """Moves when a model runs."""

    now_ns: int = 1


@dataclass
class Doubles:
    """Answers twice its input, after some time if so told."""

    name: str
    runs: list[tuple[str, int]]
    clock: "Clock"
    seconds: float = 0.0
    error: Exception | None = None

    def run(self, inputs: Sequence[Any], options: Any = None) -> list[Any]:
        self.runs.append((self.name, len(inputs[0])))
        self.clock.now_ns += int(self.seconds * 1e9)
        if self.error is not None:
            raise self.error
        return [inputs[0] * 2]


class Call:
    """Remembers its one answer."""

    def __init__(self, model: str, value: float = 1.0, *, rows: int = 1, id: str = "") -> None:
        request = infer_request(model, {"x": np.full(rows, value, np.float32)})
        request.id = id
        self.payload = request.SerializeToString()
        self.received_ns = time.monotonic_ns()
        self.deadline_ns = 0
        self.answers: list[ModelInferResponse] = []
        self.errors: list[Exception] = []

    def respond(self, payload: bytes) -> None:
        self.answers.append(ModelInferResponse.FromString(payload))

    def fail(self, error: Exception) -> None:
        self.errors.append(error)

    @property
    def told(self) -> dict[str, Any]:
        """The parameters of its answer."""
        (answer,) = self.answers
        return {
            name: getattr(each, str(each.WhichOneof("parameter_choice")))
            for name, each in answer.parameters.items()
        }

    @property
    def error(self) -> Exception:
        """Why it has no answer."""
        (error,) = self.errors
        return error


@dataclass
class Watch:
    """Holds back rows of one value, and knows which runs it has ended."""

    held: float = 0.0
    is_overdue: bool = False
    options: Any = None
    rows: list[int] = field(default_factory=list)
    deadlines_ns: list[int] = field(default_factory=list)

    def enter(self, schema: Schema, deadline_ns: int, arrays: Sequence[Any], rows: int) -> "Watch":
        self.rows.append(rows)
        self.deadlines_ns.append(deadline_ns)
        return self

    def exit(self, run: "Watch") -> None:
        pass

    def held_back(
        self, schema: Schema, arrays: Sequence[Any], fingerprints: frozenset[str]
    ) -> list[int]:
        assert fingerprints == {"aa"}
        return [int(row) for row in np.flatnonzero(arrays[0][:, 0] == self.held)]


class World:
    """An engine over models a and b."""

    def __init__(
        self,
        plan: ServingPlan | None = None,
        watch: Watch | None = None,
        queue_rows: int = 1000,
        inline_seconds: float = 1.0,
        **rules: Any,
    ) -> None:
        self.runs: list[tuple[str, int]] = []
        self.clock = Clock()
        self.models = {name: Doubles(name, self.runs, self.clock) for name in ("a", "b")}
        served = {
            (name, 1): Served(
                schema_of(name, 1, SIGNATURE),
                model,
                run_seconds=lambda rows: rows * 1e-3,
                inline_seconds=inline_seconds,
                queue_rows=queue_rows,
                queue_bytes=1 << 30,
            )
            for name, model in self.models.items()
        }
        table = Table()
        models = {name: ModelPlan(name, 1, champion=1) for name in self.models}
        table.apply(plan or ServingPlan(1, MappingProxyType(models)), served)
        self.table = table
        self.journal = MemoryJournal()
        clock = FixedClock(1_000_000)
        self.engine = Engine(
            table=table,
            book=BlockBook(self.journal, clock),
            clock=clock,
            rules=Rules(1 << 20, b"secret", rules.pop("durability", "durable"), **rules),
            times=lambda now_us: bounds(now_us, None, 10),
            see=lambda newest_us, now_us: None,
            fetch=lambda call, missing: call.fail(missing),
            log=lambda event, error: None,
            watch=watch,
            now_ns=lambda: self.clock.now_ns,
        )

    def finish(self) -> None:
        """Works until nothing waits."""
        while self.table.rows_in_hand:
            self.engine.work()


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)


def a_plan(policy: BatchingPlan, **more: Any) -> ServingPlan:
    models = {
        "a": ModelPlan("a", 1, champion=1, batching=policy),
        "b": ModelPlan("b", 1, champion=1),
    }
    return ServingPlan(1, MappingProxyType(models), **more)


def test_what_was_taken_in_several_turns_runs_at_once() -> None:
    world = World()
    calls = [Call("a", float(number)) for number in range(5)]
    for call in calls:
        world.engine.take([call])
    assert world.engine.patience_ms(200) == 0
    world.engine.work()
    assert world.runs == [("a", 5)]
    assert [call.told["homeostat_batch_rows"] for call in calls] == [5] * 5
    assert world.engine.patience_ms(200) == 200


def test_a_flood_on_one_model_leaves_the_other_its_turn() -> None:
    world = World()
    for model in world.models.values():
        model.seconds = 2e-3
    world.engine.take([Call("a", rows=50) for _ in range(20)])
    late = [Call("b") for _ in range(3)]
    for call in late:
        world.engine.take([call])
        before = len(world.runs)
        while not call.answers:
            world.engine.work()
        # At most one run of the other comes first.
        assert len(world.runs) - before <= 2
    assert world.table.rows_in_hand >= 1000 - 3 * 50
    assert max(rows for name, rows in world.runs) <= 50
    world.finish()


def test_the_time_of_runs_is_shared_not_their_number() -> None:
    world = World()
    world.models["a"].seconds = 8e-3
    world.models["b"].seconds = 1e-3
    calls = [Call(name, rows=2) for name in "ab" for _ in range(40)]
    world.engine.take(calls)
    for _ in range(16):
        world.engine.work()
    runs = [name for name, _ in world.runs]
    assert runs.count("b") > 2 * runs.count("a")
    world.finish()


def test_a_policy_bounds_a_run_and_prefers_sizes() -> None:
    world = World(a_plan(BatchingPlan(max_rows=6, preferred_rows=(2, 4))))
    calls = [Call("a") for _ in range(7)]
    world.engine.take(calls)
    world.finish()
    assert world.runs == [("a", 4), ("a", 2), ("a", 1)]
    assert calls[-1].told["homeostat_batch_why"] == "alone"
    assert "homeostat_batch_why" not in calls[0].told


@pytest.mark.parametrize("inline_seconds", [1.0, 0.0])
def test_a_policy_bounds_runs_in_other_threads_too(inline_seconds: float) -> None:
    world = World(
        a_plan(BatchingPlan(max_rows=6, preferred_rows=(2, 4))), inline_seconds=inline_seconds
    )
    calls = [Call("a") for _ in range(7)]
    world.engine.handle(calls)
    wait_until(lambda: all(each.answers for each in calls))
    assert world.runs == [("a", 4), ("a", 2), ("a", 1)]


@pytest.mark.parametrize("inline_seconds", [1.0, 0.0])
def test_under_a_flood_no_run_is_expected_to_come_near_the_limit(inline_seconds: float) -> None:
    # A row takes 1 ms.
    world = World(run_limit_seconds=0.04, inline_seconds=inline_seconds)
    calls = [Call("a") for _ in range(50)]
    world.engine.take(calls)
    while not all(each.answers for each in calls):
        world.engine.work()
    assert max(rows for _, rows in world.runs) == 8
    assert world.engine.counts.overdue == 0


async def test_calls_that_wait_on_the_event_loop_take_turns_and_follow_the_policy() -> None:
    world = World(a_plan(BatchingPlan(max_rows=3, max_delay_seconds=60.0)))
    lane = Lane(world.engine.another_way(), "test")
    payload = Call("a").payload
    answers = [lane.ask(payload, 30.0) for _ in range(6)]
    for each in answers:
        ModelInferResponse.FromString(await each)
    assert world.runs == [("a", 3), ("a", 3)]
    assert await lane.ask(Call("b").payload, 30.0)
    await lane.close()


def test_a_policy_that_waits_is_given_its_time_and_no_more() -> None:
    world = World(a_plan(BatchingPlan(max_rows=3, max_delay_seconds=30.0)))
    calls = [Call("a") for _ in range(2)]
    world.engine.take(calls)
    world.engine.work()
    assert world.runs == []
    assert world.engine.patience_ms(200) == 200
    other = Call("b")
    world.engine.take([other])
    world.engine.work()
    assert other.answers
    world.engine.take([Call("a")])
    world.engine.work()
    assert world.runs == [("b", 1), ("a", 3)]


def test_who_runs_alone_is_told_why() -> None:
    world = World(a_plan(BatchingPlan(max_rows=4)))
    calls = [Call("a", rows=5), Call("a", rows=4)]
    world.engine.take(calls)
    world.finish()
    assert [each.told["homeostat_batch_why"] for each in calls] == ["rows over the limit", "alone"]


def test_versions_under_suspicion_run_one_request_at_a_time() -> None:
    world = World(a_plan(BatchingPlan(), suspects=(("a", 1),)))
    calls = [Call("a", rows=2) for _ in range(3)]
    world.engine.take(calls)
    world.finish()
    assert world.runs == [("a", 2)] * 3
    assert {each.told["homeostat_batch_why"] for each in calls} == {"suspect"}


def test_rows_that_ended_processes_are_held_back_and_those_beside_them_are_answered() -> None:
    quarantine = QuarantinePlan("a", 1, "crashed", ("aa",))
    watch = Watch(held=666.0)
    world = World(a_plan(BatchingPlan(), quarantines=(quarantine,)), watch)
    calls = [Call("a", 1.0), Call("a", 666.0), Call("a", 3.0)]
    world.engine.take(calls)
    world.finish()
    assert isinstance(calls[1].error, Quarantined)
    assert [np.frombuffer(calls[at].answers[0].raw_output_contents[0], "f4") for at in (0, 2)] == [
        2.0,
        6.0,
    ]
    assert watch.rows == [2]


def test_what_waited_too_long_is_not_run() -> None:
    world = World(request_timeout_seconds=3600.0)
    early, late = Call("a"), Call("a")
    early.deadline_ns = time.monotonic_ns() - 1
    world.engine.take([early, late])
    world.finish()
    assert isinstance(early.error, DeadlineExceeded)
    assert late.answers
    assert world.runs == [("a", 1)]
    assert world.engine.counts.overdue == 1


def test_one_call_of_many_that_came_together_may_have_waited_too_long() -> None:
    world = World(request_timeout_seconds=3600.0)
    for _ in range(2):
        world.engine.handle([Call("a")])
    calls = [Call("a") for _ in range(4)]
    calls[2].deadline_ns = time.monotonic_ns() - 1
    world.engine.take(calls)
    world.finish()
    assert isinstance(calls[2].error, DeadlineExceeded)
    assert all(call.answers for call in (calls[0], calls[1], calls[3]))


def test_a_run_lasts_as_long_as_anybody_waits_for_it() -> None:
    watch = Watch()
    world = World(watch=watch, request_timeout_seconds=3600.0)
    for _ in range(3):
        calls = [Call("a") for _ in range(4)]
        calls[1].deadline_ns = calls[1].received_ns + 60_000_000_000
        world.engine.take(calls)
        world.finish()
        assert watch.deadlines_ns[-1] == max(each.received_ns for each in calls) + 3600 * 10**9


def test_a_run_that_was_ended_is_late_and_is_not_tried_again() -> None:
    world = World(watch=Watch(is_overdue=True))
    world.models["a"].error = RuntimeError("terminated")
    calls = [Call("a"), Call("a")]
    world.engine.take(calls)
    world.finish()
    assert [type(each.error) for each in calls] == [DeadlineExceeded] * 2
    assert len(world.runs) == 1
    world = World(watch=Watch())
    world.models["a"].error = RuntimeError("broken")
    calls = [Call("a"), Call("a")]
    world.engine.take(calls)
    world.finish()
    assert [type(each.error) for each in calls] == [ModelFailed] * 2


def test_after_an_endless_run_requests_run_apart_for_a_while() -> None:
    watch = Watch(is_overdue=True)
    world = World(watch=watch)
    model = world.models["a"]
    model.error, model.seconds = RuntimeError("terminated"), 0.02
    first = [Call("a"), Call("a")]
    world.engine.take(first)
    world.finish()
    assert [type(each.error) for each in first] == [DeadlineExceeded] * 2
    model.error, model.seconds = None, 0.0
    calls = [Call("a") for _ in range(3)]
    world.engine.take(calls)
    world.finish()
    assert world.runs == [("a", 2), ("a", 1), ("a", 1), ("a", 1)]
    assert {each.told["homeostat_batch_why"] for each in calls} == {"suspect"}
    after_ns = time.monotonic_ns() + 61 * 10**9
    world.engine.now_ns = lambda: after_ns
    world.engine.handle([Call("a"), Call("a")])
    assert world.runs[-1] == ("a", 2)


def test_an_impatient_caller_makes_no_version_suspect() -> None:
    world = World(watch=Watch(is_overdue=True))
    world.models["a"].error = RuntimeError("terminated")
    calls = [Call("a", rows=500), Call("a")]
    world.engine.take(calls)
    world.finish()
    world.models["a"].error = None
    world.engine.handle([Call("a"), Call("a")])
    assert world.runs == [("a", 501), ("a", 2)]


def test_the_time_that_requests_wait_is_counted() -> None:
    world = World()
    calls = [Call("a"), Call("a")]
    for call in calls:
        call.received_ns -= 10**9
    world.engine.take(calls)
    world.finish()
    assert 2.0 <= world.engine.counts.queue_seconds < 60
    assert world.table.champions["a"].tally.queue_ns >= 2 * 10**9


def test_who_is_turned_away_is_told_when_to_come_back() -> None:
    world = World(queue_rows=10)
    for _ in range(2):
        world.engine.handle([Call("a")])
    calls = [Call("a") for _ in range(14)]
    world.engine.take(calls)
    assert [len(each.errors) for each in calls] == [0] * 10 + [1] * 4
    error = calls[-1].error
    assert isinstance(error, Overloaded)
    assert error.retry_after_seconds == pytest.approx(0.01)
    world.finish()
    assert all(each.answers for each in calls[:10])


def test_a_full_journal_refuses_or_if_so_told_answers_without_keeping() -> None:
    world = World()
    world.journal.error = NotKept("full")
    refused = Call("a")
    world.engine.handle([refused])
    assert isinstance(refused.error, NotKept)
    world = World(sheds_when_full=True)
    world.journal.error = NotKept("full")
    calls = [Call("a", 1.0, id="first"), Call("a", 2.0)]
    world.engine.handle(calls)
    for number, call in enumerate(calls, 1):
        assert call.told["homeostat_durability"] == "none"
        assert call.told["homeostat_logged"] is False
        assert "prediction_id" not in call.told
        assert np.frombuffer(call.answers[0].raw_output_contents[0], "f4") == [2.0 * number]
    assert calls[0].answers[0].id == "first"
    assert world.engine.counts.shed == 2


def test_a_sample_keeps_its_share_of_the_clients_and_always_the_same_ones() -> None:
    world = World(durability="sampled", sample_share=0.3)
    kept: list[set[str]] = []
    for _ in range(3):
        calls = [Call("a", float(n), id=f"client-{n:03d}") for n in range(200)]
        world.engine.take(calls)
        world.finish()
        assert {call.told["homeostat_durability"] for call in calls} == {"sampled"}
        kept.append({call.answers[0].id for call in calls if "prediction_id" in call.told})
        values = [float(np.frombuffer(c.answers[0].raw_output_contents[0], "f4")[0]) for c in calls]
        assert values == [2.0 * n for n in range(200)]
        assert all(
            call.told.get("homeostat_logged", True) is (c_id in kept[-1])
            for call, c_id in ((call, call.answers[0].id) for call in calls)
        )
    assert kept[0] == kept[1] == kept[2]
    assert 30 < len(kept[0]) < 90
    assert sum(each.row_count for each in world.journal.blocks) == 3 * len(kept[0])
    assert world.engine.counts.sampled_out == 3 * (200 - len(kept[0]))
