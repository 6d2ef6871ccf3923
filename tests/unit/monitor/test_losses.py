"""The delayed loss: rises are seen once, states are stored exactly or refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeostat_monitor.domain.alerts.alert import Moment, Subject
from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.alerts.losses import after_losses
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.losses import adwin
from homeostat_monitor.domain.losses.truths import Truths
from homeostat_monitor.domain.losses.watch import LossSignal, LossWatch
from homeostat_monitor.domain.state import pack
from homeostat_monitor.domain.windows.reference import Holdout


def holdout(rate: float = 0.2, rows: int = 3000, seed: int = 0) -> Holdout:
    rng = np.random.default_rng(seed)
    return Holdout((rng.random(rows) < rate).astype(float), np.arange(rows))


def stream(*parts: tuple[int, float], seed: int = 1, start: int = 10_000) -> Truths:
    """So many losses at such a rate, one after the other; one becomes known a microsecond."""
    rng = np.random.default_rng(seed)
    return columns(
        np.concatenate([(rng.random(rows) < rate).astype(float) for rows, rate in parts]), start
    )


def columns(losses: np.ndarray, start: int = 0) -> Truths:
    known_at = start + np.arange(len(losses), dtype=np.int64)
    unknown = np.full(len(losses), np.nan)
    return Truths(known_at, known_at, losses, unknown, unknown, unknown)


def test_a_level_like_the_hold_out_is_silent() -> None:
    watch = LossWatch.seeded(holdout(), is_binary=True)
    assert watch.feed(stream((50_000, 0.2))) == []
    assert watch.reference == pytest.approx(0.2, abs=0.02)


def test_a_rise_is_seen_soon_and_dated() -> None:
    watch = LossWatch.seeded(holdout(), is_binary=True)
    first, *_ = watch.feed(stream((5000, 0.2), (3000, 0.4)))
    assert first.signal is LossSignal.ROSE
    assert 15_000 < first.at_us < 15_500
    assert first.since_us <= first.at_us
    assert first.observed > first.reference


def test_a_fall_is_no_alarm() -> None:
    watch = LossWatch.seeded(holdout(0.4), is_binary=True)
    assert watch.feed(stream((3000, 0.4), (20_000, 0.1))) == []


def test_a_return_from_a_fall_to_the_reference_is_no_alarm() -> None:
    watch = LossWatch.seeded(holdout(0.4), is_binary=True)
    found = watch.feed(stream((3000, 0.1), (500, 0.35)))
    assert found == []


def test_back_at_the_reference_after_a_calm_spell_is_no_rise() -> None:
    """ADWIN alone tells it now and then, with 0.1917 against 0.188."""
    watch = LossWatch.seeded(holdout(0.2), is_binary=True)
    for seed in range(10):
        found = watch.feed(stream((2500, 0.12), (1200, 0.2), seed=seed))
        assert all(each.observed > 0.22 for each in found)
        assert len(found) <= 1


@pytest.mark.parametrize("seed", range(12))
def test_a_true_rise_is_told_though_what_adwin_keeps_is_diluted(seed: int) -> None:
    watch = LossWatch.seeded(holdout(0.2, seed=seed), is_binary=True)
    found = watch.feed(stream((20_000, 0.2), (2500, 0.27), seed=seed))
    rises = [each for each in found if each.at_us >= 30_000]
    assert rises
    assert rises[0].signal is LossSignal.ROSE


@pytest.mark.parametrize("seed", range(6))
def test_a_rise_above_the_reference_is_told_after_a_long_spell_far_below_it(seed: int) -> None:
    """ADWIN's first detection has a mean below the reference, and then it begins anew inside of
    the raised level, where nothing rises any more."""
    watch = LossWatch.seeded(holdout(0.3, seed=seed), is_binary=True)
    found = watch.feed(stream((20_000, 0.05), (4000, 0.42), seed=seed))
    assert [each.signal for each in found][:1] == [LossSignal.ROSE]
    assert 30_000 < found[0].at_us < 32_500
    assert 29_700 < found[0].since_us < 31_000
    assert found[0].observed == pytest.approx(0.42, abs=0.1)


@pytest.mark.parametrize("seed", range(6))
def test_a_return_to_the_reference_after_a_long_spell_far_below_it_is_silent(seed: int) -> None:
    watch = LossWatch.seeded(holdout(0.3, seed=seed), is_binary=True)
    assert watch.feed(stream((10_000, 0.05), (10_000, 0.29), seed=seed)) == []


def test_the_measured_rate_of_false_alarms_is_within_its_budget() -> None:
    """A budget of one in 20,000: 20 are allowed in these 400,000, whose hold-outs are short."""
    rises = 0
    for seed in range(20):
        past = holdout(0.2, rows=500, seed=seed)
        watch = LossWatch.seeded(past, is_binary=True, rows_per_false_alarm=20_000)
        found = watch.feed(stream((5000, 0.2), seed=100 + seed))
        rises += sum(each.signal is LossSignal.ROSE for each in found)
    assert rises <= 10


def test_a_small_rise_that_stays_is_told() -> None:
    watch = LossWatch.seeded(holdout(0.2, rows=10_000), is_binary=True)
    found = watch.feed(stream((5000, 0.2), (15_000, 0.235)))
    assert found
    assert found[0].at_us > 15_000


def test_a_hold_out_that_comes_in_lumps_makes_the_watch_patient() -> None:
    """Losses of one storm are alike: each tenth loss is new, nine repeat it."""
    rng = np.random.default_rng(5)

    def lumps(rate: float, rows: int) -> np.ndarray:
        return np.repeat((rng.random(rows // 10) < rate).astype(float), 10)

    past = lumps(0.2, 5000)
    rises = 0
    for _ in range(5):
        watch = LossWatch.seeded(Holdout(past, np.arange(5000)), is_binary=True)
        found = watch.feed(columns(lumps(0.2, 10_000)))
        anchored = [each for each in found if each.signal is LossSignal.ROSE]
        rises += len(anchored)
    assert rises <= 5


def test_squared_errors_with_a_very_long_tail_do_not_hide_a_rise() -> None:
    rng = np.random.default_rng(1)

    def errors(rows: int, scale: float) -> np.ndarray:
        return (rng.standard_t(2, rows) * scale) ** 2

    watch = LossWatch.seeded(Holdout(errors(3000, 1.0), np.arange(3000)), is_binary=False)
    assert watch.feed(columns(errors(20_000, 1.0))) == []
    found = watch.feed(columns(errors(2000, 1.5), 30_000))
    assert [each.signal for each in found] == [LossSignal.ROSE]
    assert found[0].at_us < 31_000


def test_what_stands_is_known_with_its_figures() -> None:
    watch = LossWatch.seeded(holdout(), is_binary=True)
    assert watch.risen is None
    watch.feed(stream((2000, 0.2), (1500, 0.5)))
    assert watch.risen is not None
    assert watch.risen.observed == pytest.approx(0.5, abs=0.05)
    assert 11_900 < watch.risen.since_us < 12_100
    assert 1300 < watch.risen.rows < 1500


def test_a_rise_that_ends_is_said_to_have_ended() -> None:
    watch = LossWatch.seeded(holdout(), is_binary=True)
    found = watch.feed(stream((2000, 0.2), (1500, 0.5), (6000, 0.18)))
    assert [each.signal for each in found] == [LossSignal.ROSE, LossSignal.RECOVERED]


def test_two_rises_under_one_known_at_are_two_alerts() -> None:
    """A batch of truths that became known at once: rose, recovered, rose."""
    watch = LossWatch.seeded(holdout(), is_binary=True)
    parts = ((1500, 0.5), (3000, 0.19), (1500, 0.6))
    losses = replace(stream(*parts), known_at_us=np.full(6000, 9_999))
    alert, openings = None, []
    for change in watch.feed(losses):
        alert = after_losses(
            alert,
            change,
            subject=Subject("delays", 1),
            cause=Cause.CONCEPT,
            moment=Moment(10_000, 10_000),
        )
        assert alert is not None
        if alert.revision == 1:
            openings.append(alert.alert_id)
    assert len(openings) == len(set(openings)) == 2


def test_a_rise_that_stays_is_said_once_to_persist() -> None:
    watch = LossWatch.seeded(holdout(), is_binary=True)
    found = watch.feed(stream((2000, 0.2), (20_000, 0.35)))
    assert [each.signal for each in found] == [LossSignal.ROSE, LossSignal.PERSISTS]
    assert found[1].is_critical


def test_a_further_rise_is_said() -> None:
    watch = LossWatch.seeded(holdout(), is_binary=True)
    found = watch.feed(stream((2000, 0.2), (2000, 0.35), (1000, 0.7)))
    assert [each.signal for each in found] == [LossSignal.ROSE, LossSignal.ROSE]


def test_an_accepted_level_is_the_new_reference() -> None:
    watch = LossWatch.seeded(holdout(), is_binary=True)
    watch.feed(stream((2000, 0.2), (3000, 0.35)))
    watch.rebase()
    assert watch.reference == pytest.approx(0.35, abs=0.03)
    assert watch.feed(stream((10_000, 0.35), seed=9)) == []


def test_without_a_hold_out_it_learns_from_the_first_losses() -> None:
    watch = LossWatch.seeded(None, is_binary=True)
    watch.feed(stream((499, 0.2)))
    assert watch.is_learning
    watch.feed(stream((1500, 0.2), seed=3))
    assert not watch.is_learning
    found = watch.feed(stream((2000, 0.5), seed=4))
    assert found[0].signal is LossSignal.ROSE


def test_squared_errors_are_judged_on_their_own_scale() -> None:
    rng = np.random.default_rng(0)
    past = Holdout(rng.normal(size=3000) ** 2 * 1e6, np.arange(3000))
    calm = columns(rng.normal(size=5000) ** 2 * 1e6)
    worse = columns(rng.normal(size=5000) ** 2 * 3e6, 5000)
    watch = LossWatch.seeded(past, is_binary=False)
    assert watch.feed(calm) == []
    found = watch.feed(worse)
    assert found[0].signal is LossSignal.ROSE
    assert found[0].observed > found[0].reference > 1e5


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_changes_nothing(poison: float) -> None:
    watch = LossWatch.seeded(holdout(), is_binary=True)
    losses = stream((2000, 0.2), (1000, 0.5))
    expected = LossWatch.seeded(holdout(), is_binary=True).feed(losses)
    twice = np.repeat(np.arange(len(losses)), 2)
    mixed = replace(columns(losses.losses[twice]), known_at_us=losses.known_at_us[twice])
    mixed.losses[1::2] = poison
    assert watch.feed(mixed) == expected
    assert watch.not_finite == len(losses)
    hold = holdout()
    poisoned = Holdout(np.append(hold.losses, poison), np.append(hold.known_at_us, 9))
    assert LossWatch.seeded(poisoned, is_binary=True).reference == watch.reference


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 900), max_size=8), st.booleans())
def test_portions_and_stored_states_change_nothing(cuts: list[int], has_seed: bool) -> None:

    def patient(past: Holdout | None) -> LossWatch:
        """What is allowed changes with every look at how many come."""
        return LossWatch.seeded(past, is_binary=True, false_alarms_per_month=1e-3)

    losses = stream((1500, 0.2), (1500, 0.45), (1500, 0.15))
    seed = holdout() if has_seed else None
    whole = patient(seed)
    expected = whole.feed(losses)
    watch = patient(seed)
    found = []
    begun = 0
    for end in [*np.cumsum(cuts).tolist(), len(losses)]:
        state = watch.to_bytes()
        watch = patient(None)
        watch.restore(state)
        found += watch.feed(losses.only(slice(begun, max(begun, end))))
        begun = max(begun, end)
    assert found == expected
    assert watch.to_bytes() == whole.to_bytes()


def test_the_detector_does_what_rivers_own_does() -> None:
    """River's class is the Rust core and a few lines; ours leaves out what it would import."""
    from river.drift import ADWIN  # noqa: PLC0415

    theirs, ours = ADWIN(delta=adwin.DELTA), adwin.fresh()
    detections = 0
    losses = stream((3000, 0.2), (2000, 0.5), (4000, 0.1), (2000, 0.3)).losses
    for loss in losses.tolist():
        theirs.update(loss)
        ours.update(loss)
        detections += theirs.drift_detected
        assert ours.drift_detected == theirs.drift_detected
        assert (ours.width, ours.total) == (theirs.width, theirs.total)
        assert ours.estimation == theirs.estimation
    assert detections >= 3


def test_the_detector_comes_back_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    detector = adwin.fresh()
    for value in (rng.random(5000) < 0.3).astype(float):
        detector.update(value)
    again = adwin.load(json.loads(json.dumps(adwin.dump(detector))))
    for value in (rng.random(3000) < 0.6).astype(float):
        detector.update(value)
        again.update(value)
        assert detector.drift_detected == again.drift_detected
    assert adwin.dump(detector) == adwin.dump(again)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stored: stored | {"state": stored["state"][:-8]},
        lambda stored: stored | {"state": "AAAA" + stored["state"][4:]},
        lambda stored: stored | {"state": "not base64!"},
        lambda stored: stored | {"sha256": "0" * 64},
        lambda stored: stored | {"river": "0.0.1"},
        lambda stored: stored | {"delta": 0.5},
        lambda stored: {},
    ],
)
def test_a_state_that_is_not_what_was_written_is_refused(spoil: object) -> None:
    stored = dict(adwin.dump(adwin.fresh()))
    with pytest.raises(CorruptState):
        adwin.load(spoil(stored))  # type: ignore[operator]


def test_a_state_of_another_form_is_refused() -> None:
    watch = LossWatch.seeded(holdout(), is_binary=True)
    with pytest.raises(CorruptState, match="form"):
        watch.restore(pack("losses-2", {"tally": {}}, {}))


@pytest.mark.parametrize("at", [0, 40, 500, -1])
def test_damaged_bytes_are_refused_and_change_nothing(at: int) -> None:
    watch = LossWatch.seeded(holdout(), is_binary=True)
    before = watch.to_bytes()
    damaged = bytearray(before)
    damaged[at] ^= 1
    with pytest.raises(CorruptState):
        watch.restore(bytes(damaged))
    assert watch.to_bytes() == before


@given(st.binary(max_size=80))
def test_nonsense_is_no_state(state: bytes) -> None:
    with pytest.raises(CorruptState):
        LossWatch.seeded(None, is_binary=True).restore(state)


def test_a_state_stays_small() -> None:
    watch = LossWatch.seeded(holdout(), is_binary=True)
    watch.feed(stream((100_000, 0.2)))
    assert len(watch.to_bytes()) < 40_000
