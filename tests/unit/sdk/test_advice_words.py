"""The advice says what was measured, and nothing else."""

from typing import Any

import pytest

from homeostat.advise import applying, words
from homeostat.advise.equivalence import Equality, Tolerance
from homeostat.advise.figures import Outcome, Timing, timing_of
from homeostat.advise.forms import PRESENT, Form, Level, Variant
from homeostat.advise.machine import Machine, this_machine
from homeostat.advise.report import Report, as_json

STATIC = Variant(Form.INT8_STATIC, "", form=Form.INT8_STATIC)
HALVED = Variant(Form.FLOAT16, "", form=Form.FLOAT16)
DYNAMIC = Variant(Form.INT8_DYNAMIC, "", form=Form.INT8_DYNAMIC)
COMPILED = Variant(Form.COMPILED, "", form=Form.COMPILED)
THREADS = Variant("threads-2", "", threads=2)
BASIC = Variant("graph-basic", "", level=Level.BASIC)


def timed(rows: int, microseconds: float, speed_up: float, low: float | None = None) -> Timing:
    each = microseconds / 1e6
    return Timing(rows, each, each, speed_up, speed_up if low is None else low)


def an_outcome(variant: Variant, speed_up: float, *, rows: int = 1000, **more: Any) -> Outcome:
    equality = None if variant.is_present else Equality(rows, more.pop("equal", rows), 0.001, 0.0)
    timings = [timed(1, 10 / speed_up, speed_up), timed(16, 9.9 / speed_up, speed_up)]
    return Outcome(variant, equality=equality, timings=timings, **more)


def a_report(*outcomes: Outcome, present: Outcome | None = None) -> Report:
    return Report(
        "risk", 3, "ab", Machine("a processor", 2, 1, {}), "the ledger", 1000, 200, "cd",
        Tolerance(), 16, "as told", 0.04, 5, [present or an_outcome(PRESENT, 1.0), *outcomes],
    )  # fmt: skip


def said(*outcomes: Outcome, present: Outcome | None = None) -> str:
    return " ".join(words.advice(a_report(*outcomes, present=present)))


def test_where_nothing_is_faster_it_says_so() -> None:
    assert said(an_outcome(STATIC, 1.04), an_outcome(THREADS, 0.7), an_outcome(BASIC, 1.0)) == (
        "Nothing measured here is faster by more than 5%: leave it as it is."
    )


def test_the_fastest_equal_form_is_advised_with_its_command() -> None:
    told = said(an_outcome(STATIC, 2.0), an_outcome(HALVED, 1.5))
    assert "Serve int8-static: 2.00 times as fast" in told
    assert "homeostat advise risk --at 16 --apply int8-static" in told
    assert "float16" not in told


def test_a_speed_up_that_rounds_disagree_on_is_none() -> None:
    shaky = an_outcome(STATIC, 1.3)
    shaky.timings = [timed(16, 7, 1.3, low=0.9)]
    assert "Nothing measured here" in said(shaky)


def test_a_failed_form_is_never_advised_however_fast() -> None:
    assert "int8-static" not in said(Outcome(STATIC, failure="unequal"))


def test_what_can_not_be_registered_is_told_with_the_reason() -> None:
    assert "a row's answer depends on those beside it" in said(an_outcome(DYNAMIC, 3.0))
    assert "asks for 500 rows and there are only 80" in said(an_outcome(STATIC, 2.0, rows=80))
    assert "this is only a report" in said(an_outcome(COMPILED, 3.0))


def test_waiting_is_advised_where_company_makes_rows_cheaper() -> None:
    present = Outcome(
        PRESENT,
        timings=[timed(1, 30, 1.0), timed(16, 4, 1.0), timed(64, 2.05, 1.0), timed(256, 2.0, 1.0)],
    )
    told = said(present=present)
    assert "among 64 2.05 us (14.6 times less)" in told
    assert "homeostat serving batching risk --max-rows 64 --max-delay 0.13" in told


def test_threads_are_weighed_against_their_cpu_time() -> None:
    threads = an_outcome(THREADS, 1.6)
    threads.timings = [Timing(16, 6e-6, 12e-6, 1.6, 1.5)]
    told = said(threads)
    assert "1.60 times sooner for 1.21 times the CPU" in told
    assert "HOMEOSTAT_INFERENCE_WORKERS" in told


def test_a_busy_machine_is_told() -> None:
    present = Outcome(PRESENT, timings=[Timing(16, 20e-6, 10e-6, 1.0, 1.0)])
    assert "Other work used the cores" in said(present=present)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("present", "serves already"),
        ("compiled", "reported only"),
        ("threads-2", "a way to run the present file"),
        ("float16", "not faster by more than 5%"),
        ("nothing", "what can be applied: int8-static, float16"),
        ("int8-static", "99.9% of the rows"),
    ],
)
def test_what_does_not_fit_is_not_applied(name: str, reason: str) -> None:
    report = a_report(
        an_outcome(COMPILED, 3.0),
        an_outcome(THREADS, 2.0),
        an_outcome(STATIC, 2.0, equal=990),
        an_outcome(HALVED, 1.0),
    )
    with pytest.raises(applying.NotApplied, match=reason):
        applying.require_fit(report, name)


def test_ratios_are_of_one_round_and_of_cpu_time_where_one_thread_runs() -> None:
    # Every second round the whole machine is ten times as slow.
    slow = (1, 10, 1, 10, 1)
    present = [{"seconds": 9.0 * each, "cpu_seconds": 4.0 * each} for each in slow]
    mine = [{"seconds": 3.0 * each, "cpu_seconds": 1.0 * each} for each in slow]
    one = timing_of(16, mine, present, threads=1)
    assert (one.speed_up, one.speed_up_low) == (4.0, 4.0)
    assert timing_of(16, mine, present, threads=2).speed_up == 3.0


def test_cost_is_cpu_time_at_a_price() -> None:
    timing = timed(1, 3600, 1.0)
    assert timing.cpu_seconds_per_million == pytest.approx(3600)
    assert timing.cost_per_million(0.04) == pytest.approx(0.04)


def test_the_record_is_json_even_where_a_difference_is_infinite() -> None:
    lost = Outcome(STATIC, failure="x", equality=Equality(10, 9, float("inf"), 0.0))
    found = as_json(a_report(lost), ["leave it"])
    assert found["outcomes"][1]["equality"]["max_score_difference"] is None
    assert found["outcomes"][1]["why_not_applied"] == "x"


def test_this_machine_is_named() -> None:
    machine = this_machine()
    assert machine.usable_cores >= 1
    assert machine.short
    assert machine.libraries["onnxruntime"]
