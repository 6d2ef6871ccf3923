"""The journal keeps whole records, in order, or says that it did not."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeostat_inference.app.ports import Chain, Kind
from homeostat_inference.domain.errors import NotKept
from homeostat_inference.edges import journal as module
from homeostat_inference.edges.journal import Journal, JournalInUse, Record, frame

PAYLOADS = st.lists(st.binary(max_size=200), min_size=1, max_size=12)


def a_journal(folder: Path, **changes: Any) -> Journal:
    fields: dict[str, Any] = {
        "segment_bytes": 1 << 20,
        "quota_bytes": 1 << 30,
        "is_durable": True,
        **changes,
    }
    return Journal(folder, **fields)


class Outcome:
    """Waits for what the journal says of one record."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self.error: Exception | None = None

    def __call__(self, error: Exception | None) -> None:
        self.error = error
        self._told.set()

    def wait(self) -> Exception | None:
        assert self._told.wait(10)
        return self.error


def keep(journal: Journal, payload: bytes, kind: Kind = Kind.OUTCOMES, **more: Any) -> Outcome:
    outcome = Outcome()
    journal.append(kind, payload, done=outcome, **more)
    return outcome


def everything(journal: Journal) -> list[Record]:
    found: list[Record] = []
    position = journal.start
    while position < journal.end:
        found += journal.read(position, 64)
        position = found[-1].after
    return found


@settings(max_examples=40, deadline=None)
@given(payloads=PAYLOADS, data=st.data())
def test_a_tail_torn_at_any_byte_leaves_exactly_the_whole_records(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    frames = [frame(Kind.OUTCOMES, each) for each in payloads]
    whole = b"".join(frames)
    cut = data.draw(st.integers(0, len(whole)))
    garbage = data.draw(st.binary(max_size=20)) if cut < len(whole) else b""
    damaged = whole[:cut] + garbage
    if whole.startswith(damaged):
        cut = len(damaged)
    (folder / f"{0:020d}.journal").write_bytes(damaged)
    kept = [
        payload
        for index, payload in enumerate(payloads)
        if sum(len(each) for each in frames[: index + 1]) <= cut
    ]
    with a_journal(folder) as journal:
        assert [each.payload for each in everything(journal)] == kept
        assert keep(journal, b"after the crash").wait() is None
        assert [each.payload for each in everything(journal)] == [*kept, b"after the crash"]


@settings(max_examples=15, deadline=None)
@given(payloads=PAYLOADS, segment_bytes=st.integers(1, 300))
def test_records_come_back_in_order_over_segments_and_restarts(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], segment_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    half = len(payloads) // 2
    for some in (payloads[:half], payloads[half:]):
        with a_journal(folder, segment_bytes=segment_bytes, is_durable=False) as journal:
            for each in [keep(journal, payload) for payload in some]:
                assert each.wait() is None
            positions = [each.position for each in everything(journal)]
    assert positions == sorted(set(positions))
    with a_journal(folder) as journal:
        assert [each.payload for each in everything(journal)] == payloads


class FullDisk:
    """Writes a few bytes, then nothing, as a full disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self._real = os.write
        self._has_written = False
        monkeypatch.setattr(module.os, "write", self._write)

    def _write(self, file: int, data: Any) -> int:
        if not self.is_full:
            return self._real(file, data)
        self._has_written = not self._has_written
        if self._has_written:
            return self._real(file, data[:3])
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_said_and_leaves_no_part_of_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    with a_journal(tmp_path) as journal:
        assert keep(journal, b"one").wait() is None
        end = journal.end
        disk.is_full = True
        error = keep(journal, b"two").wait()
        assert isinstance(error, NotKept)
        assert "No space left" in str(error)
        assert journal.segments[-1].path.stat().st_size == end
        disk.is_full = False
        assert keep(journal, b"three").wait() is None
        assert [each.payload for each in everything(journal)] == [b"one", b"three"]


def test_the_quota_refuses_rows_but_not_what_must_be_kept(tmp_path: Path) -> None:
    with a_journal(tmp_path, quota_bytes=100) as journal:
        assert keep(journal, b"x" * 60).wait() is None
        assert isinstance(keep(journal, b"y" * 60).wait(), NotKept)
        assert keep(journal, b"seal", Kind.SEAL, must=True).wait() is None


def test_a_block_of_which_nothing_was_kept_gets_no_end_so_that_a_full_journal_does_not_grow(
    tmp_path: Path,
) -> None:
    begun = Chain()
    with a_journal(tmp_path, quota_bytes=100) as journal:
        assert keep(journal, b"x" * 60, Kind.ROWS, chain=begun).wait() is None
        end = journal.end
        for _ in range(50):
            chain = Chain()
            assert isinstance(keep(journal, b"y" * 60, Kind.ROWS, chain=chain).wait(), NotKept)
            journal.append(Kind.SEAL, b"seal", chain=chain, must=True)
        assert isinstance(keep(journal, b"y" * 60).wait(), NotKept)
        assert journal.end == end
        assert isinstance(keep(journal, b"y" * 60, Kind.ROWS, chain=begun).wait(), NotKept)
        assert keep(journal, b"seal", Kind.SEAL, chain=begun, must=True).wait() is None
        assert len(everything(journal)) == 2
    assert journal.unsettled_count == 0


def test_ends_that_are_owed_are_kept_in_a_full_journal_although_rows_keep_coming(
    tmp_path: Path,
) -> None:
    with a_journal(tmp_path, quota_bytes=100) as journal:
        assert keep(journal, b"x" * 60).wait() is None
        with journal._changed:
            owed = keep(journal, b"seal", Kind.SEAL, must=True)
            for _ in range(5):
                keep(journal, b"y" * 60)
        keep(journal, b"y" * 60)
        assert owed.wait() is None


def test_after_a_lost_record_its_chain_is_refused_and_others_are_kept(tmp_path: Path) -> None:
    chain = Chain()
    with a_journal(tmp_path, quota_bytes=100) as journal:
        assert isinstance(keep(journal, b"y" * 160, chain=chain).wait(), NotKept)
        assert isinstance(keep(journal, b"small", chain=chain).wait(), NotKept)
        assert keep(journal, b"small", chain=Chain()).wait() is None


def test_two_processes_never_write_one_journal(tmp_path: Path) -> None:
    with a_journal(tmp_path), pytest.raises(JournalInUse), a_journal(tmp_path):
        pass


def test_damage_in_an_older_segment_loses_that_one_and_no_other(tmp_path: Path) -> None:
    with a_journal(tmp_path, segment_bytes=10) as journal:
        for number in range(3):
            assert keep(journal, b"record %d" % number).wait() is None
        assert len(journal.segments) == 3
        middle = journal.segments[1]
    content = bytearray(middle.path.read_bytes())
    content[-1] ^= 1
    middle.path.write_bytes(bytes(content))
    with a_journal(tmp_path) as journal:
        with pytest.raises(module.DamagedJournal):
            journal.read(middle.start, 100)
        assert journal.read_behind_damage(middle.start, 100)[0].payload == b"record 2"
