"""What a transaction promises to those who judge: in PostgreSQL, and in memory for the past."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import asyncpg
import numpy as np
import pytest

from homeostat.events.v1.column_pb2 import Watermark
from homeostat.topics import JOINED, PREDICTIONS, Topic
from homeostat_kit.postgres import migrate, open_pool
from homeostat_local.database import create_service_database
from homeostat_monitor.app.memory.transaction import MemoryTransaction
from homeostat_monitor.domain.alerts.alert import Alert, Moment, Subject, after_window
from homeostat_monitor.domain.errors import UnknownModel
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.windows.window import Window
from homeostat_monitor.ports import BlockOfLosses, BlockSegments, StateKey, Sum, SumKey, Transaction
from homeostat_monitor.store.transaction import Reader, StoreTransaction

ONE, TWO, OTHER = Subject("delays", 1), Subject("delays", 2), Subject("fraud", 1)


@pytest.fixture(scope="module")
def database(postgres_admin_url: str) -> str:
    """One for all tests: each undoes what it did."""
    url = create_service_database(postgres_admin_url, f"test_{uuid.uuid4().hex[:12]}", "test")

    async def migrated() -> None:
        pool = await open_pool(url, max_size=1)
        await migrate(pool, "homeostat_monitor")
        await pool.close()

    asyncio.run(migrated())
    return url


@pytest.fixture(params=["memory", "postgres"])
async def tx(request: pytest.FixtureRequest, database: str) -> AsyncIterator[Transaction]:
    """Two models are known."""
    if request.param == "memory":
        memory = MemoryTransaction()
        await memory.add_models(["delays", "fraud", "delays"])
        yield memory
        return
    connection = await asyncpg.connect(database)
    transaction = connection.transaction()
    await transaction.start()
    stored = StoreTransaction(connection)
    await stored.add_models(["delays", "fraud", "delays"])
    yield stored
    await transaction.rollback()
    await connection.close()


async def reach(tx: Transaction, topic: Topic, *marks_us: int) -> None:
    if isinstance(tx, MemoryTransaction):
        tx.reach(topic.name, marks_us)
        return
    assert isinstance(tx, StoreTransaction)
    marks, _ = await tx.watermarks(topic.name, "one")
    for number in range(topic.partitions):
        marks.observe(topic, number, Watermark(source_id="s", watermark_us=marks_us[-1]))
    await tx.save_watermarks(topic.name, "one", marks, marks_us[-1], marks_us)


async def told_of(tx: Transaction) -> int:
    """Events that were told."""
    if isinstance(tx, MemoryTransaction):
        return tx.told
    assert isinstance(tx, StoreTransaction)
    return int(await tx._on.fetchval("SELECT count(*) FROM outbox"))


async def tallies_of(tx: Transaction, subject: Subject) -> tuple[dict[str, int], list[str]]:
    if isinstance(tx, MemoryTransaction):
        return dict(tx.tallies[subject]), sorted(tx.remarks[subject])
    assert isinstance(tx, StoreTransaction)
    reader = Reader(tx._on)  # type: ignore[arg-type]
    return dict(await reader.tallies(subject)), await reader.remarks(subject)


def losses(subject: Subject, known_at: Sequence[int]) -> BlockOfLosses:
    times = np.array(known_at, dtype=np.int64)
    ids = np.array([f"{each:020d}".encode() for each in known_at])
    values = np.linspace(0.0, 1.0, len(known_at))
    said = np.stack([values, values + 1, values + 2])
    return BlockOfLosses(subject, b"", times, times - 5, values, ids, said)


def key(start: int, segment: str = "", subject: Subject = ONE, partition: int = 0) -> SumKey:
    return SumKey(subject, segment, start, partition)


def total(end: int, *numbers: int, layout: str = "a") -> Sum:
    return Sum(end, layout, np.array(numbers, dtype=np.int64))


def an_alert(rule: Rule, opened_at: int, subject: Subject = ONE, segment: str = "") -> Alert:
    finding = Finding(rule, "x", "js_distance", 0.3, 0.05, 0.1, True, 0.0, segment=segment)
    at = Moment(opened_at, opened_at)
    alert = after_window(None, [finding], subject=subject, window_start_us=opened_at, moment=at)
    assert alert is not None
    return alert


async def test_a_model_nobody_told_of_is_unknown(tx: Transaction) -> None:
    with pytest.raises(UnknownModel, match="nobody"):
        await tx.lock_model("nobody")
    model = await tx.lock_model("delays")
    assert (model.champion_version, model.revision, model.windows_until_us) == (None, 0, None)
    await tx.save_model(replace(model, windows_until_us=7, losses_until_us=5))
    await tx.raise_revision("delays", 3)
    await tx.raise_revision("delays", 2)
    model = await tx.lock_model("delays")
    assert (model.revision, model.windows_until_us, model.losses_until_us) == (3, 7, 5)
    assert await tx.losses_until(["delays", "fraud", "nobody"]) == {"delays": 5, "fraud": None}


async def test_a_promotion_leaves_nothing_of_the_others(tx: Transaction) -> None:
    standing = await tx.standing(ONE)
    await tx.save_standing(replace(standing, windows_judged=4, accepted={"a": 0.5}))
    states = {StateKey("", "losses"): b"1"}
    for each in (ONE, TWO):
        await tx.standing(each)
        await tx.save_states(each, states)
        await tx.add_sums({key(0, subject=each): total(10, 1)})
        await tx.add_losses([losses(each, [3])])
        await tx.add_history(each, "a", [("", Window(0, 10, np.array([1])))])
    assert [each.subject for each in await tx.watched("delays")] == [ONE, TWO]
    await tx.promote("delays", 2, 9, at_us=77)
    (watched,) = await tx.watched("delays")
    assert (watched.subject, watched.serving_since_us) == (TWO, 77)
    assert await tx.state_revisions(ONE) == {}
    assert set(await tx.state_revisions(TWO)) == set(states)
    assert not await tx.sums_until(ONE, 100)
    assert len(await tx.sums_until(TWO, 100)) == 1
    assert not await tx.losses_before(ONE, 100)
    assert len(await tx.losses_before(TWO, 100)) == 1
    assert not await tx.history(ONE, "", "a")
    assert (await tx.lock_model("delays")).champion_version == 2
    # Older than the champion: not watched; newer: a canary is.
    assert not (await tx.standing(Subject("delays", 1))).is_watched
    assert (await tx.standing(Subject("delays", 3))).is_watched
    # What comes back begins afresh, but remembers how far it was judged.
    await tx.promote("delays", 1, 10, at_us=99)
    back = await tx.standing(ONE)
    assert (back.is_watched, back.windows_judged, dict(back.accepted)) == (True, 4, {})
    await tx.save_standing(replace(back, is_watched=False, serving_since_us=1, closed_until_us=5))
    back = await tx.standing(ONE)
    assert (back.is_watched, back.serving_since_us, back.closed_until_us) == (True, 99, 5)


async def test_an_event_is_heard_once(tx: Transaction) -> None:
    assert await tx.hear([], []) == []
    assert sorted(await tx.hear([b"a", b"b", b"a"], [1, 1, 1])) == [b"a", b"b"]
    assert await tx.hear([b"b", b"c"], [1, 1]) == [b"c"]


async def test_sums_are_added_and_those_of_another_layout_replaced(tx: Transaction) -> None:
    await tx.add_sums({key(10): total(20, 1, 2), key(0, "s"): total(10, 5, 5)})
    await tx.add_sums({key(10): total(20, 10, 20), key(10, partition=3): total(20, 7, 7)})
    await tx.add_sums({key(0, "s"): total(10, 1, layout="b"), key(20): total(30, 9, 9)})
    found = await tx.sums_until(ONE, 20)
    assert [(each.segment, each.start_us, each.layout, each.sums.tolist()) for each in found] == [
        ("", 10, "a", [11, 22]),
        ("", 10, "a", [7, 7]),
        ("s", 0, "b", [1]),
    ]
    await tx.drop_sums(ONE, "", 20)
    left = await tx.sums_until(ONE, 100)
    assert [(each.segment, each.start_us) for each in left] == [("", 20), ("s", 0)]
    assert await tx.sums_until(TWO, 100) == []


async def test_judged_windows_are_kept_by_layout_and_replaced_as_a_whole(tx: Transaction) -> None:
    windows = [Window(start, start + 10, np.array([start, 1])) for start in (20, 0)]
    await tx.standing(ONE)
    await tx.add_history(ONE, "a", [("", each) for each in windows])
    await tx.add_history(ONE, "b", [("", Window(10, 20, np.array([3])))])
    await tx.add_history(ONE, "a", [("", Window(20, 30, np.array([5, 5])))])
    kept = await tx.history(ONE, "", "a")
    assert [(each.start_us, each.end_us, each.sums.tolist()) for each in kept] == [
        (0, 10, [0, 1]),
        (20, 30, [5, 5]),
    ]
    assert await tx.history(ONE, "s", "a") == []
    await tx.replace_history(ONE, "", "a", [Window(0, 30, np.array([1, 1]))])
    assert [each.start_us for each in await tx.history(ONE, "", "a")] == [0]
    assert await tx.history(ONE, "", "b") == []


async def test_truths_wait_until_all_of_their_block_was_passed(tx: Transaction) -> None:
    await tx.add_losses([losses(ONE, [10, 30]), losses(ONE, [20, 20]), losses(TWO, [5])])
    assert len(await tx.losses_before(ONE, 10)) == 0
    (found,) = await tx.losses_before(ONE, 11)
    told = losses(ONE, [10, 30])
    for name in ("known_at_us", "event_times_us", "losses", "prediction_ids", "said"):
        np.testing.assert_array_equal(getattr(found, name), getattr(told, name))
    assert found.subject == ONE
    await tx.drop_losses(ONE, 30)
    assert [each.known_at_us.tolist() for each in await tx.losses_before(ONE, 99)] == [[10, 30]]
    await tx.drop_losses(ONE, 31)
    assert await tx.losses_before(ONE, 99) == []
    assert len(await tx.losses_before(TWO, 99)) == 1


async def test_rows_of_segments_are_remembered_as_they_came_first(tx: Transaction) -> None:
    masks = np.array([[True, False, True], [False, True, True]])
    blocks = [BlockSegments(b"b" * 16, ("x", "y"), masks)]
    await tx.add_block_segments(blocks, [9])
    await tx.add_block_segments([BlockSegments(b"b" * 16, ("z",), masks[:1])], [9])
    found = await tx.block_segments([b"b" * 16, b"c" * 16])
    assert list(found) == [b"b" * 16]
    assert found[b"b" * 16].names == ("x", "y")
    np.testing.assert_array_equal(found[b"b" * 16].masks[:, :3], masks)
    assert await tx.block_segments([]) == {}


async def test_marks_before_the_first_thing_that_is_due_are_passed_over(tx: Transaction) -> None:
    model = await tx.lock_model("delays")
    assert await tx.current_us(PREDICTIONS.name) is None
    await tx.add_sums({key(20): total(30, 1)})
    await tx.add_losses([losses(ONE, [35])])
    assert await tx.due_marks(model, most=10) == ([], [])
    await reach(tx, PREDICTIONS, 10, 29, 30, 40, 50)
    await reach(tx, JOINED, 20, 35, 36, 50, 60)
    assert await tx.current_us(PREDICTIONS.name) == 50
    assert await tx.due_marks(model, most=10) == ([30, 40, 50], [36, 50])
    # Full: truths wait for the windows' mark.
    assert await tx.due_marks(model, most=2) == ([30, 40], [36])
    model = replace(model, windows_until_us=40, losses_until_us=36)
    await tx.save_model(model)
    assert await tx.due_marks(model, most=10) == ([50], [50])
    assert await tx.due_marks(await tx.lock_model("fraud"), most=10) == ([], [])


async def test_what_waits_for_later_marks_is_due_then(tx: Transaction) -> None:
    await reach(tx, PREDICTIONS, 30, 100, 200)
    await reach(tx, JOINED, 30, 100, 200)
    await tx.add_sums({key(20): total(30, 1), key(90): total(100, 1)})
    await tx.add_losses([losses(ONE, [10, 150])])
    model = replace(await tx.lock_model("delays"), windows_until_us=30, losses_until_us=30)
    await tx.settle_due(model, None, None)
    assert await tx.due_marks(model, most=9) == ([100, 200], [100, 200])
    await tx.settle_due(model, 50, 20)
    assert await tx.due_marks(model, most=9) == ([100, 200], [100, 200])
    await tx.drop_sums(ONE, "", 1000)
    await tx.drop_losses(ONE, 1000)
    await tx.settle_due(model, 150, None)
    assert await tx.due_marks(model, most=9) == ([200], [])
    await tx.settle_due(model, None, 100)
    assert await tx.due_marks(model, most=9) == ([], [200])
    await tx.settle_due(model, None, None)
    assert await tx.due_marks(model, most=9) == ([], [])


async def test_no_two_states_have_one_revision(tx: Transaction) -> None:
    await tx.standing(ONE)
    first, second = StateKey("", "losses"), StateKey("s", "losses")
    assert await tx.save_states(ONE, {}) == {}
    told = await tx.save_states(ONE, {second: b"s", first: b"f"})
    again = await tx.save_states(ONE, {first: b"g"})
    assert len({*told.values(), *again.values()}) == 3
    assert await tx.state_revisions(ONE) == {**told, **again}
    assert await tx.read_state(ONE, first) == (b"g", again[first])
    assert await tx.read_state(TWO, first) is None
    await tx.want_rebuild(ONE, first)
    await tx.want_rebuild(ONE, first)


async def test_alerts_are_asked_for_as_they_stood(tx: Transaction) -> None:
    moved, broken = an_alert(Rule.COVARIATE, 10), an_alert(Rule.MISSING_VALUES, 20, segment="s")
    risen, other = an_alert(Rule.PERFORMANCE, 10), an_alert(Rule.STUCK, 10, TWO)
    await tx.save_alerts([])
    await tx.save_alerts([moved, broken, risen, other])
    calm = replace(moved.shares[0], observed=0.0, is_breach=False)
    ended: Alert | None = moved
    for window in (30, 40):
        at = Moment(window, window)
        ended = after_window(ended, [calm], subject=ONE, window_start_us=window, moment=at)
    assert ended is not None and not ended.is_open
    await tx.save_alerts([ended])
    assert await tx.open_alerts(ONE) == sorted([broken, risen], key=lambda each: each.alert_id)
    assert await tx.input_alerts_at(ONE, 15) == [ended]
    at_25 = await tx.input_alerts_at(ONE, 25)
    assert at_25 == sorted([ended, broken], key=lambda each: each.alert_id)
    assert await tx.input_alerts_at(ONE, 40) == [broken]
    assert await tx.open_alerts_of_others("delays", 1) == [other]
    assert await tx.open_alerts(OTHER) == []
    await tx.tell([broken, ended])
    assert await told_of(tx) == 2


async def test_counts_add_up_and_a_remark_stands_once(tx: Transaction) -> None:
    await tx.standing(ONE)
    await tx.tally(ONE, {"rows": 3, "late": 1})
    await tx.tally_many({ONE: {"rows": 4}})
    await tx.remark(ONE, ["b", "a", "b"])
    await tx.remark(ONE, ["a"])
    await tx.remark(ONE, [])
    assert await tallies_of(tx, ONE) == ({"rows": 7, "late": 1}, ["a", "b"])


@pytest.mark.parametrize("tx", ["postgres"], indirect=True)
async def test_of_old_marks_the_first_of_every_hour_is_remembered(tx: Transaction) -> None:
    assert isinstance(tx, StoreTransaction)
    minute = 60_000_000
    marks = [number * minute + 7 for number in range(30, 900)]
    await reach(tx, PREDICTIONS, *marks)
    await tx.drop_marks()
    rows = await tx._on.fetch("SELECT watermark_us FROM mark ORDER BY watermark_us")
    left = [row["watermark_us"] for row in rows]
    newest = marks[-256:]
    hours = [30 * minute + 7, *(hour * 60 * minute + 7 for hour in range(1, 15))]
    assert left == sorted({*newest, *hours})
    # What is due keeps the marks at which it is to be judged.
    await tx.add_sums({key(0): total(400 * minute, 1)})
    await reach(tx, PREDICTIONS, *(number * minute for number in range(900, 1800)))
    await tx.drop_marks()
    model = await tx.lock_model("delays")
    windows, _ = await tx.due_marks(model, most=2)
    assert windows == [420 * minute + 7, 480 * minute + 7]
    assert (
        await tx._on.fetchval("SELECT count(*) FROM mark WHERE watermark_us >= 54000000000") == 900
    )
