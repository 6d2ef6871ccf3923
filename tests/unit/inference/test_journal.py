"""The journal keeps whole records, in order, or says that it did not."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.waiting import eventually

from homeostat_inference.app.ports import Chain, Kind
from homeostat_inference.domain.errors import NotKept
from homeostat_inference.edges import journal_files as files_module
from homeostat_inference.edges import journal_reader as reader_module
from homeostat_inference.edges import journal_writer as module
from homeostat_inference.edges.journal_format import (
    HEAD,
    Record,
    end_of_records,
    frame,
    segment_path,
)
from homeostat_inference.edges.journal_reader import JournalReader
from homeostat_inference.edges.journal_writer import JournalInUse, JournalWriter

PAYLOADS = st.lists(st.binary(max_size=200), min_size=1, max_size=12)


def a_journal(folder: Path, **changes: Any) -> JournalWriter:
    fields: dict[str, Any] = {
        "segment_bytes": 1 << 16,
        "quota_bytes": 1 << 30,
        "is_durable": True,
        **changes,
    }
    return JournalWriter(folder, **fields)


class Outcome:
    """What the journal says of one record."""

    def __init__(self) -> None:
        self.is_told = threading.Event()
        self.error: Exception | None = None

    def __call__(self, error: Exception | None) -> None:
        self.error = error
        self.is_told.set()


def keep(
    journal: JournalWriter, payload: bytes, kind: Kind = Kind.OUTCOMES, **more: Any
) -> Exception | None:
    """Appends and commits, and gives what was said."""
    outcome = Outcome()
    journal.append(kind, payload, done=outcome, **more)
    journal.commit()
    assert outcome.is_told.wait(60)
    return outcome.error


def everything(folder: Path, committed: int | None = None) -> list[Record]:
    """All records that a reader in another process would find."""
    reader = JournalReader(folder, lambda: committed)
    found: list[Record] = []
    position = reader.start
    while (chunk := reader.read(position, 64)).after != position:
        found += chunk.records
        position = chunk.after
    return found


def payloads_in(folder: Path) -> list[bytes]:
    return [each.payload for each in everything(folder) if each.kind != Kind.BEGIN]


def framed(payloads: list[bytes], position: int = 0) -> list[bytes]:
    frames = []
    for payload in payloads:
        frames.append(frame(Kind.OUTCOMES, payload, position))
        position += len(frames[-1])
    return frames


@settings(max_examples=40, deadline=None)
@given(payloads=PAYLOADS, data=st.data())
def test_a_tail_torn_at_any_byte_leaves_exactly_the_whole_records(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    frames = framed(payloads)
    whole = b"".join(frames)
    cut = data.draw(st.integers(0, len(whole)))
    garbage = data.draw(st.binary(max_size=20)) if cut < len(whole) else b""
    damaged = whole[:cut] + garbage
    if whole.startswith(damaged):
        cut = len(damaged)
    # What stands behind it: nothing, zeros of a file made ahead, or its earlier life.
    behind = data.draw(st.sampled_from([b"", bytes(300), b"".join(framed(payloads, 9999))]))
    segment_path(folder, 0).write_bytes(damaged + behind)
    kept = [
        payload
        for index, payload in enumerate(payloads)
        if sum(len(each) for each in frames[: index + 1]) <= cut
    ]
    with a_journal(folder) as journal:
        assert payloads_in(folder) == kept
        assert keep(journal, b"after the crash") is None
    assert payloads_in(folder) == [*kept, b"after the crash"]


@settings(max_examples=15, deadline=None)
@given(payloads=PAYLOADS, segment_bytes=st.integers(1, 300))
def test_records_come_back_in_order_over_segments_and_restarts(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], segment_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    half = len(payloads) // 2
    for some in (payloads[:half], payloads[half:]):
        with a_journal(folder, segment_bytes=segment_bytes, is_durable=False) as journal:
            for payload in some:
                assert keep(journal, payload) is None
    positions = [each.position for each in everything(folder)]
    assert positions == sorted(set(positions))
    assert payloads_in(folder) == payloads


def test_a_writer_that_begins_again_says_so_first(tmp_path: Path) -> None:
    for _ in range(2):
        with a_journal(tmp_path) as journal:
            assert keep(journal, b"rows") is None
    assert [each.kind for each in everything(tmp_path)] == [
        Kind.OUTCOMES,
        Kind.BEGIN,
        Kind.OUTCOMES,
    ]


def test_a_writer_says_that_it_begins_behind_a_file_in_which_nothing_stands(
    tmp_path: Path,
) -> None:
    with a_journal(tmp_path) as journal:
        assert keep(journal, b"rows") is None
        end = journal.end
    # A process that died, or had no disk space, before the first record of its segment.
    segment_path(tmp_path, end).write_bytes(b"")
    with a_journal(tmp_path) as journal:
        journal.commit()
    assert [each.kind for each in everything(tmp_path)] == [Kind.OUTCOMES, Kind.BEGIN]


def test_what_a_crash_left_unfinished_is_counted(tmp_path: Path) -> None:
    whole = b"".join(framed([b"one", b"two"]))
    segment_path(tmp_path, 0).write_bytes(whole[:-1] + bytes(50))
    with a_journal(tmp_path) as journal:
        assert journal.cut_bytes == HEAD.size + 3


def test_an_earlier_life_of_a_file_never_passes_for_records(tmp_path: Path) -> None:
    frames = framed([b"old", b"old", b"old"], position=1000)
    new = frame(Kind.OUTCOMES, b"new", 5000)
    end, _ = end_of_records(new + b"".join(frames[1:]), 5000)
    assert end == 5000 + len(new)


def test_what_nobody_commits_is_committed(tmp_path: Path) -> None:
    outcome = Outcome()
    with a_journal(tmp_path) as journal:
        journal.append(Kind.OUTCOMES, b"forgotten", done=outcome)
        assert outcome.is_told.wait(60)
    assert payloads_in(tmp_path) == [b"forgotten"]


def test_many_threads_commit_in_groups_and_each_hears_of_its_own(tmp_path: Path) -> None:
    outcomes: list[Outcome] = []

    def many(number: int) -> None:
        for index in range(50):
            outcome = Outcome()
            outcomes.append(outcome)
            journal.append(Kind.OUTCOMES, b"%d.%d" % (number, index), done=outcome)
            journal.commit()
            assert outcome.is_told.wait(60)

    with a_journal(tmp_path, segment_bytes=1000) as journal:
        threads = [threading.Thread(target=many, args=(number,)) for number in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(30)
        assert journal.groups_count <= journal.records_count == 200
    assert len(payloads_in(tmp_path)) == 200
    assert all(each.is_told.is_set() and each.error is None for each in outcomes)


class Disk:
    """Lets a few bytes through and then fails, as a full or a broken disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int = errno.ENOSPC) -> None:
        self.fails_at: set[str] = set()
        self.bytes_through = 5
        self._code = code
        self._has_written = False
        for name in ("pwrite", "fdatasync", "ftruncate"):
            real: Callable[..., Any] = getattr(os, name)
            monkeypatch.setattr(module.os, name, self._failing(name, real))

    def _failing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: int, *rest: Any) -> Any:
            if name not in self.fails_at:
                return real(file, *rest)
            self._has_written = not self._has_written
            if name == "pwrite" and self._has_written:
                data, at = rest
                return real(file, bytes(data)[: self.bytes_through], at)
            raise OSError(self._code, os.strerror(self._code))

        return call


@pytest.mark.parametrize("fails_at", [{"pwrite"}, {"pwrite", "ftruncate"}, {"fdatasync"}])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_is_said_and_readers_see_no_part_of_what_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: set[str], code: int
) -> None:
    disk = Disk(monkeypatch, code)
    with a_journal(tmp_path) as journal:
        assert keep(journal, b"one") is None
        disk.fails_at = fails_at
        error = keep(journal, b"two" * 20)
        assert isinstance(error, NotKept)
        assert os.strerror(code) in str(error)
        assert [each.payload for each in everything(tmp_path, journal.end)] == [b"one"]
        disk.fails_at = set()
        assert keep(journal, b"three") is None
        assert keep(journal, b"four") is None
        assert [each.payload for each in everything(tmp_path, journal.end)] == [
            b"one",
            b"three",
            b"four",
        ]
    assert payloads_in(tmp_path) == [b"one", b"three", b"four"]


@pytest.mark.parametrize("fails_at", [{"pwrite"}, {"fdatasync"}])
def test_of_what_was_refused_nothing_is_found_after_a_crash_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: set[str]
) -> None:
    disk = Disk(monkeypatch)
    # The first of two records goes through.
    disk.bytes_through = 60
    refused = [Outcome(), Outcome()]
    with a_journal(tmp_path) as journal:
        assert keep(journal, b"one") is None
        disk.fails_at = fails_at
        journal.append(Kind.OUTCOMES, b"two", done=refused[0])
        journal.append(Kind.OUTCOMES, b"three" * 20, done=refused[1])
        journal.commit()
        assert [isinstance(each.error, NotKept) for each in refused] == [True, True]
        # As who comes after the crash reads it, who is told by nobody how far it goes.
        assert payloads_in(tmp_path) == [b"one"]
        disk.fails_at = set()


def test_what_must_be_kept_is_owed_while_the_disk_fails_and_comes_before_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    owed = Outcome()
    with a_journal(tmp_path) as journal:
        disk.fails_at = {"pwrite"}
        journal.append(Kind.SEAL, b"seal", done=owed, must=True)
        journal.commit()
        assert not owed.is_told.is_set()
        assert journal.unsettled_count == 1
        disk.fails_at = set()
        assert keep(journal, b"later") is None
        assert owed.is_told.is_set()
    assert payloads_in(tmp_path) == [b"seal", b"later"]


def test_the_quota_refuses_rows_but_not_what_must_be_kept_and_opens_when_some_is_forgotten(
    tmp_path: Path,
) -> None:
    start = 0
    with a_journal(tmp_path, quota_bytes=100, start=lambda: start) as journal:
        assert keep(journal, b"x" * 60) is None
        assert isinstance(keep(journal, b"y" * 60), NotKept)
        assert keep(journal, b"seal", Kind.SEAL, must=True) is None
        start = 69
        assert keep(journal, b"y" * 60) is None


def test_a_block_of_which_nothing_was_kept_gets_no_end_so_that_a_full_journal_does_not_grow(
    tmp_path: Path,
) -> None:
    begun = Chain()
    with a_journal(tmp_path, quota_bytes=100) as journal:
        assert keep(journal, b"x" * 60, Kind.ROWS, chain=begun) is None
        end = journal.end
        for _ in range(50):
            chain = Chain()
            assert isinstance(keep(journal, b"y" * 60, Kind.ROWS, chain=chain), NotKept)
            journal.append(Kind.SEAL, b"seal", chain=chain, must=True)
        assert isinstance(keep(journal, b"y" * 60), NotKept)
        assert journal.end == end
        assert isinstance(keep(journal, b"y" * 60, Kind.ROWS, chain=begun), NotKept)
        assert keep(journal, b"seal", Kind.SEAL, chain=begun, must=True) is None
        assert journal.unsettled_count == 0
    assert len(everything(tmp_path)) == 2


def test_ends_that_are_owed_are_kept_in_a_full_journal_although_rows_keep_coming(
    tmp_path: Path,
) -> None:
    owed = Outcome()
    with a_journal(tmp_path, quota_bytes=100) as journal:
        assert keep(journal, b"x" * 60) is None
        journal.append(Kind.SEAL, b"seal", done=owed, must=True)
        for _ in range(5):
            journal.append(Kind.ROWS, b"y" * 60)
        journal.commit()
        journal.commit()
        assert owed.is_told.is_set()


def test_after_a_lost_record_its_chain_is_refused_and_others_are_kept(tmp_path: Path) -> None:
    chain = Chain()
    with a_journal(tmp_path, quota_bytes=100) as journal:
        assert isinstance(keep(journal, b"y" * 160, chain=chain), NotKept)
        assert isinstance(keep(journal, b"small", chain=chain), NotKept)
        assert keep(journal, b"small", chain=Chain()) is None


def test_two_processes_never_write_one_journal(tmp_path: Path) -> None:
    with a_journal(tmp_path), pytest.raises(JournalInUse), a_journal(tmp_path):
        pass


def test_damage_in_an_older_segment_loses_that_one_and_no_other(tmp_path: Path) -> None:
    with a_journal(tmp_path, segment_bytes=10) as journal:
        for number in range(3):
            assert keep(journal, b"record %d" % number) is None
    reader = JournalReader(tmp_path, lambda: None)
    middle = reader.segments()[1]
    content = bytearray(middle.path.read_bytes())
    content[10] ^= 1
    middle.path.write_bytes(bytes(content))
    chunk = reader.read(middle.start, 100)
    assert (chunk.records, chunk.after) == ([], middle.end)
    assert chunk.lost_bytes == middle.end - middle.start
    assert payloads_in(tmp_path) == [b"record 0", b"record 2"]


def test_a_reader_goes_no_further_than_the_writer_has_told(tmp_path: Path) -> None:
    with a_journal(tmp_path) as journal:
        assert keep(journal, b"one") is None
        end = journal.end
        assert keep(journal, b"two") is None
        assert [each.payload for each in everything(tmp_path, end)] == [b"one"]
        reader = JournalReader(tmp_path, lambda: end)
        assert (reader.end, reader.read(end, 100).after) == (end, end)


async def test_what_the_reader_has_done_with_is_written_again(tmp_path: Path) -> None:
    with a_journal(tmp_path, segment_bytes=4096) as journal:
        reader = JournalReader(tmp_path, lambda: journal.end)
        await eventually(lambda: journal._files.is_ready)
        for _ in range(3):
            assert keep(journal, b"x" * 3000) is None
            await eventually(lambda: journal._files.is_ready)
        oldest = reader.segments()[0]
        file_number = oldest.path.stat().st_ino
        reader.recycle(oldest)
        assert reader.start == oldest.end
        assert reader.read(0, 100).lost_bytes == oldest.end
        for _ in range(2):
            assert keep(journal, b"x" * 3000) is None
            await eventually(lambda: journal._files.is_ready)
        assert file_number in {each.path.stat().st_ino for each in reader.segments()}
        with pytest.raises(ValueError, match="oldest"):
            reader.recycle(reader.segments()[-1])
    assert payloads_in(tmp_path) == [b"x" * 3000] * 4


def test_who_does_not_hold_the_folder_writes_nothing_into_it(tmp_path: Path) -> None:
    with a_journal(tmp_path) as living:
        assert keep(living, b"first") is None
        for stranger in (a_journal(tmp_path), a_journal(tmp_path)):
            assert isinstance(keep(stranger, b"mark", Kind.CALLER_MARK), NotKept)
            with pytest.raises(JournalInUse):
                stranger.__enter__()
            assert isinstance(keep(stranger, b"mark", Kind.CALLER_MARK), NotKept)
        assert keep(living, b"second") is None
    assert isinstance(keep(living, b"too late"), NotKept)
    assert payloads_in(tmp_path) == [b"first", b"second"]


def test_a_folder_that_did_not_change_is_not_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[Path] = []
    found_starts = reader_module.found_starts

    def counted(folder: Path) -> list[int]:
        listed.append(folder)
        return found_starts(folder)

    monkeypatch.setattr(reader_module, "found_starts", counted)
    with a_journal(tmp_path, segment_bytes=1) as journal:
        reader = JournalReader(tmp_path, lambda: journal.end)
        for number in range(3):
            assert keep(journal, bytes([number])) is None
            assert reader.end == journal.end, "a new file is seen at once"
    monkeypatch.setattr(reader_module, "_SAME_TIME_NS", -1)
    assert reader.end
    listed.clear()
    for _ in range(9):
        assert (reader.start, reader.end) == (0, journal.end)
    assert not listed


def test_a_disk_that_fails_is_tried_again_after_a_pause_and_no_file_is_left_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files_module, "sync_folder", fails)
    before = len(list(Path("/proc/self/fd").iterdir()))
    files = files_module.FilesAhead(tmp_path, 4096)
    files.wanted.set()
    assert not files.is_ready
    files.prepare()
    assert files.is_ready, "for now there is nothing to be done"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_after_a_bug_every_caller_is_told_and_no_chain_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*told: Any) -> bytes:
        raise MemoryError

    broken, fresh, done = Chain(), Chain(), [Outcome() for _ in range(3)]
    with a_journal(tmp_path) as journal:
        broken.is_broken = True
        with monkeypatch.context() as patched:
            patched.setattr(module, "frame", fail)
            for chain, each in zip((broken, fresh, None), done, strict=True):
                journal.append(Kind.ROWS, b"rows", done=each, chain=chain)
            journal.append(Kind.SEAL, b"seal", chain=fresh, must=True)
            journal.commit()
            assert all(each.is_told.wait(60) for each in done)
        assert all(isinstance(each.error, NotKept) for each in done)
        assert fresh.is_broken
        assert journal.unsettled_count == 0
        assert isinstance(keep(journal, b"behind", Kind.ROWS, chain=fresh), NotKept)
        assert keep(journal, b"next") is None
    assert payloads_in(tmp_path) == [b"next"]


def test_whoever_can_not_be_told_of_records_does_not_unmake_them(tmp_path: Path) -> None:
    def fail(end: int) -> None:
        raise BlockingIOError

    with a_journal(tmp_path, on_commit=fail) as journal:
        assert keep(journal, b"kept") is None
    assert payloads_in(tmp_path) == [b"kept"]
