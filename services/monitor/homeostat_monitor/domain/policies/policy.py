"""What a person wants of a model's watch: budget, switches, segments, thresholds, webhooks.

A policy that nobody set is DEFAULT: every layer on, one false alarm a month, no segments.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from homeostat_monitor.domain.alerts.alert import Severity
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Rule


class Comparison(StrEnum):
    """What a threshold is compared with. The names are stored."""

    ABOVE = "above"
    BELOW = "below"
    # The metric over its reference, less 1: 0.2 is a fifth more.
    RELATIVE_ABOVE = "relative_above"
    RELATIVE_BELOW = "relative_below"

    @property
    def is_above(self) -> bool:
        return self in (Comparison.ABOVE, Comparison.RELATIVE_ABOVE)

    @property
    def is_relative(self) -> bool:
        return self in (Comparison.RELATIVE_ABOVE, Comparison.RELATIVE_BELOW)


# Metrics that thresholds may be set on, and what they are.
METRICS: Mapping[str, str] = MappingProxyType(
    {
        "loss": "mean delayed loss",
        "accuracy": "share of right classes",
        "auc": "area under the ROC curve",
        "log_loss": "mean log-loss",
        "brier": "mean squared distance of probability and class",
        "precision": "share of right ones among those called positive",
        "recall": "share of the positive ones that were called so",
        "f1": "harmonic mean of precision and recall",
        "mae": "mean absolute error",
        "rmse": "root of the mean squared error",
        "bias": "mean of truth less score",
        "mean_score": "mean score",
        "null_rate": "share of nulls of a feature",
        "js_distance": "distance of a feature's distribution from the reference's",
        "arrival_rate": "predictions per hour",
        "label_delay_seconds": "median time from prediction to truth",
        "label_coverage": "share of predictions that have a truth",
        "estimated_loss": "loss estimated without labels",
    }
)
# These are measured per feature.
FEATURE_METRICS = frozenset({"null_rate", "js_distance"})
# These the reference does not show.
WITHOUT_REFERENCE = frozenset({"js_distance", "arrival_rate"})
# Of a segment there are: loss, mean score, rate of arrival, and what is measured per feature.
OF_ALL_ROWS = frozenset(METRICS) - FEATURE_METRICS - {"loss", "mean_score", "arrival_rate"}

# Fewer rows make no figure that one could rely on.
LEAST_ROWS = 25


@dataclass(frozen=True, slots=True)
class Segment:
    """Some of the rows, by an expression over inputs and contexts."""

    name: str
    expression: str


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A threshold of a person's own."""

    name: str
    # One of METRICS.
    metric: str
    comparison: Comparison | None
    warning: float | None = None
    critical: float | None = None
    feature: str = ""
    segment: str = ""
    # So many windows in a row.
    windows: int = 1
    least_rows: int = LEAST_ROWS


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where alerts are posted."""

    name: str
    url: str
    # A file in the monitor's folder of secrets; never the key itself.
    secret_name: str
    least_severity: Severity = Severity.WARNING
    # Empty: all.
    segments: tuple[str, ...] = ()

    def wants(self, severity: Severity, segment: str) -> bool:
        """Whether an alert of this severity and segment is posted to it."""
        if self.segments and segment not in self.segments:
            return False
        return severity is Severity.CRITICAL or self.least_severity is Severity.WARNING


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for one model."""

    model_name: str = ""
    # 0: nobody set one.
    revision: int = 0
    # Over features, segments and time together.
    false_alarms_per_month: float = 1.0
    disabled_rules: frozenset[Rule] = frozenset()
    segments: tuple[Segment, ...] = ()
    rules: tuple[PolicyRule, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    # None: chosen from the reference.
    mode: Mode | None = None
    ignored_features: tuple[str, ...] = ()
    # An alert of the same rule and segment is posted once in this time; 0: every one.
    throttle_seconds: float = 0.0
    set_by: str = ""
    set_at_us: int = 0
    # Why the default stands in for the one that is stored; empty: it does not. Not stored.
    fault: str = ""

    def judges(self, rule: Rule, feature: str = "") -> bool:
        """Whether this rule is on, and this feature is judged."""
        return rule not in self.disabled_rules and feature not in self.ignored_features

    def judges_finding(self, finding: Finding) -> bool:
        """Of a pair both features must be judged."""
        return self.judges(finding.rule, finding.feature) and (
            finding.other_feature not in self.ignored_features
        )

    def webhook(self, name: str) -> Webhook | None:
        """The one of this name."""
        return next((each for each in self.webhooks if each.name == name), None)

    def of(self, model_name: str) -> "Policy":
        """The same for this model."""
        return replace(self, model_name=model_name)

    def to_json(self) -> str:
        """For the database; from_json gives the same policy back."""
        plain = asdict(self)
        plain["disabled_rules"] = sorted(self.disabled_rules)
        del plain["fault"]
        return json.dumps(plain, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Policy":
        """CorruptState where the text is not one that to_json wrote."""
        try:
            return _policy(json.loads(text))
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptState(f"a stored policy cannot be read: {error!r}") from error

    @classmethod
    def stored(cls, model_name: str, revision: int, text: str) -> "Policy":
        """As from_json; where that cannot be, the default one, which says so: a model is judged
        by what can be read rather than by nothing."""
        try:
            return cls.from_json(text)
        except CorruptState as error:
            fault = f"{error}; the default one holds; cure: set the policy anew"
            return cls(model_name=model_name, revision=revision, fault=fault)


DEFAULT = Policy()


def _policy(plain: Mapping[str, Any]) -> Policy:
    fields = dict(plain)
    fields["disabled_rules"] = frozenset(map(Rule, fields["disabled_rules"]))
    fields["segments"] = tuple(Segment(**each) for each in fields["segments"])
    fields["rules"] = tuple(_rule(each) for each in fields["rules"])
    fields["webhooks"] = tuple(_webhook(each) for each in fields["webhooks"])
    fields["mode"] = None if fields["mode"] is None else Mode(fields["mode"])
    fields["ignored_features"] = tuple(fields["ignored_features"])
    return Policy(**fields)


def _rule(plain: Mapping[str, Any]) -> PolicyRule:
    comparison = plain["comparison"]
    return PolicyRule(
        **{**plain, "comparison": None if comparison is None else Comparison(comparison)}
    )


def _webhook(plain: Mapping[str, Any]) -> Webhook:
    return Webhook(
        **{
            **plain,
            "least_severity": Severity(plain["least_severity"]),
            "segments": tuple(plain["segments"]),
        }
    )


@dataclass(frozen=True, slots=True)
class Mute:
    """Silence for webhooks."""

    model_name: str
    # None: every rule.
    rule: Rule | None
    # Empty: every one.
    feature: str
    segment: str
    until_us: int
    muted_by: str
    reason: str

    def covers(self, rule: Rule, features: Sequence[str], segment: str) -> bool:
        """Whether an alert is meant; one of a feature's mute, only if it is about nothing else."""
        if self.rule is not None and self.rule is not rule:
            return False
        if self.segment and self.segment != segment:
            return False
        return not self.feature or (bool(features) and set(features) == {self.feature})
