"""The past played again gives what live traffic gave: alerts, and detectors to the bit."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from tests.support.monitor import (
    DAY_US,
    INPUTS,
    MODEL,
    Days,
    blocks,
    days,
    joined,
    profile,
)

from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.schema import fingerprint
from homeostat.topics import JOINED, PREDICTIONS
from homeostat_monitor.app.backtesting import Backtest, judges_alike
from homeostat_monitor.app.judging import judge_model
from homeostat_monitor.app.memory.transaction import MemoryTransaction
from homeostat_monitor.app.portions import Portion, columns_of, segments_of
from homeostat_monitor.app.rebuilding import player_of, rebuilt
from homeostat_monitor.app.replaying import Marks, Player, Promotion, in_memory
from homeostat_monitor.app.taking import take_losses, take_predictions
from homeostat_monitor.domain.alerts.alert import Resolution, Subject
from homeostat_monitor.domain.calibration import profile_of
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.losses.truths import Task
from homeostat_monitor.domain.policies.policy import (
    Comparison,
    Policy,
    PolicyRule,
    Segment,
    Webhook,
)
from homeostat_monitor.domain.segments.expressions import parse
from homeostat_monitor.domain.windows.bins import CategoryColumn, NumberColumn
from homeostat_monitor.intake.blocks import first_truths, schema_of, taken_rows
from homeostat_monitor.ports import BlockOfLosses, KnownVersion, StateKey
from homeostat_monitor.references import reference_rows

SCHEMA = schema_of(
    fingerprint(INPUTS), [(each.name, each.datatype, list(each.shape)) for each in INPUTS]
)
ONE, TWO = Subject(MODEL, 1), Subject(MODEL, 2)
PLAYED = (
    days(2, first_day=100, seed=11),
    days(2, first_day=102, seed=12, null_rate=0.4, loss_rate=0.7),
    days(1, first_day=104, seed=13),
)
MIDNIGHTS = [day * DAY_US for day in range(101, 106)]
POLICY = Policy(
    MODEL,
    segments=(Segment("aa", 'carrier == "AA"'), Segment("fast", "speed > 0.5")),
    rules=(
        PolicyRule("worse", "loss", Comparison.RELATIVE_ABOVE, 0.5, segment="aa"),
        PolicyRule("gaps", "null_rate", Comparison.ABOVE, 0.2, feature="speed"),
    ),
)


@cache
def known(mode: Mode | None = None, version: int = 1) -> KnownVersion:
    """One player after the other may have its detectors in hand."""
    policy = replace(POLICY, mode=mode)
    rows = reference_rows(profile(days(9, first_day=70, seed=7)), SCHEMA)
    made = profile_of(rows, policy=policy) if version == 1 else known(mode).profile
    return KnownVersion(Subject(MODEL, version), Task.BINARY, made, policy=policy)


@cache
def topics() -> tuple[list[list[tuple[int, PredictionBlock]]], list[list[BlockOfLosses]]]:
    """What is said by each midnight: blocks with their partitions, and truths."""
    said = [each for what in PLAYED for each in blocks(what)]
    first = [int(np.frombuffer(each.event_times_us, "<i8")[0]) for each in said]
    truths = [
        first_truths(each, f"{place}/{number}".encode())[0]
        for place, what in enumerate(PLAYED)
        for number, each in enumerate(joined(what))
    ]
    by_day, known_by_day = [], []
    for end in MIDNIGHTS:
        begin = end - DAY_US
        by_day.append([(n % 3, each) for n, each in enumerate(said) if begin <= first[n] < end])
        due = [each.only((each.known_at_us >= begin) & (each.known_at_us < end)) for each in truths]
        known_by_day.append(
            [replace(each, event_id=each.event_id + bytes([end % 251])) for each in due]
        )
    return by_day, [[each for each in due if len(each.losses)] for due in known_by_day]


def live(version: KnownVersion) -> MemoryTransaction:
    """Poll by poll, midnight by midnight, as the topics bring it."""
    tx = MemoryTransaction()
    in_memory(tx.add_models([MODEL]))
    for midnight, said, truths in zip(MIDNIGHTS, *topics(), strict=True):
        in_memory(take_predictions([taken_rows(ONE, version.profile, SCHEMA, said)], tx=tx))
        in_memory(take_losses(truths[::-1], tx=tx))
        tx.reach(PREDICTIONS.name, [midnight])
        tx.reach(JOINED.name, [midnight])
        in_memory(judge_model(MODEL, {ONE: version}, tx=tx))
    return tx


def portion(what: Sequence[Days] = PLAYED, version: int = 1) -> Portion:
    """As the ledger gives it."""
    said = [block for each in what for block in joined(each, version=version)]
    ids = b"".join(block.prediction_ids for block in said)
    times, known_at, losses = (
        np.concatenate([getattr(each, name) for each in what])
        for name in ("event_times", "known_at", "losses")
    )
    columns = {}
    for name in ("speed", "weight", "stops"):
        values = np.concatenate([each.features[name] for each in what])
        nulls = np.isnan(values) if values.dtype.kind == "f" else None
        columns[name] = NumberColumn(values, nulls)
    texts = np.concatenate([each.features["carrier"] for each in what]).astype(str)
    dictionary, codes = np.unique(texts, return_inverse=True)
    scores = np.concatenate([each.scores for each in what])
    return Portion(
        times,
        np.full(len(times), version, dtype=np.int32),
        {**columns, "carrier": CategoryColumn(codes.astype(np.int32), dictionary.tolist())},
        np.stack([scores, np.zeros(len(times)), losses]),
        losses,
        known_at,
        np.frombuffer(ids, dtype="S20"),
    )


def marks() -> Marks:
    recorded = np.array(MIDNIGHTS, dtype=np.int64)
    return Marks({PREDICTIONS.name: recorded, JOINED.name: recorded})


def played(version: KnownVersion, *, rows: int = 700) -> Player:
    player = Player(MODEL, marks(), {ONE: version})
    whole = portion()
    for begin in range(0, len(whole), rows):
        player.play(whole.only(slice(begin, begin + rows)))
    player.finish({PREDICTIONS.name: MIDNIGHTS[-1], JOINED.name: MIDNIGHTS[-1]})
    return player


@pytest.mark.parametrize("mode", Mode)
def test_the_same_alerts_and_detectors_to_the_bit(mode: Mode) -> None:
    was, player = live(known(mode)), played(known(mode))
    assert player.rows == sum(each.rows for each in PLAYED)
    assert player.tx.alerts == was.alerts
    assert {Rule.MISSING_VALUES, Rule.POLICY} <= {each.rule for each in was.alerts.values()}
    assert {"", "aa"} <= {each.segment for each in was.alerts.values()}
    again = {key: state for key, (state, _) in player.tx.states(ONE).items()}
    assert again == {key: state for key, (state, _) in was.states(ONE).items()}
    assert player.tx.told == was.told


def test_portions_do_not_matter() -> None:
    one, other = (played(known(), rows=rows) for rows in (333, 10_000))
    assert one.tx.alerts == other.tx.alerts
    assert [state for state, _ in one.tx.states(ONE).values()] == [
        state for state, _ in other.tx.states(ONE).values()
    ]


@pytest.mark.parametrize("mode", Mode)
def test_every_damaged_detector_is_refused_said_and_rebuilt_to_the_bit(mode: Mode) -> None:
    was = live(known(mode))
    standing = in_memory(was.standing(ONE))
    before = {key: state for key, (state, _) in was.states(ONE).items()}
    assert {name for _, name in before} >= {"losses", "concept", "rolling", "labels", "estimate"}
    in_memory(was.save_states(ONE, {key: each[:-1] + b"\0\1" for key, each in before.items()}))
    # One more day's rows let every detector be asked for.
    later = days(1, first_day=105, seed=14)
    said = [(0, block) for block in blocks(later)]
    in_memory(take_predictions([taken_rows(ONE, known(mode).profile, SCHEMA, said)], tx=was))
    truths = [first_truths(each, bytes([n]))[0] for n, each in enumerate(joined(later))]
    in_memory(take_losses(truths, tx=was))
    model = was.models[MODEL]
    for topic in (PREDICTIONS, JOINED):
        was.reach(topic.name, [later.end_us, later.end_us + DAY_US])
    in_memory(judge_model(MODEL, {ONE: known(mode)}, tx=was))
    assert was.wanted_rebuilds == {(ONE, key) for key in before}
    refused = [text for text in was.remarks[ONE] if "could not be read and began anew" in text]
    assert len(refused) == len(before)

    player = player_of(ONE, model, Marks({}), [])
    player.marks = marks().with_also({PREDICTIONS.name: model.windows_until_us})
    player.known[ONE] = known(mode)
    player.play(portion())
    player.finish({PREDICTIONS.name: MIDNIGHTS[-1], JOINED.name: MIDNIGHTS[-1]})
    found = in_memory(rebuilt(player, ONE, before, standing, accepted=0))
    assert found.states == before
    assert len(found.remarks) == len(before)


def test_a_past_that_the_ledger_no_longer_has_is_said() -> None:
    was = live(known())
    player = Player(MODEL, marks(), {ONE: known()})
    player.play(portion(PLAYED[1:]))
    player.finish({PREDICTIONS.name: MIDNIGHTS[-1], JOINED.name: MIDNIGHTS[-1]})
    keys = [StateKey("", "losses"), StateKey("", "never")]
    standing = in_memory(was.standing(ONE))
    found = in_memory(rebuilt(player, ONE, keys, standing, accepted=2))
    assert set(found.states) == {keys[0]}
    said = "\n".join(found.remarks)
    assert "the detector losses was rebuilt from 1800 predictions" in said
    assert "the detector never stays as it began anew" in said
    assert "the ledger no longer has the others" in said
    assert "accepted as the new normal" in said


def test_who_takes_over_ends_the_alerts_of_the_one_before() -> None:
    at_us = PLAYED[2].first_day * DAY_US
    player = Player(
        MODEL,
        marks(),
        {ONE: known(), TWO: known(version=2)},
        [Promotion(1, 0), Promotion(2, at_us)],
    )
    player.play(portion(PLAYED[:2]))
    opened = [each for each in player.alerts if each.is_open]
    assert opened
    assert player.wanted(portion(PLAYED[2:], version=3)) == [Subject(MODEL, 3)]
    player.play(portion(PLAYED[2:], version=2))
    ended = {each.alert_id: each for each in player.alerts}
    assert {ended[each.alert_id].resolution for each in opened} == {Resolution.SUPERSEDED}
    assert {each.moment.occurred_us for each in ended.values() if not each.is_open} >= {at_us}


def test_before_the_marks_that_are_remembered_every_hour_is_one() -> None:
    hour = DAY_US // 24
    known_marks = Marks({PREDICTIONS.name: np.array([3 * hour + 5, 4 * hour + 7])})
    assert known_marks.between(PREDICTIONS.name, 10, 4 * hour) == [
        hour,
        2 * hour,
        3 * hour,
        3 * hour + 5,
    ]
    assert known_marks.between(PREDICTIONS.name, 3 * hour + 5, 5 * hour) == [4 * hour + 7]
    assert known_marks.between(JOINED.name, 10, 2 * hour) == [hour, 2 * hour]


def test_a_policy_that_only_tells_others_is_played_once() -> None:
    hook = Webhook("pager", "http://localhost/", "pager")
    other = Policy(MODEL, revision=4, webhooks=(hook,), throttle_seconds=9.0, set_by="somebody")
    assert judges_alike(Policy(MODEL), other)
    assert not judges_alike(Policy(MODEL), POLICY)
    backtest = Backtest.begun(MODEL, marks(), [], is_same=True)
    assert len(backtest.players) == 1
    backtest.know(0, ONE, known(), known())
    backtest.know(0, TWO, None, KnownVersion(TWO, Task.BINARY, None))
    backtest.play(portion())
    result = backtest.finish({PREDICTIONS.name: MIDNIGHTS[-1], JOINED.name: MIDNIGHTS[-1]})
    assert list(result.alerts) == list(result.present) != []
    assert any("no version 2 any more" in each for each in result.remarks)


def test_what_waits_for_something_is_no_past() -> None:
    async def waits() -> None:
        import asyncio  # noqa: PLC0415

        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="waited"):
        in_memory(waits())


def test_a_segment_may_be_of_a_context() -> None:
    whole = portion(PLAYED[:1])
    names = np.array(["EWR", "JFK"])
    codes = (np.arange(len(whole)) % 3 == 0).astype(np.int32)
    context = {"context.origin": CategoryColumn(codes, names.tolist())}
    whole = replace(whole, columns={**whole.columns, **context})
    expressions = {
        name: parse(text)
        for name, text in (
            ("context", 'context.origin == "JFK"'),
            ("short", 'origin == "JFK"'),
            ("nowhere", 'context.destination == "JFK"'),
        )
    }
    profile = replace(known().profile, expressions=expressions)
    masks = segments_of(whole, profile)
    np.testing.assert_array_equal(masks["context"], codes == 1)
    np.testing.assert_array_equal(masks["short"], codes == 1)
    assert not masks["nowhere"].any()
    few = columns_of(replace(whole, columns={}), known().profile)
    assert all(each.nulls is not None and each.nulls.all() for each in few)
