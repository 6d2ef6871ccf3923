"""What a look found, as findings that a person understands."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from homeostat_monitor.domain.detection.hits import (
    Hits,
    Looked,
    Places,
    joined,
    numbered,
    only,
)
from homeostat_monitor.domain.detection.looking import Looker
from homeostat_monitor.domain.detection.spans import Looks
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.windows.layout import SCORE

# Logarithm (base 10) of how unlikely it is: what a histogram as a whole is measured in.
SURPRISE = "surprise"
_RATES = (
    (Rule.MISSING_VALUES, "null_rate"),
    (Rule.UNSEEN_VALUES, "unseen_rate"),
    (Rule.OUT_OF_RANGE, "out_of_range_rate"),
)
# One deviation of a score, squared: products of scores are told as correlations.
_UNIT = 64.0**2


class Teller:
    """Names what a look found."""

    def __init__(self, looker: Looker, segment: str, log_level: float) -> None:
        plan = looker.plan
        self._looker = looker
        self._plan = plan
        self._segment = segment
        self._score = plan.names.index(SCORE)
        self._pair_means = plan.trends.mean[2 * len(plan.names) :].tolist()
        cells = plan.cells
        is_null = np.arange(len(cells.at)) >= cells.bins
        self._rule_of = np.where(
            is_null, 0, np.where(cells.is_unseen, 1, np.where(cells.is_outside, 2, 3))
        )
        self._kind_of = cells.feature * (len(_RATES) + 1) + self._rule_of
        self._quiet = [
            self._finding(rule, "", SURPRISE, (0.0, 0.0, -log_level / math.log(10)), False, None, 1)
            for rule in self._rules()
        ]

    def _rules(self) -> list[Rule]:
        cells, present = self._plan.cells, self._plan.present > 0
        rules = {
            Rule.MISSING_VALUES: True,
            Rule.UNSEEN_VALUES: bool(cells.is_unseen.any()),
            Rule.OUT_OF_RANGE: bool(cells.is_outside[: cells.starts[self._score]].any()),
            Rule.STUCK: bool(len(self._plan.numbers)),
            Rule.COVARIATE: bool(present[: self._score].any()),
            Rule.PREDICTION: bool(present[self._score]),
            Rule.CORRELATION: bool(self._plan.pairs),
        }
        return [rule for rule, applies in rules.items() if applies]

    def told(
        self, panes: int, looks: Looks, looked: Looked, doubts: Sequence[frozenset[Rule]]
    ) -> list[list[Finding]]:
        """Per pane its findings; none where nothing was looked at. ``doubts``: of each look at the
        longest span the rules that are not sure to be quiet; of others it says since when."""
        judged = dict.fromkeys(looks.panes.tolist(), self._quiet)
        for look, doubted in zip(looks.longest.tolist(), doubts, strict=True):
            since = int(looks.since_us[look])
            judged[int(looks.panes[look])] = [
                each if each.rule in doubted else replace(each, clear_since_us=since)
                for each in self._quiet
            ]
        if looked.is_quiet():
            return [list(judged.get(pane, ())) for pane in range(panes)]
        found: list[list[Finding]] = [[] for _ in range(panes)]
        self._tell_cells(found, looks, looked)
        self._tell_moved(found, looks, looked)
        for pane, at in _worst(looks, looked.pairs, looked.pairs.thing):
            found[pane].append(self._pair(at, looks, looked.pairs))
        for pane, at in _worst(looks, looked.joint, looked.joint.thing):
            if not found[pane]:
                found[pane].append(self._together(at, looks, looked.joint))
        for pane, quiet in judged.items():
            told = {each.rule for each in found[pane]}
            found[pane] += [each for each in quiet if each.rule not in told]
        return found

    def rules_of(self, looked: Looked, looks: int) -> list[frozenset[Rule]]:
        """Of each look the rules that any of its hits might be told by."""
        found: list[set[Rule]] = [set() for _ in range(looks)]
        cells = looked.cells
        for look, cell in zip(cells.look.tolist(), cells.thing.tolist(), strict=True):
            kind, number = self._rule_of[cell], self._plan.cells.feature[cell]
            if kind < len(_RATES):
                found[look].add(_RATES[kind][0])
            else:
                found[look] |= {self._moved_rule(number), Rule.STUCK}
            if kind and number == self._score:
                found[look].add(Rule.PREDICTION)
        for look, number in zip(looked.moved.look, looked.moved.thing, strict=True):
            found[look].add(self._moved_rule(number))
        for look in looked.pairs.look:
            found[look].add(Rule.CORRELATION)
        for look in looked.joint.look:
            found[look].add(Rule.COVARIATE)
        return [frozenset(each) for each in found]

    def _moved_rule(self, number: int) -> Rule:
        return Rule.PREDICTION if number == self._score else Rule.COVARIATE

    def _tell_cells(self, found: list[list[Finding]], looks: Looks, looked: Looked) -> None:
        """Of each feature its nulls, unseen texts, numbers out of range, and a value it is stuck
        at: the worst look of each pane."""
        cells = only(looked.cells, looked.is_more)
        for pane, at in _worst(looks, cells, self._kind_of[cells.thing]):
            told = self._still if self._rule_of[cells.thing[at]] == len(_RATES) else self._rate
            finding = told(at, looks, cells)
            if finding is not None:
                found[pane].append(finding)

    def _rate(self, at: int, looks: Looks, cells: Hits) -> Finding:
        look, cell = int(cells.look[at]), int(cells.thing[at])
        rule, statistic = _RATES[self._rule_of[cell]]
        k, m = self._looker.count(looks.sums[look], cell)
        r, n = float(self._plan.cells.reference[cell]), float(self._plan.cells.rows[cell])
        log_p = float(cells.log_p[at])
        # In steps: that it is worked out once for all that may spend the same.
        limit = round(log_p + float(cells.excess[at]), 6)
        least = _least(limit, m, r, n) / m
        number = int(self._plan.cells.feature[cell])
        if rule is Rule.OUT_OF_RANGE and number == self._score:
            rule = Rule.PREDICTION
        figures, since = (k / m, r / n, least), int(looks.since_us[look])
        return self._finding(
            rule, self._name(number), statistic, figures, True, since, math.exp(log_p)
        )

    def _still(self, at: int, looks: Looks, cells: Hits) -> Finding | None:
        """Too many of one value: with no other beside it the feature is stuck."""
        look, cell = int(cells.look[at]), int(cells.thing[at])
        number = int(self._plan.cells.feature[cell])
        if not self._looker.stands_still(looks.sums[look], number):
            return None
        typical = float(self._plan.cells.reference[cell] / self._plan.cells.rows[cell])
        since, p = int(looks.since_us[look]), math.exp(cells.log_p[at])
        figures, name = (1.0, typical, typical), self._name(number)
        return self._finding(Rule.STUCK, name, "still_share", figures, True, since, p)

    def _tell_moved(self, found: list[list[Finding]], looks: Looks, looked: Looked) -> None:
        """Of each feature that its histogram is another, by its worst test and look."""
        bins = only(looked.cells, self._rule_of[looked.cells.thing] == len(_RATES))
        moved = joined(looked.moved, numbered(bins, self._plan.cells.feature[bins.thing]))
        for pane, at in _worst(looks, moved, moved.thing):
            number, look = int(moved.thing[at]), int(moved.look[at])
            rule = self._moved_rule(number)
            p, over = float(moved.log_p[at]), float(moved.excess[at])
            figures = (-p / math.log(10), 0.0, -(p + over) / math.log(10))
            since, name = int(looks.since_us[look]), self._name(number)
            told = self._finding(rule, name, SURPRISE, figures, True, since, math.exp(p))
            found[pane].append(told)

    def _pair(self, at: int, looks: Looks, pairs: Hits) -> Finding:
        number, look = int(pairs.thing[at]), int(pairs.look[at])
        a, b = self._plan.pairs[number]
        rows, product = self._looker.pair(looks.sums[look], number)
        log_p, excess = float(pairs.log_p[at]), float(pairs.excess[at])
        change = abs(product / max(rows, 1) - self._pair_means[number]) / _UNIT
        # The bound is quadratic in the change where the tail is normal.
        least = change * math.sqrt(max((log_p + excess) / log_p, 0.0)) if log_p < 0 else 1.0
        since, p = int(looks.since_us[look]), math.exp(log_p)
        figures = (change, 0.0, max(least, 1e-9))
        name = "correlation_change"
        return self._finding(Rule.CORRELATION, a, name, figures, True, since, p, b)

    def _together(self, at: int, looks: Looks, joint: Hits) -> Finding:
        """Many features a little; told of the one that moved most."""
        log_p, excess = float(joint.log_p[at]), float(joint.excess[at])
        figures = (-log_p / math.log(10), 0.0, -(log_p + excess) / math.log(10))
        look = int(joint.look[at])
        name, since = self._name(self._looker.foremost(looks.sums[look])), int(looks.since_us[look])
        return self._finding(
            Rule.COVARIATE, name, "joint_surprise", figures, True, since, math.exp(log_p)
        )

    def _name(self, number: int) -> str:
        return "" if number == self._score else self._plan.names[number]

    def _finding(
        self,
        rule: Rule,
        feature: str,
        statistic: str,
        figures: tuple[float, float, float],
        is_breach: bool,
        since_us: int | None,
        p_value: float,
        other: str = "",
    ) -> Finding:
        observed, reference, threshold = figures
        return Finding(
            rule,
            feature,
            statistic,
            float(observed),
            float(reference),
            float(threshold),
            is_breach=bool(is_breach),
            segment=self._segment,
            other_feature=other,
            since_us=since_us,
            p_value=p_value,
        )


def _worst(looks: Looks, hits: Hits, kinds: Places) -> list[tuple[int, int]]:
    """The worst breach per pane and kind: pane, and which of the hits; by pane, then by kind."""
    if not len(hits):
        return []
    # Mostly there are only a few.
    panes, excess = looks.panes[hits.look].tolist(), hits.excess.tolist()
    worst: dict[tuple[int, int], int] = {}
    for at, key in enumerate(zip(panes, kinds.tolist(), strict=True)):
        known = worst.get(key)
        if known is None or excess[at] >= excess[known]:
            worst[key] = at
    return [(pane, at) for (pane, _), at in sorted(worst.items())]


@lru_cache(maxsize=4096)
def _least(log_level: float, m: int, r: float, n: float) -> int:
    """The fewest of m rows that would have been told."""
    low, high = min(math.ceil(m * r / n), m), m
    while low < high:
        middle = (low + high) // 2
        if _log_more(middle, m, r, n) < log_level:
            high = middle
        else:
            low = middle + 1
    return high


def _log_more(k: int, m: int, r: float, n: float) -> float:
    """tails.log_tail of one number, many times as fast as of an array of one."""
    ratio = (m - k) * r / ((k + 1) * (n - r + 1))
    if ratio >= 1:
        return 0.0
    first = _log_choose(m, k) + _log_choose(n, r) - _log_choose(m + n, k + r)
    return first - math.log1p(-ratio)


def _log_choose(n: float, k: float) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
