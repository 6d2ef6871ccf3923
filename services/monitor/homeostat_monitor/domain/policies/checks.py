"""Is this policy one that can be kept? Every problem at once, each with its place and its cure."""

import importlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from homeostat_monitor.domain.alerts.hosts import AllowedHosts
from homeostat_monitor.domain.errors import MonitorError
from homeostat_monitor.domain.policies.policy import (
    FEATURE_METRICS,
    METRICS,
    OF_ALL_ROWS,
    WITHOUT_REFERENCE,
    Policy,
    PolicyRule,
    Webhook,
)

# More of them share the budget than it can feed, or more than a person looks after.
_MOST = {"segments": 32, "rules": 100, "webhooks": 10, "ignored_features": 1_000}
_MOST_EXPRESSION_CHARACTERS = 1_000
_MOST_FALSE_ALARMS = 1_000.0
_MOST_THROTTLE_SECONDS = 30 * 86_400.0
_MOST_WINDOWS = 1_000
_MOST_ROWS = 10**9
_CONTEXT = "context."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, where, and what would cure it."""

    # As the file has it: "rules[0].metric", counted from 0.
    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class BadPolicy(MonitorError):
    """A policy that can't be kept; ``problems`` are all of them, the message has one a line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Known:
    """What a policy's names are looked up in; None: not known, so not asked for."""

    features: frozenset[str] | None = None
    hosts: AllowedHosts | None = None


def require_valid(policy: Policy, known: Known) -> None:
    """BadPolicy with everything that is wrong."""
    problems = list(problems_of(policy, known))
    if problems:
        raise BadPolicy(problems)


def problems_of(policy: Policy, known: Known) -> Iterator[Problem]:
    """Everything that is wrong, in the order of the file."""
    if not policy.model_name:
        yield Problem("model_name", "is empty; cure: name the model")
    yield from _numbers(policy)
    yield from _counts(policy)
    for place in ("segments", "rules", "webhooks"):
        yield from _names(place, [each.name for each in getattr(policy, place)])
    yield from _segments(policy, known)
    for index, rule in enumerate(policy.rules):
        yield from _rule(f"rules[{index}]", rule, policy, known)
    for index, webhook in enumerate(policy.webhooks):
        yield from _webhook(f"webhooks[{index}]", webhook, policy, known)
    for index, name in enumerate(policy.ignored_features):
        yield from _known(f"ignored_features[{index}]", "feature", name, known.features)


def _numbers(policy: Policy) -> Iterator[Problem]:
    if not 0.0 < policy.false_alarms_per_month <= _MOST_FALSE_ALARMS:
        yield Problem(
            "false_alarms_per_month",
            f"{policy.false_alarms_per_month} is not above 0 and at most {_MOST_FALSE_ALARMS:.0f}; "
            "cure: 1 is the default; to be told nothing, mute the model",
        )
    if not 0.0 <= policy.throttle_seconds <= _MOST_THROTTLE_SECONDS:
        yield Problem(
            "throttle_seconds",
            f"{policy.throttle_seconds} is not between 0 and {_MOST_THROTTLE_SECONDS:.0f} (30 days)"
            "; cure: 3600 tells an alert of the same rule and segment once an hour",
        )


def _counts(policy: Policy) -> Iterator[Problem]:
    for place, most in _MOST.items():
        count = len(getattr(policy, place))
        if count > most:
            yield Problem(place, f"{count} are more than {most}; cure: leave some out")


def _names(place: str, names: Sequence[str]) -> Iterator[Problem]:
    seen = Counter[str]()
    for index, name in enumerate(names):
        if not _NAME.fullmatch(name):
            yield Problem(
                f"{place}[{index}].name",
                f"{name!r} is no name; cure: 1 to 64 letters, digits, '_', '.', '-', "
                "the first a letter or digit",
            )
        elif seen[name]:
            yield Problem(
                f"{place}[{index}].name", f"{name!r} stands there twice; cure: rename one"
            )
        seen[name] += 1


def _segments(policy: Policy, known: Known) -> Iterator[Problem]:
    for index, segment in enumerate(policy.segments):
        place = f"segments[{index}].expression"
        if len(segment.expression) > _MOST_EXPRESSION_CHARACTERS:
            yield Problem(
                place, f"has more than {_MOST_EXPRESSION_CHARACTERS} characters; cure: shorten it"
            )
            continue
        try:
            names = _names_in(segment.expression)
        except ValueError as error:
            yield Problem(place, str(error))
            continue
        for name in names:
            yield from _column(place, name, known)


def _column(place: str, name: str, known: Known) -> Iterator[Problem]:
    """An input; or a context, which only its prefix tells from a slip of the pen."""
    if known.features is None or name in known.features or name.startswith(_CONTEXT):
        return
    for each in _known(place, "input", name, known.features):
        yield Problem(place, f"{each.text}; a context is written {_CONTEXT}{name}")


def _names_in(expression: str) -> Iterable[str]:
    """The columns that it asks for; ValueError where it can't be read."""
    # The grammar is looked for late: a policy without segments needs none of it.
    grammar = importlib.import_module("homeostat_monitor.domain.segments.expressions")
    try:
        return sorted(grammar.parse(expression).names)
    except ValueError:
        raise
    except MonitorError as error:
        raise ValueError(str(error)) from error


def _rule(place: str, rule: PolicyRule, policy: Policy, known: Known) -> Iterator[Problem]:
    yield from _known(f"{place}.metric", "metric", rule.metric, METRICS)
    if rule.metric in FEATURE_METRICS and not rule.feature:
        yield Problem(
            f"{place}.feature", f"{rule.metric} is measured per feature; cure: name the feature"
        )
    elif rule.feature and rule.metric in METRICS and rule.metric not in FEATURE_METRICS:
        yield Problem(
            f"{place}.feature", f"{rule.metric} is not measured per feature; cure: leave it out"
        )
    elif rule.feature:
        yield from _known(f"{place}.feature", "feature", rule.feature, known.features)
    if rule.segment and rule.metric in OF_ALL_ROWS:
        yield Problem(
            f"{place}.segment", f"{rule.metric} is measured over all rows; cure: leave it out"
        )
    elif rule.segment:
        names = {each.name for each in policy.segments}
        yield from _known(f"{place}.segment", "segment", rule.segment, names)
    yield from _thresholds(place, rule)
    if not 1 <= rule.windows <= _MOST_WINDOWS:
        yield Problem(
            f"{place}.windows", f"{rule.windows} is not between 1 and {_MOST_WINDOWS}; cure: 1"
        )
    if not 0 <= rule.least_rows <= _MOST_ROWS:
        yield Problem(
            f"{place}.least_rows", f"{rule.least_rows} is not between 0 and {_MOST_ROWS}; cure: 25"
        )


def _thresholds(place: str, rule: PolicyRule) -> Iterator[Problem]:
    if rule.comparison is None:
        yield Problem(
            f"{place}.comparison",
            "is missing; cure: above, below, relative_above or relative_below",
        )
    elif rule.comparison.is_relative and rule.metric in WITHOUT_REFERENCE:
        yield Problem(
            f"{place}.comparison",
            f"{rule.metric} has no reference to compare with; cure: above or below",
        )
    levels = {"warning": rule.warning, "critical": rule.critical}
    if all(each is None for each in levels.values()):
        yield Problem(place, "has no threshold; cure: set warning, critical or both")
    for name, level in levels.items():
        if level is not None and not math.isfinite(level):
            yield Problem(f"{place}.{name}", f"{level} is no threshold; cure: a finite number")
    if rule.comparison is None or rule.warning is None or rule.critical is None:
        return
    above = rule.comparison.is_above
    if (rule.warning >= rule.critical) if above else (rule.warning <= rule.critical):
        yield Problem(
            f"{place}.critical",
            f"{rule.critical:g} is reached before the warning at {rule.warning:g}: the thresholds "
            f"stand the wrong way round; cure: with {rule.comparison} the critical one is "
            f"{'higher' if above else 'lower'}",
        )


def _webhook(place: str, webhook: Webhook, policy: Policy, known: Known) -> Iterator[Problem]:
    hosts = known.hosts or AllowedHosts.parse("*, http://*")
    refusal = hosts.refusal(webhook.url)
    if refusal is not None:
        yield Problem(f"{place}.url", refusal)
    if not _NAME.fullmatch(webhook.secret_name):
        yield Problem(
            f"{place}.secret_name",
            f"{webhook.secret_name!r} is no file's name; cure: the name (not the path) of a file "
            "with the signing key in the monitor's folder of secrets",
        )
    names = {each.name for each in policy.segments}
    for index, segment in enumerate(webhook.segments):
        yield from _known(f"{place}.segments[{index}]", "segment", segment, names)


def _known(place: str, kind: str, name: str, known: Iterable[str] | None) -> Iterator[Problem]:
    if known is None:
        return
    names = sorted(known)
    if name in names:
        return
    near = get_close_matches(name, names, n=1)
    if near:
        cure = f"did you mean {near[0]!r}?"
    elif names:
        cure = f"known are {', '.join(names[:20])}" + (", ..." if len(names) > 20 else "")
    else:
        cure = "none is known"
    yield Problem(place, f"there is no {kind} {name!r}; cure: {cure}")
