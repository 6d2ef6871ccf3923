"""Label delay and coverage: what is late or missing is told, what may still come is not."""

from collections.abc import Sequence

import numpy as np
import pytest

from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.labels.watch import LabelWatch
from homeostat_monitor.domain.losses.truths import Truths
from homeostat_monitor.domain.state import pack

HOUR = 3_600_000_000
PER_HOUR = 40


def past(rows: int = 3000, *, hours: float = 6.0, seed: int = 0) -> Truths:
    """Truths that take ``hours``, more or less."""
    rng = np.random.default_rng(seed)
    events = np.arange(rows, dtype=np.int64) * (HOUR // PER_HOUR)
    return _known(events, rng.gamma(9.0, hours / 9.0, rows))


def _known(events: np.ndarray, hours: np.ndarray) -> Truths:
    known_at = events + (hours * HOUR).astype(np.int64)
    order = np.argsort(known_at, kind="stable")
    unknown = np.full(len(events), np.nan)
    return Truths(known_at[order], events[order], unknown, unknown, unknown, unknown)


class World:
    """Predictions in every hour, truths after their delay, judged hour by hour."""

    def __init__(self, watch: LabelWatch, *, seed: int = 1) -> None:
        self.watch = watch
        self._rng = np.random.default_rng(seed)
        self._hour = 1000
        self._coming: list[tuple[int, int]] = []
        self.breaches: list[tuple[int, Finding]] = []

    def run(self, hours: int, *, delay: float = 6.0, coverage: float = 0.8) -> None:
        for _ in range(hours):
            start = self._hour * HOUR
            count = int(self._rng.poisson(PER_HOUR))
            self.watch.predicted({start: count})
            events = start + np.sort(self._rng.integers(0, HOUR, count))
            spent = self._rng.gamma(9.0, delay / 9.0, count) * HOUR
            has_truth = self._rng.random(count) < coverage
            known = zip((events + spent)[has_truth], events[has_truth], strict=True)
            self._coming += [(int(at), int(event)) for at, event in known]
            self._hour += 1
            self._judge(self._hour * HOUR)

    def settle(self) -> None:
        """Whatever is still coming comes."""
        self._judge((self._hour + 100) * HOUR)

    def _judge(self, mark_us: int) -> None:
        due = sorted(each for each in self._coming if each[0] < mark_us)
        self._coming = [each for each in self._coming if each[0] >= mark_us]
        known_at, events = np.array(due, dtype=np.int64).reshape(-1, 2).T
        unknown = np.full(len(due), np.nan)
        self.watch.feed(Truths(known_at, events, unknown, unknown, unknown, unknown))
        found = self.watch.judge(mark_us)
        self.breaches += [(self._hour - 1000, each) for each in found if each.is_breach]

    def told(self, rule: Rule) -> list[int]:
        """Hours in which it was told."""
        return [hour for hour, each in self.breaches if each.rule is rule]


def seeded(holdout: Truths | None = None) -> LabelWatch:
    return LabelWatch.seeded(past() if holdout is None else holdout, length_us=HOUR)


@pytest.mark.parametrize("seed", range(3))
def test_truths_that_come_as_they_used_to_are_silent(seed: int) -> None:
    world = World(seeded(), seed=seed)
    world.run(24 * 30)
    assert world.breaches == []


def test_truths_that_take_twice_as_long_are_told() -> None:
    world = World(seeded())
    world.run(200)
    world.run(100, delay=12.0)
    assert world.told(Rule.LABEL_DELAY)
    assert 200 < world.told(Rule.LABEL_DELAY)[0] < 230
    statistics = {each.statistic for _, each in world.breaches}
    assert {"late_share", "median_delay_seconds"} <= statistics


def test_delays_that_are_as_before_again_end_the_breach() -> None:
    world = World(seeded())
    world.run(50)
    world.run(50, delay=12.0)
    world.run(150)
    assert world.told(Rule.LABEL_DELAY)
    assert world.told(Rule.LABEL_DELAY)[-1] < 170


def test_predictions_that_get_no_truth_are_told_once_their_delay_is_over() -> None:
    world = World(seeded())
    world.run(300)
    world.run(150, coverage=0.5)
    told = world.told(Rule.LABEL_COVERAGE)
    assert told
    assert 300 + 6 < told[0] < 360
    assert world.told(Rule.LABEL_DELAY) == []
    finding = next(each for _, each in world.breaches)
    assert finding.observed > finding.threshold >= finding.reference
    assert finding.reference == pytest.approx(0.2, abs=0.04)


def test_thin_windows_that_are_told_together_are_no_loss_of_truths() -> None:
    """Predictions of three hours stand under the first of them."""
    watch, rng = seeded(), np.random.default_rng(3)
    for hour in range(0, 900, 3):
        watch.predicted({hour * HOUR: 60})
        events = hour * HOUR + np.sort(rng.integers(0, 3 * HOUR, 50))
        watch.feed(_known(events, rng.gamma(9.0, 6.0 / 9.0, 50)))
        assert [each for each in watch.judge((hour + 3) * HOUR) if each.is_breach] == []


def test_truths_that_stop_are_told_though_none_comes() -> None:
    world = World(seeded())
    world.run(300)
    world.run(60, coverage=0.0)
    assert world.told(Rule.LABEL_COVERAGE)


def test_a_backlog_of_truths_within_the_usual_delay_is_silent() -> None:
    """For four hours nothing comes, then everything at once; its watermark stands meanwhile."""
    world = World(seeded())
    world.run(300)
    world.settle()
    rng = np.random.default_rng(7)
    for round_ in range(10):
        start = (1400 + 100 * round_) * HOUR
        events = start + np.sort(rng.integers(0, 10 * HOUR, 400))
        world.watch.predicted({start + hour * HOUR: 40 for hour in range(10)})
        assert [each for each in world.watch.judge(start + 10 * HOUR) if each.is_breach] == []
        world.watch.feed(_known(events, rng.gamma(9.0, 6.0 / 9.0, 400)))
        assert [each for each in world.watch.judge(start + 40 * HOUR) if each.is_breach] == []


@pytest.mark.parametrize("seed", range(3))
def test_without_a_reference_the_usual_delay_is_learned_not_from_the_quickest_alone(
    seed: int,
) -> None:
    """At first only quick truths can be known; those that follow are not late for that."""
    world = World(LabelWatch.seeded(None, length_us=HOUR), seed=seed)
    assert world.watch.is_learning
    world.run(24 * 15)
    assert not world.watch.is_learning
    assert world.breaches == []
    world.run(60, delay=14.0)
    assert world.told(Rule.LABEL_DELAY)


def test_a_past_that_was_known_at_once_tells_no_delay() -> None:
    rows = past()
    at_once = Truths(rows.known_at_us, rows.known_at_us, *[rows.losses] * 4)
    assert LabelWatch.seeded(at_once, length_us=HOUR).is_learning


def test_a_truth_from_before_its_event_is_left_out() -> None:
    watch = seeded()
    times = np.array([5 * HOUR], dtype=np.int64)
    unknown = np.array([np.nan])
    watch.feed(Truths(times, times + 1, unknown, unknown, unknown, unknown))
    assert watch.not_usable == 1


def _fed(portions: Sequence[int], *, has_past: bool) -> LabelWatch:
    watch = LabelWatch.seeded(past() if has_past else None, length_us=HOUR)
    rows = past(2000, seed=3)
    begun = 0
    for end in [*np.cumsum(portions).tolist(), len(rows)]:
        watch.feed(rows.only(slice(begun, end)))
        watch.predicted({})
        state = watch.to_bytes()
        watch = LabelWatch.seeded(None, length_us=HOUR)
        watch.restore(state)
        begun = end
    watch.predicted({hour * HOUR: 50 for hour in range(40)})
    watch.judge(90 * HOUR)
    return watch


@pytest.mark.parametrize("has_past", [True, False])
def test_portions_and_stored_states_change_nothing(has_past: bool) -> None:
    whole = _fed([], has_past=has_past).to_bytes()
    assert _fed([1, 700, 3, 511], has_past=has_past).to_bytes() == whole
    assert len(whole) < 60_000


def test_what_is_no_state_is_refused_and_changes_nothing() -> None:
    watch = seeded()
    before = watch.to_bytes()
    damaged = bytearray(before)
    damaged[len(before) // 2] ^= 1
    for state in (bytes(damaged), b"", pack("labels-0", {}, {}), pack("labels-2", {}, {})):
        with pytest.raises(CorruptState):
            watch.restore(state)
    assert watch.to_bytes() == before


def test_pending_predictions_are_bounded() -> None:
    watch = LabelWatch.seeded(None, length_us=HOUR)
    watch.predicted({hour * HOUR: 10 for hour in range(5000)})
    assert len(watch.to_bytes()) < 60_000
