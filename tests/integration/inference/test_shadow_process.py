"""The shadow process on journals that a test writes, with a test in the place of the keeper."""

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.support.inference import MODEL, a_model, a_signature
from tests.support.waiting import PATIENCE_SECONDS, eventually

from homeostat.columns import pack
from homeostat.events.v1.column_pb2 import ARM_CHAMPION, ARM_SHADOW, TASK_BINARY
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import new_block_id
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec, Version
from homeostat_inference.app.plan import ModelPlan, QuarantinePlan, ServingPlan
from homeostat_inference.app.ports import Kind
from homeostat_inference.app.records import pack_mark, unpack_mark
from homeostat_inference.app.shadowing import shadow_block_id
from homeostat_inference.app.whole import pack_whole, unpack_whole
from homeostat_inference.domain.blocks import timestamp
from homeostat_inference.edges.board import Board
from homeostat_inference.edges.board_layout import Word
from homeostat_inference.edges.control import Applied, Control, Failed, Leave, Message, TellPlan
from homeostat_inference.edges.journal_reader import JournalReader
from homeostat_inference.edges.journal_writer import JournalWriter
from homeostat_inference.edges.shadow_positions import load_positions, positions_file
from homeostat_inference.edges.versions import VersionCache

PROCESS = """
import sys
from pathlib import Path
import onnxruntime
from homeostat_inference.settings import InferenceSettings
from homeostat_inference.shadow import run_shadow
settings = InferenceSettings(
    data_folder=Path(sys.argv[1]), run_limit_seconds=1.0, shadow_lag_seconds=60.0
)
raise SystemExit(run_shadow(settings, {"role": "shadow"}, [int(each) for each in sys.argv[2:]]))
"""
PLAN = ServingPlan(models={MODEL: ModelPlan(MODEL, 1, champion=1, shadows=(2,))})


@dataclass
class World:
    """One worker's journal, and the shadow process beside it."""

    folder: Path
    board: Board = field(default_factory=lambda: Board.create("shadow"))
    worker_board: Board = field(default_factory=lambda: Board.create("worker-0"))
    bell: int = field(default_factory=lambda: os.eventfd(0))
    process: "subprocess.Popen[bytes] | None" = None
    control: Control | None = None
    heard: list[Message] = field(default_factory=list)
    hearing: "asyncio.Task[None] | None" = None
    written: list[PredictionBlock] = field(default_factory=list)

    def writer(self) -> JournalWriter:
        """The worker's journal."""
        return JournalWriter(
            self.folder / "worker-0" / "journal",
            segment_bytes=1 << 20,
            quota_bytes=1 << 30,
            is_durable=False,
            on_commit=lambda end: self.worker_board.set(Word.COMMITTED_END, end),
        )

    async def start(self, plan: ServingPlan = PLAN) -> None:
        ours, theirs = socket.socketpair()
        self.board.begin_life()
        passed = [theirs.fileno(), self.board.descriptor, self.bell, self.worker_board.descriptor]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - it is watched by its effects
                [sys.executable, "-c", PROCESS, str(self.folder), *map(str, passed)],
                pass_fds=passed,
                stdout=log,
                stderr=log,
            )
        theirs.close()
        self.control = await Control.over(ours)
        self.hearing = asyncio.create_task(self.hear(self.control))
        self.tell(plan)
        await self.until(lambda: self.board.committed_end is not None, "the shadow begins")

    async def hear(self, control: Control) -> None:
        while (message := await control.receive()) is not None:
            self.heard.append(message)

    def tell(self, plan: ServingPlan) -> None:
        assert self.control is not None
        self.control.send(TellPlan(plan.to_json()))

    async def until(self, is_so: Callable[[], bool], what: str) -> None:
        async def condition() -> bool:
            assert self.process is None or self.process.poll() is None, self.log()
            return is_so()

        await eventually(condition, what=what)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def write(
        self, journal: JournalWriter, count: int, *, age_us: int = 0, marks: bool = True
    ) -> None:
        """So many blocks of three rows, each followed by a promise."""
        for _ in range(count):
            block = a_block(len(self.written), age_us)
            self.written.append(block)
            journal.append(Kind.BLOCK, pack_whole(block, ""))
            if marks:
                journal.append(Kind.CLOCK_MARK, pack_mark(len(self.written)))
        journal.commit()

    def made(self) -> tuple[list[PredictionBlock], list[int]]:
        """Blocks and promises in the shadow's journal."""
        reader = JournalReader(self.folder / "shadow" / "journal", lambda: self.board.committed_end)
        blocks, marks = [], []
        position = reader.start
        while (chunk := reader.read(position, 1 << 20)).after != position:
            for record in chunk.records:
                if record.kind == Kind.BLOCK:
                    blocks.append(unpack_whole(record.payload).block())
                elif record.kind in (Kind.CLOCK_MARK, Kind.CALLER_MARK):
                    marks.append(unpack_mark(record.payload))
            position = chunk.after
        return blocks, marks

    async def caught_up(self) -> None:
        """Nothing is left to be read, and the keeper can see it."""
        end = self.worker_board.get(Word.COMMITTED_END)

        def has_all() -> bool:
            at = load_positions(positions_file(self.folder)).get("worker-0")
            return at is not None and at.floor == end

        await self.until(has_all, "the shadow has read everything")

    async def until_dead(self) -> None:
        """A signal ended it."""
        assert self.process is not None
        assert await asyncio.to_thread(self.process.wait, PATIENCE_SECONDS) == -signal.SIGFPE, (
            self.log()
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def ids(self) -> list[bytes]:
        return [shadow_block_id(each.block_id, 2) for each in self.written]


def a_model_that_divides() -> bytes:
    """Ends its process: the least integer divided by -1."""
    f32, i64, text = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
    nodes = [
        helper.make_node("Add", ["count", "least"], ["smallest"]),
        helper.make_node("Div", ["smallest", "minus"], ["divided"]),
        helper.make_node("Cast", ["divided"], ["cast"], to=f32),
        helper.make_node("Add", ["cast", "amount"], ["late"]),
        helper.make_node("Concat", ["late", "late"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "divides",
        [
            helper.make_tensor_value_info("amount", f32, [None, 1]),
            helper.make_tensor_value_info("kind", text, [None, 1]),
            helper.make_tensor_value_info("count", i64, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("label", i64, [None]),
            helper.make_tensor_value_info("probabilities", f32, [None, 2]),
        ],
        [
            helper.make_tensor("least", i64, [], [-(2**63)]),
            helper.make_tensor("minus", i64, [], [-1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def a_block(number: int, age_us: int) -> PredictionBlock:
    amounts = np.array([number, -number, 0.5], np.float32)
    now_us = time.time_ns() // 1000 - age_us
    return PredictionBlock(
        model_name=MODEL,
        version=1,
        arm=ARM_CHAMPION,
        task=TASK_BINARY,
        block_id=new_block_id(now_us // 1000, number.to_bytes(10, "big")),
        row_count=3,
        inputs=[
            pack("amount", amounts),
            pack("kind", np.array(["red", "blue", ""], dtype=object)),
            pack("count", np.zeros(3, np.int64)),
        ],
        event_times_us=np.full(3, number, "<i8").tobytes(),
        client_keys=bytes(48),
        scores=bytes(24),
        decisions=bytes(24),
        produced_at=timestamp(now_us),
    )


def keep(folder: Path, version: int, content: bytes, signature: Signature) -> None:
    """Puts a version where the keeper would have put it."""
    described = Version(
        model_name=MODEL,
        version=version,
        model_sha256=hashlib.sha256(content).hexdigest(),
        signature=signature,
    )
    VersionCache(folder / "versions").keep(described, content)


@asynccontextmanager
async def a_world(folder: Path) -> AsyncIterator[World]:
    world = World(folder)
    try:
        yield world
    finally:
        if world.process is not None and world.process.poll() is None:
            world.kill()
        if world.hearing is not None:
            world.hearing.cancel()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    keep(tmp_path, 2, a_model(weight=2.0), a_signature())
    async with a_world(tmp_path) as world:
        world.worker_board.set(Word.IS_WRITING, 1)
        yield world


async def test_every_row_is_repeated_once_also_across_kills(world: World) -> None:
    with world.writer() as journal:
        await world.start()
        for _ in range(4):
            world.write(journal, 25)
            await world.until(lambda: bool(world.made()[0]), "the shadow has begun")
            world.kill()
            world.write(journal, 5)
            await world.start()
        await world.caught_up()
    blocks, marks = world.made()
    # What is made again has the same id: whoever archives it takes it once.
    assert {each.block_id for each in blocks} == set(world.ids())
    assert len(blocks) < 2 * len(world.written)
    origin = {each.block_id: each for each in world.written}
    for each in blocks:
        assert (each.arm, each.version, each.row_count) == (ARM_SHADOW, 2, 3)
        assert each.event_times_us == origin[each.origin_block_id].event_times_us
    assert marks == sorted(marks)
    assert world.board.get(Word.SHADOW_SKIPPED_ROWS) == 0


async def test_a_promise_stands_behind_the_rows_before_it(world: World) -> None:
    with world.writer() as journal:
        await world.start()
        world.write(journal, 50)
        await world.caught_up()
        await world.until(lambda: world.board.get(Word.LAST_MARK_US) == 50, "the promise")
    blocks, marks = world.made()
    assert len(blocks) == 50
    assert marks[-1] == 50


async def test_callers_promises_are_passed_on_one_by_one(world: World) -> None:
    with world.writer() as journal:
        await world.start()
        for mark_us in (5, 10, 15):
            world.write(journal, 2, marks=False)
            journal.append(Kind.CALLER_MARK, pack_mark(mark_us))
        journal.commit()
        await world.caught_up()
    assert world.made()[1] == [5, 10, 15]


async def test_what_is_too_old_is_given_up_and_counted(world: World) -> None:
    with world.writer() as journal:
        await world.start()
        world.write(journal, 3, age_us=120_000_000)
        world.write(journal, 2)
        await world.caught_up()
    assert {each.block_id for each in world.made()[0]} == set(world.ids()[3:])
    assert world.board.get(Word.SHADOW_SKIPPED_ROWS) == 9


async def test_a_process_that_begins_does_not_repeat_what_was_before(world: World) -> None:
    with world.writer() as journal:
        world.write(journal, 10)
        await world.start()
        world.write(journal, 1)
        await world.caught_up()
    assert [each.block_id for each in world.made()[0]] == world.ids()[10:]


async def test_once_no_model_has_a_shadow_nothing_is_left_for_the_next_life(world: World) -> None:
    with world.writer() as journal:
        await world.start()
        world.write(journal, 1)
        await world.caught_up()
        assert world.control is not None
        world.tell(ServingPlan(number=1))
        world.control.send(Leave())
        assert world.process is not None
        await asyncio.to_thread(world.process.wait, PATIENCE_SECONDS)
        assert load_positions(positions_file(world.folder)) == {}
        world.write(journal, 5)
        await world.start()
        world.write(journal, 1)
        await world.caught_up()
    assert {each.block_id for each in world.made()[0]} == {world.ids()[0], world.ids()[6]}


async def test_a_version_that_takes_other_inputs_is_told_of_and_stops_nothing(
    world: World,
) -> None:
    other = helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["speed"], ["y"])],
            "other",
            [helper.make_tensor_value_info("speed", TensorProto.FLOAT, [None, 1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    ).SerializeToString()
    keep(
        world.folder,
        3,
        other,
        Signature(
            task=TASK_BINARY,
            inputs=[TensorSpec(name="speed", datatype="FP32", shape=[-1, 1])],
            outputs=[TensorSpec(name="y", datatype="FP32", shape=[-1, 1])],
            score_output="y",
        ),
    )
    with world.writer() as journal:
        await world.start(ServingPlan(models={MODEL: ModelPlan(MODEL, 1, shadows=(3, 2))}))
        world.write(journal, 4)
        await world.caught_up()
    assert {each.block_id for each in world.made()[0]} == set(world.ids())
    (failed,) = [each for each in world.heard if isinstance(each, Failed)]
    assert (failed.version, "'speed'" in failed.error) == (3, True)
    assert world.board.get(Word.SHADOW_SKIPPED_ROWS) == 12


async def test_what_crashes_the_process_stands_on_its_board_until_it_is_held_back(
    world: World,
) -> None:
    keep(world.folder, 2, a_model_that_divides(), a_signature())
    with world.writer() as journal:
        await world.start()
        world.write(journal, 1)
        await world.until_dead()
        (running,) = world.board.running()
        assert (running.model_name, running.version, running.rows) == (MODEL, 2, 3)
        held = QuarantinePlan(MODEL, 2, "it crashed")
        await world.start(ServingPlan(1, PLAN.models, quarantines=(held,)))
        await world.caught_up()
    assert world.made()[0] == []
    assert world.board.get(Word.SHADOW_SKIPPED_ROWS) == 3


async def test_it_takes_only_time_that_nobody_else_wants(world: World) -> None:
    await world.start()
    assert world.process is not None
    assert os.sched_getscheduler(world.process.pid) == os.SCHED_IDLE
    assert os.getpriority(os.PRIO_PROCESS, world.process.pid) == 19
    await world.until(lambda: any(isinstance(e, Applied) for e in world.heard), "the plan")
