"""The relay sends everything at least once, in order, and forgets only what nobody needs."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from tests.support.waiting import eventually

from homeostat.events.v1.column_pb2 import Column
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.topics import OUTCOMES, PREDICTIONS
from homeostat_inference.app.ports import Kind
from homeostat_inference.app.records import pack_mark, pack_rows, pack_seal
from homeostat_inference.edges import forgetting, slot_relay
from homeostat_inference.edges.archive import Fate
from homeostat_inference.edges.journal_reader import JournalReader, Segment
from homeostat_inference.edges.journal_writer import JournalWriter
from homeostat_inference.edges.journals import JournalRules, Journals
from homeostat_inference.edges.promises import Promises
from homeostat_inference.edges.relay_hooks import Hooks, Tail
from homeostat_inference.edges.slot_relay import SlotRelay
from homeostat_kit.kafka import BrokerAway, Outgoing

NO_TAIL = Tail(bytes=0, seconds=0.0, crowded_bytes=1 << 30)


class MemoryBus:
    """Takes records, or is away."""

    def __init__(self) -> None:
        self.epoch = "first"
        self.is_away = False
        self.taken: list[Outgoing] = []

    async def produce_many(
        self, outgoing: Sequence[Outgoing], *, epoch: str | None = None
    ) -> list[tuple[int, int]]:
        await asyncio.sleep(0)
        if self.is_away or epoch not in (None, self.epoch):
            raise BrokerAway("away")
        self.taken += outgoing
        return [(each.partition or 0, len(self.taken)) for each in outgoing]

    def blocks(self) -> list[bytes]:
        """Ids of blocks, in the order in which they came."""
        found = []
        for each in self.taken:
            if each.topic == PREDICTIONS.name and each.partition is None:
                found.append(PredictionBlock.FromString(each.value).block_id[:1])
        return found


def add_rows(journal: JournalWriter, name: bytes, first_row: int = 0, width: int = 0) -> None:
    """One row, with so many bytes of an input."""
    columns = [Column(name="x", datatype="UINT8", width=width)] if width else []
    outline = PredictionBlock(model_name="m", inputs=columns).SerializeToString()
    payload = pack_rows(
        block_id=name * 16,
        first_row=first_row,
        row_count=1,
        traceparent="",
        outline=outline if first_row == 0 else b"",
        client_keys=b"",
        columns=[bytes(8), bytes(8), bytes(8), bytes(4), bytes(width)],
    )
    journal.append(Kind.ROWS, payload)
    journal.commit()


def seal(journal: JournalWriter, name: bytes) -> None:
    journal.append(Kind.SEAL, pack_seal(name * 16, 1), must=True)
    journal.commit()


def a_relay(journal: JournalWriter, bus: Any, folder: Path, **changes: Any) -> SlotRelay:
    async def everything(block_ids: Sequence[bytes]) -> Fate:
        return Fate(is_settled=True)

    fields: dict[str, Any] = {
        "state_file": folder / "relay.json",
        "tail": NO_TAIL,
        "ask_fate": everything,
        "hooks": Hooks(has_writer=lambda: True),
        "promises": Promises(bus, "inference-0", lambda noted: None),
        **changes,
    }
    promises = fields.pop("promises")
    return SlotRelay("worker-0", a_reader(journal, folder), bus, promises, **fields)


def a_reader(journal: JournalWriter, folder: Path) -> JournalReader:
    return JournalReader(folder / "journal", lambda: journal.end)


def segments(journal: JournalWriter, folder: Path) -> list[Segment]:
    return a_reader(journal, folder).segments()


def a_journal(folder: Path, segment_bytes: int = 1 << 20) -> JournalWriter:
    return JournalWriter(
        folder / "journal", segment_bytes=segment_bytes, quota_bytes=1 << 30, is_durable=False
    )


@asynccontextmanager
async def running(relay: SlotRelay, journal: JournalWriter) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(relay.run(stop))
    try:
        yield
        journal.commit()
        relay.wake()
    finally:
        stop.set()
        await task


async def test_marks_go_out_alone_after_everything_before_them(tmp_path: Path) -> None:
    bus = MemoryBus()
    with a_journal(tmp_path) as journal:
        add_rows(journal, b"a")
        seal(journal, b"a")
        journal.append(Kind.CALLER_MARK, pack_mark(5))
        journal.commit()
        add_rows(journal, b"b")
        seal(journal, b"b")
        relay = a_relay(journal, bus, tmp_path)
        async with running(relay, journal):
            pass
    kinds = ["mark" if each.partition is not None else "block" for each in bus.taken]
    assert kinds == ["block", *["mark"] * (PREDICTIONS.partitions + OUTCOMES.partitions), "block"]


async def test_of_marks_by_the_clock_only_the_last_is_told_but_every_callers_is(
    tmp_path: Path,
) -> None:
    bus = MemoryBus()
    with a_journal(tmp_path) as journal:
        for mark in (1, 2, 3):
            journal.append(Kind.CLOCK_MARK, pack_mark(mark))
        for mark in (4, 5):
            journal.append(Kind.CALLER_MARK, pack_mark(mark))
        journal.commit()
        async with running(a_relay(journal, bus, tmp_path), journal):
            pass
    marks = [
        PredictionBlock.FromString(each.value).watermark.watermark_us
        for each in bus.taken
        if each.topic == PREDICTIONS.name
    ]
    assert list(dict.fromkeys(marks)) == [3, 4, 5]


async def test_while_the_broker_is_away_nothing_is_skipped(tmp_path: Path) -> None:
    bus = MemoryBus()
    bus.is_away = True
    with a_journal(tmp_path) as journal:
        relay = a_relay(journal, bus, tmp_path)
        async with running(relay, journal):
            for name in (b"a", b"b"):
                add_rows(journal, name)
            for name in (b"b", b"a"):
                seal(journal, name)
            journal.commit()
            assert relay.unsent_bytes == journal.end
            bus.is_away = False
            await eventually(lambda: relay.unsent_bytes == 0)
    assert bus.blocks() == [b"b", b"a"]


async def test_a_new_life_of_the_broker_gets_all_that_is_retained(tmp_path: Path) -> None:
    bus = MemoryBus()
    with a_journal(tmp_path) as journal:
        relay = a_relay(journal, bus, tmp_path)
        async with running(relay, journal):
            add_rows(journal, b"a")
            seal(journal, b"a")
            await eventually(lambda: bus.blocks() == [b"a"])
            bus.epoch = "second"
            await eventually(lambda: bus.blocks() == [b"a", b"a"])
            assert relay.epoch == "second"
        relay = a_relay(journal, bus, tmp_path)
        async with running(relay, journal):
            add_rows(journal, b"b")
            seal(journal, b"b")
    assert bus.blocks() == [b"a", b"a", b"b"]


async def test_a_mark_never_goes_ahead_of_older_blocks_to_a_broker_that_is_new_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = MemoryBus()
    with a_journal(tmp_path) as journal:
        relay = a_relay(journal, bus, tmp_path)
        async with running(relay, journal):
            add_rows(journal, b"a")
            seal(journal, b"a")
            await eventually(lambda: bus.blocks() == [b"a"] and relay.unsent_bytes == 0)
            prepare = relay._prepare

            def prepare_while_the_broker_is_replaced() -> Any:
                made = prepare()
                if made[0] and bus.epoch == "first":
                    bus.epoch = "second"
                    bus.taken.clear()
                return made

            monkeypatch.setattr(relay, "_prepare", prepare_while_the_broker_is_replaced)
            journal.append(Kind.CALLER_MARK, pack_mark(5))
            journal.commit()
            await eventually(lambda: relay.epoch == "second" and relay.unsent_bytes == 0)
    assert [each.partition is None for each in bus.taken[:2]] == [True, False]


async def test_a_block_that_no_broker_takes_is_skipped_and_holds_up_nothing(tmp_path: Path) -> None:
    bus = MemoryBus()
    archived: list[bytes] = []

    async def ask_fate(block_ids: Sequence[bytes]) -> Fate:
        archived.extend(block_ids)
        return Fate(is_settled=True)

    with a_journal(tmp_path, segment_bytes=1) as journal:
        relay = a_relay(journal, bus, tmp_path, ask_fate=ask_fate)
        async with running(relay, journal):
            for row in range(2):
                add_rows(journal, b"a", row, width=9 << 20)
            seal(journal, b"a")
            add_rows(journal, b"b")
            seal(journal, b"b")
            await eventually(lambda: bus.blocks() == [b"b"] and relay.unsent_bytes == 0)
            assert relay.steps.skipped_count == 1
            assert await relay.forgetting.forget() > 0
            assert b"a" * 16 not in archived


async def test_what_can_not_be_read_is_skipped_and_counted_and_holds_up_nothing(
    tmp_path: Path,
) -> None:
    bus = MemoryBus()
    with a_journal(tmp_path, segment_bytes=1) as journal:
        journal.append(Kind.OUTCOMES, b"\xff\xff no message")
        journal.append(Kind.ACTIVATION, b"\xff\xff no message")
        add_rows(journal, b"b")
        seal(journal, b"b")
        relay = a_relay(journal, bus, tmp_path)
        async with running(relay, journal):
            await eventually(lambda: bus.blocks() == [b"b"] and relay.unsent_bytes == 0)
            assert relay.steps.unreadable_count == 2
            assert await relay.forgetting.forget() > 0


async def test_a_disk_that_can_not_be_read_is_told_of_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = MemoryBus()
    is_broken = True
    pread = os.pread

    def failing_pread(*args: Any) -> bytes:
        if is_broken:
            raise OSError(errno.EIO, "Input/output error")
        return pread(*args)

    with a_journal(tmp_path) as journal:
        add_rows(journal, b"a")
        seal(journal, b"a")
        monkeypatch.setattr(os, "pread", failing_pread)
        relay = a_relay(journal, bus, tmp_path)
        async with running(relay, journal):
            await eventually(lambda: "Input/output error" in relay.trouble)
            is_broken = False
            await eventually(lambda: bus.blocks() == [b"a"] and not relay.trouble)


async def test_records_that_stand_where_lost_ones_stood_are_sent_after_a_loss_of_power(
    tmp_path: Path,
) -> None:
    bus = MemoryBus()
    with a_journal(tmp_path) as journal:
        add_rows(journal, b"a", width=1000)
        seal(journal, b"a")
        async with running(a_relay(journal, bus, tmp_path), journal):
            pass
    for each in (tmp_path / "journal").glob("*.journal"):
        each.write_bytes(b"")
    with a_journal(tmp_path) as journal:
        async with running(a_relay(journal, bus, tmp_path), journal):
            add_rows(journal, b"b")
            seal(journal, b"b")
            await eventually(lambda: bus.blocks() == [b"a", b"b"])


async def test_a_broker_that_takes_no_large_pieces_in_time_gets_smaller_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SlowBus(MemoryBus):
        async def produce_many(self, outgoing: Any, *, epoch: str | None = None) -> Any:
            if sum(len(each.value) for each in outgoing) > 200_000:
                raise BrokerAway("not in time")
            return await super().produce_many(outgoing, epoch=epoch)

    monkeypatch.setattr(slot_relay, "_LONGEST_PAUSE_SECONDS", 0.01)
    bus = SlowBus()
    with a_journal(tmp_path, segment_bytes=16 << 20) as journal:
        for at in range(64):
            add_rows(journal, bytes([at]), width=40_000)
            seal(journal, bytes([at]))
        async with running(a_relay(journal, bus, tmp_path), journal):
            await eventually(lambda: len(set(bus.blocks())) == 64)
    assert bus.blocks() == [bytes([at]) for at in range(64)]


def all_journals(folder: Path, bus: MemoryBus, ask_fate: Any = None) -> Journals:
    async def nothing_is(block_ids: Sequence[bytes]) -> Fate:
        return Fate(False)

    rules = JournalRules(1 << 20, 1 << 30, False, NO_TAIL)
    return Journals(folder, rules, bus, ask_fate or nothing_is, "inference-0")  # type: ignore[arg-type]


async def test_a_journal_left_over_whose_file_can_not_be_read_stops_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_journal(tmp_path / "worker-7") as journal:
        add_rows(journal, b"a")
    read_bytes = Path.read_bytes

    def failing_read(path: Path) -> bytes:
        if path.suffix == ".journal":
            raise OSError(errno.EIO, "Input/output error")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", failing_read)
    journals = all_journals(tmp_path, MemoryBus())
    journals.add_left_over()
    assert "Input/output error" in journals.relays["worker-7"].trouble


async def test_the_next_writer_ends_exactly_the_blocks_that_were_open(tmp_path: Path) -> None:
    bus = MemoryBus()
    with a_journal(tmp_path) as journal:
        add_rows(journal, b"a")
        add_rows(journal, b"b")
        add_rows(journal, b"b", first_row=1)
        seal(journal, b"a")
    with a_journal(tmp_path) as journal:
        async with running(a_relay(journal, bus, tmp_path), journal):
            pass
    assert bus.blocks() == [b"a", b"b"]
    rows = [PredictionBlock.FromString(each.value).row_count for each in bus.taken]
    assert [each for each in rows if each] == [1, 2]


async def test_segments_are_forgotten_when_acknowledged_and_archived_and_behind_the_tail(
    tmp_path: Path,
) -> None:
    bus = MemoryBus()
    archived: set[bytes] = set()

    async def ask_fate(block_ids: Sequence[bytes]) -> Fate:
        return Fate(archived.issuperset(block_ids))

    with a_journal(tmp_path, segment_bytes=1) as journal:
        for name in (b"a", b"b", b"c"):
            add_rows(journal, name)
            seal(journal, name)
            journal.commit()
        assert len(segments(journal, tmp_path)) >= 3
        relay = a_relay(journal, bus, tmp_path, ask_fate=ask_fate)
        assert await relay.forgetting.forget() == 0, "nothing was sent"
        async with running(relay, journal):
            await eventually(lambda: relay.unsent_bytes == 0)
            assert await relay.forgetting.forget() == 0, "nothing is archived"
            archived.add(b"a" * 16)
            assert await relay.forgetting.forget() >= 1
            archived.update({b"b" * 16, b"c" * 16})
            await relay.forgetting.forget()
            assert len(segments(journal, tmp_path)) == 1


async def test_a_block_that_is_never_archived_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(forgetting, "_HELD_SECONDS", 0.0)
    monkeypatch.setattr(forgetting, "log", Mock(warning=lambda event, **fields: told.append(event)))
    archived = False

    async def ask_fate(block_ids: Sequence[bytes]) -> Fate:
        return Fate(archived)

    with a_journal(tmp_path, segment_bytes=1) as journal:
        for name in (b"a", b"b"):
            add_rows(journal, name)
            seal(journal, name)
            journal.commit()
        relay = a_relay(journal, MemoryBus(), tmp_path, ask_fate=ask_fate)
        async with running(relay, journal):
            await eventually(lambda: relay.unsent_bytes == 0)
            assert relay.forgetting.held_seconds == 0.0
            await relay.forgetting.forget()
            assert told == ["journal_not_archived"]
            assert relay.forgetting.held_seconds > 0.0
            archived = True
            assert await relay.forgetting.forget() > 0
            assert relay.forgetting.held_seconds == 0.0


async def test_the_tail_is_kept_by_size_and_by_age_but_by_age_not_in_a_crowded_journal(
    tmp_path: Path,
) -> None:
    bus = MemoryBus()
    with a_journal(tmp_path, segment_bytes=1) as journal:
        for name in (b"a", b"b", b"c"):
            add_rows(journal, name, width=1 << 17)
            seal(journal, name)
            journal.commit()
        async with running(a_relay(journal, bus, tmp_path), journal):
            pass
        for tail in (Tail(1 << 30, 0.0, 0), Tail(0, 3600.0, 1 << 30)):
            assert await a_relay(journal, bus, tmp_path, tail=tail).forgetting.forget() == 0
        crowded = a_relay(journal, bus, tmp_path, tail=Tail(0, 3600.0, 1))
        assert await crowded.forgetting.forget() > 0


async def test_the_small_files_of_writers_that_ended_soon_go_by_age_alone(tmp_path: Path) -> None:
    for name in (b"a", b"b", b"c", b"d"):
        with a_journal(tmp_path) as journal:
            add_rows(journal, name)
            seal(journal, name)
            async with running(a_relay(journal, MemoryBus(), tmp_path), journal):
                pass
            relay = a_relay(journal, MemoryBus(), tmp_path, tail=Tail(1 << 30, 0.0, 1 << 30))
            await relay.forgetting.forget()
            assert len(segments(journal, tmp_path)) <= 2


async def test_a_journal_left_over_is_gone_once_it_was_sent_and_archived(tmp_path: Path) -> None:
    async def all_are(block_ids: Sequence[bytes]) -> Fate:
        return Fate(is_settled=True)

    bus = MemoryBus()
    with a_journal(tmp_path / "worker-7") as journal:
        add_rows(journal, b"a")
    journals = all_journals(tmp_path, bus, all_are)
    journals.add_left_over()
    left = journals.relays["worker-7"]
    async with running(left, journal):
        await eventually(lambda: bus.blocks() == [b"a"])
    assert await left.forgetting.forget() > 0
    assert left.unsent_bytes == 0
    journals = all_journals(tmp_path, bus, all_are)
    journals.add_left_over()
    assert not journals.relays
    assert not (tmp_path / "worker-7").exists()


async def test_a_journal_left_over_in_which_nothing_is_open_is_not_written_again(
    tmp_path: Path,
) -> None:
    with a_journal(tmp_path / "worker-7") as journal:
        add_rows(journal, b"a")
    for _ in range(3):
        journals = all_journals(tmp_path, MemoryBus())
        journals.add_left_over()
        async with running(journals.relays["worker-7"], journal):
            pass
    assert len(list((tmp_path / "worker-7" / "journal").glob("*.journal"))) == 2


async def test_what_the_ledger_set_aside_is_forgotten_and_counted(tmp_path: Path) -> None:
    bus = MemoryBus()

    async def ask_fate(block_ids: Sequence[bytes]) -> Fate:
        return Fate(True, tuple(each for each in block_ids if each == b"a" * 16))

    with a_journal(tmp_path, segment_bytes=1) as journal:
        for name in (b"a", b"b"):
            add_rows(journal, name)
            seal(journal, name)
        relay = a_relay(journal, bus, tmp_path, ask_fate=ask_fate)
        async with running(relay, journal):
            await eventually(lambda: relay.unsent_bytes == 0)
            assert await relay.forgetting.forget() > 0
    assert relay.forgetting.set_aside_count > 0


def promised(bus: MemoryBus) -> list[int]:
    """Marks, in the order in which they were promised for the first time."""
    found = [
        PredictionBlock.FromString(each.value).watermark.watermark_us
        for each in bus.taken
        if each.topic == PREDICTIONS.name and each.partition is not None
    ]
    return list(dict.fromkeys(found))


async def test_the_servers_promise_is_the_least_of_all_journals(tmp_path: Path) -> None:
    bus = MemoryBus()
    promises = Promises(bus, "inference-0", lambda noted: None)  # type: ignore[arg-type]
    for slot in ("one", "two", "three"):
        promises.count(slot)
    await promises.passed("one", 30, "first")
    await promises.passed("two", 20, "first")
    assert promised(bus) == []
    await promises.passed("three", 10, "first")
    assert promised(bus) == [10]
    await promises.passed("three", 40, "first")
    assert promised(bus) == [10, 20]
    await promises.release("two")
    assert promised(bus) == [10, 20, 30]


async def test_a_word_from_a_broker_that_is_gone_says_nothing_to_the_next(tmp_path: Path) -> None:
    bus = MemoryBus()
    promises = Promises(bus, "inference-0", lambda noted: None)  # type: ignore[arg-type]
    for slot in ("one", "two"):
        promises.count(slot)
    bus.epoch = "second"
    for slot in ("one", "two"):
        promises.begin(slot, "second")
    # What was under way when the broker was replaced.
    await promises.passed("one", 50, "first")
    await promises.passed("two", 50, "second")
    assert promised(bus) == []
    await promises.passed("one", 10, "second")
    assert promised(bus) == [10]


async def test_a_journal_that_never_comes_to_rest_passes_on_what_stands_all_the_same(
    tmp_path: Path,
) -> None:
    class GrowingBus(MemoryBus):
        async def produce_many(self, outgoing: Any, *, epoch: str | None = None) -> Any:
            if any(each.partition is None for each in outgoing) and not stop.is_set():
                one_more()
            return await super().produce_many(outgoing, epoch=epoch)

    def one_more() -> None:
        add_rows(journal, b"a")
        seal(journal, b"a")

    bus, stop = GrowingBus(), asyncio.Event()
    hooks = Hooks(has_writer=lambda: True, standing_mark_us=lambda: len(bus.taken) + 1)
    with a_journal(tmp_path) as journal:
        one_more()
        async with running(a_relay(journal, bus, tmp_path, hooks=hooks), journal):
            await eventually(lambda: len(promised(bus)) > 1)
            stop.set()


async def test_a_promise_that_stands_waits_for_all_that_stood_before_it(tmp_path: Path) -> None:
    bus = MemoryBus()
    with a_journal(tmp_path) as journal:
        add_rows(journal, b"a", width=3 << 20)
        seal(journal, b"a")
        hooks = Hooks(has_writer=lambda: True, standing_mark_us=lambda: 7)
        async with running(a_relay(journal, bus, tmp_path, hooks=hooks), journal):
            await eventually(lambda: promised(bus) == [7])
    assert [each.partition is None for each in bus.taken[:2]] == [True, False]


async def test_a_new_broker_is_promised_nothing_before_every_journal_was_sent_to_it(
    tmp_path: Path,
) -> None:
    bus = MemoryBus()
    promises = Promises(bus, "inference-0", lambda noted: None)  # type: ignore[arg-type]
    for slot in ("one", "two"):
        promises.count(slot)
        await promises.passed(slot, 10, "first")
    bus.epoch = "second"
    promises.begin("one", "second")
    await promises.passed("one", 20, "second")
    assert promised(bus) == [10]
    promises.begin("two", "second")
    await promises.passed("two", 15, "second")
    assert promised(bus) == [10, 15]
