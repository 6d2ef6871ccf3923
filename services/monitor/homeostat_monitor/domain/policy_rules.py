"""A person's own thresholds: how a window's figures stand to them, and for how many in a row."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.policy import Policy, PolicyRule
from homeostat_monitor.domain.state import pack, unpack

_FORM = "policy-rules-1"


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
    """Counts, per rule, the windows in a row that broke it. A changed rule begins at none."""

    name = "policy_rules"

    def __init__(self, policy: Policy) -> None:
        self._rules = {_key(each): each for each in policy.rules}
        # Windows in a row at warning or worse, and at critical.
        self._counts: dict[str, tuple[int, int]] = {}

    def feed(self, metrics: Iterable[Measured]) -> list[Finding]:
        """What one window's figures say of every rule that they can be held against.

        A rule whose figure is missing, not a number or of too few rows is not judged: its count
        stays. A finding breaks its rule once that many windows in a row did.
        """
        by_place = {(each.metric, each.feature, each.segment): each for each in metrics}
        findings = []
        for key, rule in self._rules.items():
            measured = by_place.get((rule.metric, rule.feature, rule.segment))
            if measured is not None and measured.rows >= rule.least_rows:
                value = _compared(rule, measured)
                if value is not None:
                    findings.append(self._judge(key, rule, measured, value))
        return findings

    def _judge(self, key: str, rule: PolicyRule, measured: Measured, value: float) -> Finding:
        warned, alarmed = self._counts.get(key, (0, 0))
        is_critical = _is_beyond(rule, value, rule.critical)
        is_warning = is_critical or _is_beyond(rule, value, rule.warning)
        warned, alarmed = (warned + 1) * is_warning, (alarmed + 1) * is_critical
        self._counts[key] = warned, alarmed
        is_alarm = alarmed >= rule.windows
        level = rule.critical if is_alarm or rule.warning is None else rule.warning
        return Finding(
            Rule.POLICY,
            rule.feature,
            rule.metric,
            measured.value,
            measured.reference,
            _absolute(rule, level, measured.reference),
            is_breach=is_alarm or (rule.warning is not None and warned >= rule.windows),
            segment=rule.segment,
            policy_rule=rule.name,
            is_critical=is_alarm,
        )

    def to_bytes(self) -> bytes:
        """The counts, each under what its rule says."""
        keys = sorted(self._counts)
        counts = np.array([self._counts[each] for each in keys], dtype=np.int64).reshape(-1, 2)
        return pack(_FORM, {"rules": keys}, {"counts": counts})

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        stored = unpack(_FORM, state)
        keys, counts = stored.values["rules"], stored.arrays["counts"]
        if counts.shape != (len(keys), 2) or (counts < 0).any():
            raise CorruptState("the counts of a policy's rules are none")
        pairs = zip(keys, counts.tolist(), strict=True)
        self._counts = {
            key: (int(warned), int(alarmed))
            for key, (warned, alarmed) in pairs
            if key in self._rules
        }


def policy_findings(policy: Policy, metrics: Sequence[Measured]) -> list[Finding]:
    """What the figures of one window alone say; a rule of several windows breaks only in a watch
    that remembers them."""
    return PolicyWatch(policy).feed(metrics)


def severities(findings: Iterable[Finding]) -> Mapping[str, bool]:
    """Rules that are broken, and whether critically."""
    return {each.policy_rule: each.is_critical for each in findings if each.is_breach}


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
