"""What a worker's death has for consequences."""

import signal

import pytest

from homeostat_inference.app.plan import QuarantinePlan
from homeostat_inference.app.supervising import (
    ALONE_CRASHES,
    AMONG_CRASHES,
    DEATHS,
    LOAD_CRASHES,
    SUSPECT_SECONDS,
    VERSION_CRASHES,
    VERSION_SECONDS,
    CrashBook,
    DeadRun,
    Restarts,
    end_reason,
)

ROW = DeadRun("risk", 3, 1, ("aa",))


def crashed(book: CrashBook, *runs: DeadRun, times: int = 1, apart: float = 1000.0) -> None:
    """So many crashes, with so many seconds between them."""
    for number in range(times):
        book.note(runs, "signal 8 (SIGFPE)", number * apart, 0)


def held(book: CrashBook) -> list[tuple[str, int, str]]:
    return [(each.model_name, each.version, each.input_fingerprint) for each in book.held]


def test_a_version_that_ran_is_suspected_for_a_while() -> None:
    book = CrashBook()
    book.note([ROW], "x", 10.0, 0)
    assert book.suspects(10.0) == (("risk", 3),)
    assert book.suspects(10.0 + SUSPECT_SECONDS) == ()


def test_a_row_that_ran_alone_is_held_back_after_its_second_crash() -> None:
    book = CrashBook()
    crashed(book, ROW, times=ALONE_CRASHES - 1)
    assert not book.held
    crashed(book, ROW)
    assert held(book) == [("risk", 3, "aa")]
    assert book.plans() == (QuarantinePlan("risk", 3, book.held[0].reason, ("aa",)),)


def test_a_row_among_others_takes_one_crash_more() -> None:
    book = CrashBook()
    run = DeadRun("risk", 3, 2, ("aa", "bb"))
    crashed(book, run, times=AMONG_CRASHES - 1)
    assert not book.held
    crashed(book, run)
    assert set(held(book)) == {("risk", 3, "aa"), ("risk", 3, "bb")}


def test_while_two_runs_are_under_way_neither_row_is_alone() -> None:
    book = CrashBook()
    crashed(book, ROW, DeadRun("other", 1, 1, ("cc",)), times=ALONE_CRASHES)
    assert not book.held


def test_a_version_is_held_back_after_five_crashes_in_five_minutes_and_not_in_more() -> None:
    runs = [DeadRun("risk", 3, 1000)]
    slow, fast = CrashBook(), CrashBook()
    crashed(slow, *runs, times=20, apart=VERSION_SECONDS / (VERSION_CRASHES - 1))
    assert not slow.held
    crashed(fast, *runs, times=VERSION_CRASHES, apart=1.0)
    assert held(fast) == [("risk", 3, "")]
    assert not fast.plans()[0].input_fingerprints


def test_who_ran_beside_the_one_that_crashes_is_not_held_back() -> None:
    book = CrashBook()
    crashed(book, DeadRun("bad", 1, 1000), DeadRun("good", 1, 1000), times=VERSION_CRASHES, apart=1)
    assert not book.held
    assert book.suspects(0.0) == (("bad", 1), ("good", 1))
    crashed(book, DeadRun("bad", 1, 1000), times=VERSION_CRASHES, apart=1.0)
    assert held(book) == [("bad", 1, "")]


def test_a_version_that_can_not_be_loaded_is_held_back_sooner() -> None:
    book = CrashBook()
    crashed(book, DeadRun("risk", 3, 0), times=LOAD_CRASHES, apart=1.0)
    assert held(book) == [("risk", 3, "")]
    assert book.unloadable() == {("risk", 3)}
    again = CrashBook()
    again.restore(book.stored())
    assert again.unloadable() == {("risk", 3)}


@pytest.mark.parametrize(("name", "left"), [("", 0), ("aa", 1), ("zz", 2)])
def test_what_is_released_may_run_again_and_starts_anew(name: str, left: int) -> None:
    book = CrashBook()
    for each in ("aa", "bb"):
        crashed(book, DeadRun("risk", 3, 1, (each,)), times=ALONE_CRASHES)
    assert book.release("risk", 3, name) == 2 - left
    assert book.release("risk", 4, "") == 0
    assert len(book.held) == left
    if name == "aa":
        crashed(book, ROW)
        assert len(book.held) == left


def test_what_is_held_outlives_the_book() -> None:
    book, other = CrashBook(), CrashBook()
    crashed(book, ROW, times=2)
    other.restore(book.stored())
    assert other.held == book.held


def test_restarts_are_at_once_until_deaths_heap_up_and_again_after_calm() -> None:
    restarts = Restarts()
    pauses = [restarts.pause(0.1 * each) for each in range(DEATHS + 3)]
    assert pauses[:DEATHS] == [0.0] * DEATHS
    assert pauses[DEATHS:] == [1.0, 2.0, 4.0]
    assert restarts.is_looping
    assert restarts.pause(1000.0) == 0.0
    assert not restarts.is_looping


def test_an_end_is_told_with_its_signal_and_with_what_ran() -> None:
    assert end_reason(signal.SIGFPE, [ROW], "") == "signal 8 (SIGFPE) while risk version 3 ran"
    assert end_reason(70 << 8, [], "") == "exit status 70"
    assert end_reason(signal.SIGKILL, [], "it was too slow") == "it was too slow"
    loading = DeadRun("risk", 3, 0)
    assert end_reason(11, [loading], "") == "signal 11 (SIGSEGV) while risk version 3 was loaded"
