"""What follows from something else that is told is no alert of its own."""

from dataclasses import replace

import pytest

from homeostat_monitor.app.judging_windows import _follows
from homeostat_monitor.domain.judges import Finding, Rule


def copies(observed: float) -> Finding:
    return Finding(
        Rule.DUPLICATES, "", "extra_copies_per_row", observed, 0.1, 0.15, observed > 0.15
    )


@pytest.mark.parametrize(
    ("observed", "has_holes", "follows"),
    [(0.16, True, True), (0.16, False, False), (0.5, True, False), (0.1, True, False)],
)
def test_rows_that_lack_the_same_values_are_more_alike_and_sent_twice_is_told_all_the_same(
    observed: float, has_holes: bool, follows: bool
) -> None:
    assert _follows(copies(observed), set(), has_holes=has_holes) is follows


def test_each_row_sent_twice_is_told_beside_missing_values_however_high_the_threshold() -> None:
    twice = replace(copies(0.49), threshold=0.31)
    assert not _follows(twice, set(), has_holes=True)


def test_the_tail_of_a_feature_that_moved_is_no_second_alert() -> None:
    few = Finding(Rule.OUT_OF_RANGE, "x", "out_of_range", 0.04, 0.0, 0.01, is_breach=True)
    assert _follows(few, {"x"}, has_holes=False)
    assert not _follows(few, {"y"}, has_holes=False)
