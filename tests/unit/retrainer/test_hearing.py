"""What each event does: only a risen loss leads to a run, and only first truths are counted."""

import numpy as np
import pytest

from homeostat.events.v1 import alert_pb2 as alerts
from homeostat.events.v1.column_pb2 import ARM_CHAMPION, ARM_SHADOW, Watermark
from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.events.v1.version_changed_pb2 import VERSION_CHANGE_SERVING, VersionChanged
from homeostat.topics import JOINED
from homeostat_kit.kafka import Received
from homeostat_kit.watermarks import Watermarks
from homeostat_retrainer.bus import apply
from homeostat_retrainer.domain.errors import PeerAway, UnknownToPeer
from homeostat_retrainer.domain.memory import Memory, Wanted
from homeostat_retrainer.domain.policy import Policy
from homeostat_retrainer.domain.runs import Run
from homeostat_retrainer.hearing import Heard, sort_out

DAY = 86_400_000_000


class Listener:
    """Memory and marks, and what is heard."""

    def __init__(self) -> None:
        self.memory, self.marks = Memory(), Watermarks()

    def hear(self, message: object, partition: int = 0, **lengths: int) -> list[Wanted]:
        record = Received("topic", partition, 0, b"m", b"", {})
        known = {("m", 1): lengths["rows"]} if lengths else {}
        return apply(record, message, self.memory, self.marks, known, Policy())

    def mark(self, at_us: int) -> list[Wanted]:
        mark = Watermark(source_id="ledger", watermark_us=at_us)
        heard = [
            self.hear(JoinedBlock(model_name="m", watermark=mark), partition)
            for partition in range(JOINED.partitions)
        ]
        return [run for each in heard for run in each]


@pytest.fixture
def listener() -> Listener:
    heard = Listener()
    heard.hear(VersionChanged(model_name="m", version=1, champion_version=1), rows=5000)
    heard.mark(DAY)
    return heard


def a_block(revisions: list[int], arm: int = ARM_CHAMPION) -> JoinedBlock:
    known_at = np.arange(len(revisions), dtype="<i8") + DAY
    return JoinedBlock(
        model_name="m",
        arm=arm,  # type: ignore[arg-type]
        row_count=len(revisions),
        known_at_us=known_at.tobytes(),
        revisions=np.array(revisions, dtype="<u4").tobytes(),
    )


def an_alert(rule: int, **changes: object) -> alerts.Alert:
    given = {
        "alert_id": "a",
        "model_name": "m",
        "version": 1,
        "rule": rule,
        "state": alerts.ALERT_STATE_OPENED,
        "watermark_us": DAY,
    }
    return alerts.Alert(**{**given, **changes})  # type: ignore[arg-type]


def test_w_comes_from_the_version_that_a_person_pushed(listener: Listener) -> None:
    assert listener.memory.models["m"].reference_rows == 5000


def test_corrections_and_shadow_rows_are_no_new_truth(listener: Listener) -> None:
    listener.hear(a_block([1, 2, 1, 3]))
    listener.hear(a_block([1, 1], arm=ARM_SHADOW))
    listener.mark(2 * DAY)
    assert listener.memory.models["m"].truths == 2


def test_a_mark_counts_once_all_partitions_have_it(listener: Listener) -> None:
    listener.hear(a_block([1]))
    mark = Watermark(source_id="ledger", watermark_us=2 * DAY)
    listener.hear(JoinedBlock(watermark=mark), 0)
    assert listener.memory.models["m"].truths == 0
    listener.mark(2 * DAY)
    assert listener.memory.models["m"].truths == 1


@pytest.mark.parametrize(
    "cause",
    [
        alerts.CAUSE_CLASS_UNKNOWN,
        alerts.CAUSE_CLASS_CONCEPT,
        alerts.CAUSE_CLASS_COVARIATE,
        alerts.CAUSE_CLASS_LABEL_SHIFT,
    ],
)
def test_a_risen_loss_leads_to_a_run(listener: Listener, cause: int) -> None:
    (run,) = listener.hear(an_alert(alerts.ALERT_RULE_PERFORMANCE, cause=cause))
    assert isinstance(run, Run)
    assert run.cut_known_at_us == DAY - 1


@pytest.mark.parametrize("confidence", [0.0, 0.3, 0.99])
def test_a_loss_that_rose_because_data_broke_leads_to_no_run(
    listener: Listener, confidence: float
) -> None:
    broken = an_alert(
        alerts.ALERT_RULE_PERFORMANCE,
        cause=alerts.CAUSE_CLASS_DATA_BREAK,
        diagnosis=alerts.Diagnosis(confidence=confidence),
    )
    assert not listener.hear(broken)
    worse = an_alert(
        alerts.ALERT_RULE_PERFORMANCE,
        cause=alerts.CAUSE_CLASS_DATA_BREAK,
        state=alerts.ALERT_STATE_ESCALATED,
        revision=2,
    )
    assert not listener.hear(worse)
    other = an_alert(
        alerts.ALERT_RULE_PERFORMANCE,
        cause=alerts.CAUSE_CLASS_CONCEPT,
        state=alerts.ALERT_STATE_ESCALATED,
        revision=3,
    )
    (run,) = listener.hear(other)
    assert isinstance(run, Run)


@pytest.mark.parametrize(
    "rule",
    [value for value in alerts.AlertRule.values() if value != alerts.ALERT_RULE_PERFORMANCE],
)
@pytest.mark.parametrize("cause", alerts.CauseClass.values())
def test_every_other_rule_leads_to_none(listener: Listener, rule: int, cause: int) -> None:
    assert not listener.hear(an_alert(rule, cause=cause))
    assert not listener.memory.held
    assert not listener.memory.models["m"].open_alerts


def test_an_alert_that_somebody_has_seen_leads_to_no_second_run(listener: Listener) -> None:
    opened = an_alert(alerts.ALERT_RULE_PERFORMANCE, cause=alerts.CAUSE_CLASS_CONCEPT, revision=1)
    seen = an_alert(
        alerts.ALERT_RULE_PERFORMANCE,
        cause=alerts.CAUSE_CLASS_CONCEPT,
        revision=2,
        acknowledged_by="ann",
    )
    assert len(listener.hear(opened)) == 1
    assert not listener.hear(seen)


def test_a_diagnosis_alone_leads_to_no_run(listener: Listener) -> None:
    opened = an_alert(alerts.ALERT_RULE_PERFORMANCE, cause=alerts.CAUSE_CLASS_DATA_BREAK)
    diagnosed = an_alert(
        alerts.ALERT_RULE_PERFORMANCE,
        cause=alerts.CAUSE_CLASS_CONCEPT,
        state=alerts.ALERT_STATE_DIAGNOSED,
        revision=2,
    )
    assert not listener.hear(opened)
    assert not listener.hear(diagnosed)
    assert list(listener.memory.models["m"].open_alerts) == ["a"]


def test_an_alert_about_a_version_that_was_not_heard_of_waits(listener: Listener) -> None:
    assert not listener.hear(an_alert(alerts.ALERT_RULE_PERFORMANCE, version=2))
    (run,) = listener.hear(
        VersionChanged(model_name="m", version=2, champion_version=2, run_id="r")
    )
    assert isinstance(run, Run)
    assert not listener.memory.held


def test_what_a_new_life_of_the_broker_repeats_changes_nothing(listener: Listener) -> None:
    promoted = VersionChanged(model_name="m", version=2, champion_version=2, run_id="r", revision=2)
    first = VersionChanged(model_name="m", version=1, champion_version=1, revision=1)
    opened = an_alert(alerts.ALERT_RULE_PERFORMANCE, version=2)
    resolved = an_alert(alerts.ALERT_RULE_PERFORMANCE, version=2, state=alerts.ALERT_STATE_RESOLVED)
    story = [first, promoted, opened, resolved]
    wanted = [run for message in story for run in listener.hear(message)]
    assert len(wanted) == 1
    before = listener.memory.to_plain()
    assert not [run for message in story for run in listener.hear(message)]
    assert listener.memory.to_plain() == before


class KnowsOne:
    """A registry with version 1 of m, which a person brought."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[tuple[str, int]] = []

    async def reference_rows(self, model_name: str, version: int) -> int | None:
        self.asked.append((model_name, version))
        if self.error is not None:
            raise self.error
        if (model_name, version) != ("m", 1):
            raise UnknownToPeer("NOT_FOUND")
        return 5000


async def heard(*messages: object, registry: KnowsOne | None = None, **newest: int) -> Heard:
    records = [(Received("topic", 0, at, None, b"", {}), each) for at, each in enumerate(messages)]
    return await sort_out(records, registry or KnowsOne(), newest)


def changed(block: JoinedBlock, **changes: object) -> JoinedBlock:
    for name, value in changes.items():
        setattr(block, name, value)
    return block


PERFORMANCE = alerts.ALERT_RULE_PERFORMANCE
FAR = Watermark(source_id="ledger", watermark_us=2**62)
GARBAGE = {
    "short-revisions": changed(a_block([1, 1]), revisions=b"\1\0\0\0"),
    "odd-revisions": changed(a_block([1, 1]), revisions=b"abc"),
    "short-times": changed(a_block([1, 1]), known_at_us=b"\0" * 8),
    "time-beyond-the-ages": changed(a_block([1]), known_at_us=(2**62).to_bytes(8, "little")),
    "rows-of-nobody": changed(a_block([1]), model_name=""),
    "block-with-nul": changed(a_block([1]), model_name="m\0"),
    "mark-beyond-the-ages": JoinedBlock(watermark=FAR),
    "mark-with-nul": JoinedBlock(watermark=Watermark(source_id="\0", watermark_us=1)),
    "version-with-nul": VersionChanged(model_name="m\0", version=1),
    "version-of-nobody": VersionChanged(model_name="x", version=1, champion_version=1),
    "alert-with-nul": an_alert(PERFORMANCE, model_name="m\0"),
    "alert-id-with-nul": an_alert(PERFORMANCE, alert_id="\0"),
    "alert-beyond-the-ages": an_alert(PERFORMANCE, watermark_us=-(2**62)),
    "alert-of-a-version-that-never-comes": an_alert(PERFORMANCE, version=7),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_one_record_of_garbage_is_a_dead_letter_and_the_next_is_heard(
    garbage: object,
) -> None:
    good = a_block([1, 2])
    sorted_out = await heard(garbage, good, m=1)
    assert [message for _, message in sorted_out.records] == [good]
    (letter,) = sorted_out.unreadable
    assert letter.received.offset == 0
    assert letter.reason


async def test_what_a_service_sends_is_no_garbage() -> None:
    promoted = VersionChanged(model_name="m", version=1, champion_version=1)
    mark = JoinedBlock(watermark=Watermark(source_id="ledger", watermark_us=DAY))
    sorted_out = await heard(promoted, a_block([1]), mark, an_alert(PERFORMANCE))
    assert len(sorted_out.records) == 4
    assert sorted_out.lengths == {("m", 1): 5000}


async def test_the_registry_is_asked_about_no_alert_whose_version_was_heard_of() -> None:
    registry = KnowsOne()
    await heard(
        an_alert(PERFORMANCE), an_alert(alerts.ALERT_RULE_COVARIATE), registry=registry, m=1
    )
    assert not registry.asked


async def test_a_registry_that_is_away_buries_nothing() -> None:
    with pytest.raises(PeerAway):
        await heard(an_alert(PERFORMANCE), registry=KnowsOne(PeerAway("UNAVAILABLE")))


def test_a_traceparent_of_garbage_is_not_kept(listener: Listener) -> None:
    record = Received("topic", 0, 0, b"m", b"", {"traceparent": b"\0"})
    message = an_alert(PERFORMANCE, watermark_us=2 * DAY)
    apply(record, message, listener.memory, listener.marks, {}, Policy())
    assert listener.memory.held[0].traceparent is None


async def test_traffic_shared_out_otherwise_brings_no_champion_and_keeps_w() -> None:
    shared = VersionChanged(
        model_name="m", version=1, champion_version=1, change=VERSION_CHANGE_SERVING
    )
    registry = KnowsOne()
    assert (await heard(shared, registry=registry)).lengths == {}
    assert registry.asked == []


def test_an_alert_about_a_canary_leads_to_no_run(listener: Listener) -> None:
    listener.hear(VersionChanged(model_name="m", version=2, champion_version=1, revision=2))
    (skipped,) = listener.hear(an_alert(PERFORMANCE, version=2))
    assert not isinstance(skipped, Run)
