"""A person's own thresholds: how a window's figures stand to them, and for how many in a row."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.policies.policy import Policy, PolicyRule
from homeostat_monitor.domain.state import State, pack, unpack, unreadable
from homeostat_monitor.domain.windows.window import Window

_FORM = "policy-rules-4"


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of one window."""

    # One of policy.METRICS.
    metric: str
    value: float
    # NaN where there is none.
    reference: float
    rows: int
    feature: str = ""
    segment: str = ""


class PolicyWatch:
    """How each rule of one segment stands: its newest figure, and the windows in a row that broke
    it. A changed rule begins at none."""

    name = "policy_rules"

    def __init__(
        self,
        policy: Policy,
        segment: str | None = None,
        needed: Callable[[PolicyRule], int] = lambda rule: rule.least_rows,
    ) -> None:
        """``segment`` keeps its rules alone; None: every rule. ``needed``: rows that a window of
        sums must have for a rule."""
        self._rules = {
            _key(each): each for each in policy.rules if segment is None or each.segment == segment
        }
        # Windows in a row at warning or worse, and at critical; the figure, its reference.
        self._stands: dict[str, tuple[int, int, float, float]] = {}
        # The window in which truths were looked at last.
        self._truths_window = -1
        # Rules by the rows that they need, and windows with too few rows for these, added up until
        # there are enough.
        self._needing: dict[int, list[PolicyRule]] = {}
        for rule in self._rules.values():
            self._needing.setdefault(needed(rule), []).append(rule)
        self._waiting: dict[int, Window] = {}

    def gathered(self, window: Window) -> list[tuple[PolicyRule, Window]]:
        """The rules that have enough rows now, each with the window and those before it that had
        too few for it."""
        found = []
        for needed, rules in self._needing.items():
            whole, before = window, self._waiting.pop(needed, None)
            if before is not None and before.sums.shape == window.sums.shape:
                whole = Window(before.start_us, window.end_us, before.sums + window.sums)
            if whole.rows < needed:
                self._waiting[needed] = whole
            else:
                found += [(each, whole) for each in rules]
        return found

    def is_new_window(self, window: int) -> bool:
        """Whether truths were not looked at in this window yet; they are now."""
        if window <= self._truths_window:
            return False
        self._truths_window = window
        return True

    def feed(
        self, metrics: Iterable[Measured], own: Iterable[tuple[PolicyRule, Measured]] = ()
    ) -> list[Finding]:
        """How every rule stands after one window's figures; ``own``: of what a rule gathered.

        A rule whose figure is missing, not a number or of too few rows stands as it stood; one that
        never had a figure is not told. A finding breaks its rule once that many windows in a row
        did.
        """
        by_place = {(each.metric, each.feature, each.segment): each for each in metrics}
        gathered: Mapping[str, Measured] = {_key(rule): each for rule, each in own}
        for key, rule in self._rules.items():
            place = (rule.metric, rule.feature, rule.segment)
            measured = gathered.get(key) or by_place.get(place)
            if measured is None or measured.rows < rule.least_rows:
                continue
            value = _compared(rule, measured)
            if value is not None:
                self._count(key, rule, measured, value)
        return [
            _finding(rule, *self._stands[key])
            for key, rule in self._rules.items()
            if key in self._stands
        ]

    def _count(self, key: str, rule: PolicyRule, measured: Measured, value: float) -> None:
        warned, alarmed, _, _ = self._stands.get(key, (0, 0, 0.0, 0.0))
        is_critical = _is_beyond(rule, value, rule.critical)
        is_warning = is_critical or _is_beyond(rule, value, rule.warning)
        self._stands[key] = (
            (warned + 1) * is_warning,
            (alarmed + 1) * is_critical,
            measured.value,
            measured.reference,
        )

    def to_bytes(self) -> bytes:
        """How rules stand, each under what it says."""
        keys = sorted(self._stands)
        stands = [self._stands[each] for each in keys]
        waiting = sorted(self._waiting.items())
        sums = [each.sums for _, each in waiting]
        return pack(
            _FORM,
            {
                "rules": keys,
                "truths_window": self._truths_window,
                "waiting": [[needed, each.start_us, each.end_us] for needed, each in waiting],
            },
            {
                "sums": np.stack(sums) if sums else np.empty((0, 0), dtype=np.int64),
                "counts": np.array([each[:2] for each in stands], dtype=np.int64).reshape(-1, 2),
                "figures": np.array([each[2:] for each in stands], dtype=np.float64).reshape(-1, 2),
            },
        )

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        stored = unpack(_FORM, state)
        with unreadable("the state of a policy's rules"):
            self._restore(stored)

    def _restore(self, stored: State) -> None:
        keys, counts = stored.values["rules"], stored.arrays["counts"]
        figures = stored.arrays["figures"]
        shape = (len(keys), 2)
        if counts.shape != shape or figures.shape != shape or (counts < 0).any():
            raise CorruptState("the counts of a policy's rules are none")
        spans = zip(stored.values["waiting"], stored.arrays["sums"], strict=True)
        self._waiting = {
            int(needed): Window(int(start), int(end), sums)
            for (needed, start, end), sums in spans
            if int(needed) in self._needing
        }
        rows = zip(keys, counts.tolist(), figures.tolist(), strict=True)
        self._truths_window = int(stored.values["truths_window"])
        self._stands = {
            key: (int(count[0]), int(count[1]), figure[0], figure[1])
            for key, count, figure in rows
            if key in self._rules
        }


def _finding(
    rule: PolicyRule, warned: int, alarmed: int, value: float, reference: float
) -> Finding:
    is_alarm = rule.critical is not None and alarmed >= rule.windows
    level = rule.critical if is_alarm or rule.warning is None else rule.warning
    return Finding(
        Rule.POLICY,
        rule.feature,
        rule.metric,
        value,
        reference,
        _absolute(rule, level, reference),
        is_breach=is_alarm or (rule.warning is not None and warned >= rule.windows),
        segment=rule.segment,
        policy_rule=rule.name,
        is_critical=is_alarm,
    )


def policy_findings(policy: Policy, metrics: Sequence[Measured]) -> list[Finding]:
    """What the figures of one window alone say; a rule of several windows breaks only in a watch
    that remembers them."""
    return PolicyWatch(policy).feed(metrics)


def _key(rule: PolicyRule) -> str:
    """A rule and all that it says, so that counts never go to another one."""
    return repr(rule)


def _compared(rule: PolicyRule, measured: Measured) -> float | None:
    """What is held against the thresholds; None where it can't be told."""
    value = measured.value
    if rule.comparison is not None and rule.comparison.is_relative:
        if not math.isfinite(measured.reference) or measured.reference == 0.0:
            return None
        value = (measured.value - measured.reference) / abs(measured.reference)
    return value if math.isfinite(value) else None


def _is_beyond(rule: PolicyRule, value: float, level: float | None) -> bool:
    if level is None or rule.comparison is None:
        return False
    return value > level if rule.comparison.is_above else value < level


def _absolute(rule: PolicyRule, level: float | None, reference: float) -> float:
    """A threshold on the metric's own scale."""
    if level is None:
        return math.nan
    if rule.comparison is not None and rule.comparison.is_relative:
        return reference + level * abs(reference)
    return level
