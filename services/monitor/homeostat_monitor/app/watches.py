"""The watches of a version's truths and scores, with what they remember."""

from homeostat_monitor.app.keeping import Keeper
from homeostat_monitor.domain.detection.budget import Budget, Part
from homeostat_monitor.domain.labels.watch import LabelWatch
from homeostat_monitor.domain.losses.concept import ConceptWatch
from homeostat_monitor.domain.losses.truths import Truths
from homeostat_monitor.domain.losses.watch import LossWatch
from homeostat_monitor.domain.performance.estimate import Estimate
from homeostat_monitor.domain.performance.rolling import Rolling
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.ports import KnownVersion, StateKey

LOSSES = "losses"


def fresh_losses(version: KnownVersion, segment: str) -> LossWatch:
    """A segment whose rows in the hold-out are few, or not known, learns from its first losses."""
    return LossWatch.seeded(
        version.holdout_of(segment),
        is_binary=version.is_classification,
        false_alarms_per_month=_budget(version, Part.LOSSES),
    )


def fresh_rolling(version: KnownVersion) -> Rolling:
    """Metrics over the newest truths."""
    return Rolling.seeded(_rows(version), task=version.task)


async def losses_of(keeper: Keeper, version: KnownVersion, segment: str) -> LossWatch:
    """The delayed loss of a segment."""
    key = StateKey(segment, LOSSES)
    return await keeper.get(key, lambda: fresh_losses(version, segment), maker=version.profile)


def fresh_concept(version: KnownVersion) -> ConceptWatch:
    """Knows the hold-out, where there is one."""
    budget = _budget(version, Part.CONCEPT)
    return ConceptWatch.seeded(_rows(version), task=version.task, false_alarms_per_month=budget)


async def concept_of(keeper: Keeper, version: KnownVersion) -> ConceptWatch:
    """Whether truth follows from the scores as it did."""
    key = StateKey("", ConceptWatch.name)
    return await keeper.get(key, lambda: fresh_concept(version), maker=version.profile)


async def rolling_of(keeper: Keeper, version: KnownVersion) -> Rolling:
    """Metrics over the newest truths."""
    return await keeper.get(
        StateKey("", Rolling.name), lambda: fresh_rolling(version), maker=version.profile
    )


def fresh_labels(version: KnownVersion, profile: VersionProfile) -> LabelWatch:
    """Before the first truth."""
    return LabelWatch.seeded(
        _rows(version),
        length_us=profile.length_us,
        false_alarms_per_month=_budget(version, Part.LABELS),
    )


async def labels_of(keeper: Keeper, version: KnownVersion, profile: VersionProfile) -> LabelWatch:
    """Delay and coverage of truths."""
    return await keeper.get(
        StateKey("", LabelWatch.name), lambda: fresh_labels(version, profile), maker=profile
    )


def fresh_estimate(version: KnownVersion, profile: VersionProfile) -> Estimate:
    """Before the first window."""
    return Estimate.seeded(
        _rows(version),
        profile.score_bins,
        task=version.task,
        length_us=profile.length_us,
        false_alarms_per_month=_budget(version, Part.ESTIMATE),
    )


async def estimate_of(keeper: Keeper, version: KnownVersion, profile: VersionProfile) -> Estimate:
    """The loss that the scores alone lead to expect."""
    return await keeper.get(
        StateKey("", Estimate.name), lambda: fresh_estimate(version, profile), maker=profile
    )


def _rows(version: KnownVersion) -> Truths | None:
    holdout = version.holdout_of("")
    return holdout.rows if holdout is not None and len(holdout.losses) else None


def _budget(version: KnownVersion, part: Part) -> float:
    """Of all rows or of one of the policy's segments."""
    policy = version.policy
    return Budget(policy.false_alarms_per_month, len(policy.segments)).of(part)
