"""One version while it is judged in one transaction."""

from dataclasses import dataclass, field, replace

from homeostat_monitor.app.book import Book
from homeostat_monitor.app.diagnosing import Past
from homeostat_monitor.app.keeping import Keeper
from homeostat_monitor.domain.alerts.alert import Alert
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.ports import KnownVersion, Standing, Transaction


@dataclass(slots=True)
class Judged:
    """What one transaction did."""

    alerts: list[Alert] = field(default_factory=list)
    windows: int = 0
    losses: int = 0
    # There may be more due.
    is_full: bool = False
    # To be put in hand after the commit.
    keepers: list[Keeper] = field(default_factory=list)


@dataclass(slots=True)
class Pass:
    """What the judges of windows and of truths share."""

    standing: Standing
    version: KnownVersion
    book: Book
    keeper: Keeper
    # None: there is no profile.
    past: Past | None
    tx: Transaction
    judged: Judged
    # The mark up to which the model's windows were judged before.
    judged_until_us: int | None = None

    def said(self, findings: list[Finding]) -> list[Finding]:
        """What the policy wants to hear, and a level that was accepted as normal is no breach."""
        policy, accepted = self.version.policy, self.standing.accepted
        return [
            _with_accepted(each, accepted.get(accepted_key(each)))
            for each in findings
            if policy.judges_finding(each)
        ]


def accepted_key(finding: Finding, rule: Rule | None = None) -> str:
    """Under which an accepted level is kept; of another rule on the same thing, with ``rule``."""
    key = f"{rule or finding.rule}:{finding.feature}"
    if finding.other_feature:
        key += f":{finding.other_feature}"
    return f"{key}@{finding.segment}" if finding.segment else key


def _with_accepted(finding: Finding, level: float | None) -> Finding:
    if level is None or level <= finding.threshold:
        return finding
    return replace(finding, threshold=level, is_breach=finding.observed > level)
