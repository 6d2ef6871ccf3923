"""Blocks and reference profiles from bytes: what fits is read, what does not is said."""

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.monitor import DATATYPES, INPUTS, Days, blocks, days, joined, profile

from homeostat import reference
from homeostat.columns import pack
from homeostat.events.v1.column_pb2 import Arm
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.schema import fingerprint
from homeostat_monitor.app.watches import fresh_losses
from homeostat_monitor.domain.calibration import profile_of
from homeostat_monitor.domain.errors import UnreadableBlock, UnusableReference
from homeostat_monitor.domain.losses.truths import Task
from homeostat_monitor.domain.policies.policy import Policy, Segment
from homeostat_monitor.domain.windows.bins import CategoryColumn, NumberColumn
from homeostat_monitor.domain.windows.sums import count
from homeostat_monitor.intake.blocks import (
    check,
    check_time,
    first_truths,
    is_judged,
    schema_of,
    subject_of,
    taken_rows,
)
from homeostat_monitor.ports import KnownVersion
from homeostat_monitor.references import reference_rows

SCHEMA = schema_of(
    fingerprint(INPUTS), [(each.name, each.datatype, list(each.shape)) for each in INPUTS]
)
SUBJECT = subject_of("delays", 1)
PAST = days(3, first_day=10, seed=1)
PROFILE = profile_of(reference_rows(profile(PAST), SCHEMA))


def summed(what: list[PredictionBlock]) -> np.ndarray:
    for each in what:
        check(each, SCHEMA)
    taken = taken_rows(SUBJECT, PROFILE, SCHEMA, [(0, each) for each in what])
    return count(PROFILE.layout, taken.rows)[0]


@pytest.mark.parametrize("rows", [1, 7, 100, 5000])
def test_the_cut_into_blocks_changes_nothing(rows: int) -> None:
    now = days(2, first_day=20, seed=2, null_rate=0.1)
    sums = summed(blocks(now, rows_a_block=rows))
    assert sums[0] == now.rows
    assert PROFILE.layout.nulls("speed", sums) == np.isnan(now.features["speed"]).sum()
    assert (sums == summed(blocks(now, rows_a_block=50))).all()


def test_texts_keep_their_meaning_over_blocks_with_dictionaries_of_their_own() -> None:
    now = days(1, first_day=20, seed=3, carriers=("DD", "ZZ", "AA"))
    sums = summed(blocks(now, rows_a_block=3))
    assert PROFILE.layout.unseen("carrier", sums) == (now.features["carrier"] == "ZZ").sum()


def test_a_text_column_may_be_all_null_in_a_block() -> None:
    (one, two, *_) = blocks(days(1, first_day=20), rows_a_block=10)
    empty = pack("carrier", np.array([""] * 10, dtype=object), np.zeros(10, bool))
    del empty.dictionary[:]
    one.inputs[2].CopyFrom(empty)
    assert PROFILE.layout.nulls("carrier", summed([one, two])) == 10
    assert PROFILE.layout.nulls("carrier", summed([two, one])) == 10


def _spoil(change: Callable[[PredictionBlock], object]) -> PredictionBlock:
    (block, *_) = blocks(days(1, first_day=20), rows_a_block=10)
    change(block)
    return block


@pytest.mark.parametrize(
    "change",
    [
        lambda block: block.ClearField("block_id"),
        lambda block: setattr(block, "row_count", 11),
        lambda block: setattr(block, "scores", b"\0" * 8),
        lambda block: setattr(block, "schema_fingerprint", "another"),
        lambda block: block.inputs.pop(),
        lambda block: setattr(block.inputs[0], "values", b""),
        lambda block: setattr(block.inputs[0], "name", "other"),
        lambda block: setattr(block.inputs[0], "datatype", "FP64"),
        lambda block: setattr(block.inputs[0], "validity", b"\xff"),
        lambda block: setattr(block.inputs[2], "values", np.full(10, 99, "<i4").tobytes()),
        lambda block: setattr(block.inputs[2], "values", np.full(10, -1, "<i4").tobytes()),
        lambda block: setattr(block, "event_times_us", np.full(10, -(2**63)).tobytes()),
    ],
)
def test_a_block_that_does_not_fit_is_refused(change: Callable[[PredictionBlock], object]) -> None:
    with pytest.raises(UnreadableBlock):
        check(_spoil(change), SCHEMA)


@pytest.mark.parametrize(
    ("name", "version"), [("", 1), ("a\0b", 1), ("x" * 300, 1), ("delays", 2**31)]
)
def test_what_can_be_no_model_is_refused(name: str, version: int) -> None:
    with pytest.raises(UnreadableBlock):
        subject_of(name, version)


def test_times_beyond_the_ages_are_refused() -> None:
    assert check_time(5) == 5
    with pytest.raises(UnreadableBlock):
        check_time(2**63 - 1)


def test_only_first_truths_that_are_finite_are_fed() -> None:
    (block, *_) = joined(days(1, first_day=20), rows_a_block=4)
    block.revisions = np.array([1, 2, 1, 1], "<u4").tobytes()
    block.losses = np.array([0, 1, np.nan, 1], "<f8").tobytes()
    firsts, corrections, not_finite = first_truths(block, b"event")
    assert firsts.losses.tolist() == [0, 1]
    assert [each[16:] for each in firsts.prediction_ids.tolist()] == [b"", b"\x03"]
    assert (corrections, not_finite) == (1, 1)
    block.prediction_ids = block.prediction_ids[:-1]
    with pytest.raises(UnreadableBlock):
        first_truths(block, b"event")


def test_rows_are_judged_that_somebody_was_answered_with() -> None:
    judged = {name for name, arm in Arm.items() if is_judged(arm)}
    assert judged == {"ARM_CHAMPION", "ARM_CANARY", "ARM_PINNED", "ARM_FALLBACK"}


def _rewritten(past: Days, change: Callable[[pa.Table], pa.Table]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(change(reference.read(profile(past))), sink)
    return sink.getvalue()


def test_a_reference_is_read_in_the_types_that_traffic_has() -> None:
    rows = reference_rows(profile(PAST), SCHEMA)
    speed, carrier = rows.features["speed"], rows.features["carrier"]
    assert isinstance(speed, NumberColumn)
    assert isinstance(carrier, CategoryColumn)
    assert speed.values.dtype == np.float32
    assert tuple(rows.features) == tuple(DATATYPES)
    known_at = rows.holdout.known_at_us
    assert (np.diff(known_at) >= 0).all()
    assert len(known_at) == rows.is_holdout.sum()


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["speed"]),
        lambda table: table.drop_columns([reference.LOSS]),
        lambda table: table.set_column(
            table.column_names.index("speed"), "speed", pa.array(["x"] * len(table))
        ),
        lambda table: table.set_column(
            table.column_names.index(reference.EVENT_TIME),
            reference.EVENT_TIME,
            pa.array([None] * len(table), pa.int64()),
        ),
    ],
)
def test_a_reference_that_lacks_something_is_refused(
    change: Callable[[pa.Table], pa.Table],
) -> None:
    with pytest.raises(UnusableReference):
        reference_rows(_rewritten(PAST, change), SCHEMA)


def test_bytes_that_are_no_reference_are_refused() -> None:
    with pytest.raises(UnusableReference):
        reference_rows(b"PAR1 not quite", SCHEMA)
    with pytest.raises(UnusableReference):
        profile_of(reference_rows(_rewritten(PAST, lambda table: table.slice(0, 0)), SCHEMA))


def test_a_segments_losses_are_compared_with_its_own_rows_of_the_hold_out() -> None:
    past = days(12, first_day=10, seed=1)
    is_aa = past.features["carrier"] == "AA"
    past = replace(past, losses=np.where(is_aa, 1.0, past.losses))
    segments = (
        Segment("aa", 'carrier == "AA"'),
        Segment("few", 'carrier == "AA" and stops == 2'),
        Segment("unknown", 'context.region == "north"'),
    )
    policy = Policy(segments=segments)
    made = profile_of(reference_rows(profile(past), SCHEMA), policy=policy)
    known = KnownVersion(SUBJECT, Task.BINARY, made, policy=policy)
    watches = {name: fresh_losses(known, name) for name in ("", "aa", "few", "unknown")}
    assert watches["aa"].reference == 1.0
    assert watches[""].reference < 0.6
    assert watches["few"].is_learning
    assert watches["unknown"].is_learning


def test_a_segment_has_its_own_norm_and_one_of_few_rows_that_of_all() -> None:
    segments = (Segment("rest", 'carrier != "AA"'), Segment("few", 'carrier == "AA"'))
    made = profile_of(reference_rows(profile(PAST), SCHEMA), policy=Policy(segments=segments))
    of_segment, of_all = made.norm("rest"), made.norm("")
    assert of_all.reference[0] == PAST.rows
    assert of_segment.reference[0] == (PAST.features["carrier"] != "AA").sum()
    assert made.norm("few") is of_all
    assert made.norm("of a policy that is gone") is of_all
