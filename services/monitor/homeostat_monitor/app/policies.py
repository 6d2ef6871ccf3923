"""What people say to the monitor: policies, and what they know of an alert."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from homeostat_monitor.domain.alerts.alert import Alert
from homeostat_monitor.domain.errors import BadRequest, StaleRevision, UnknownAlert, UnknownModel
from homeostat_monitor.domain.policies.checks import Known, require_valid
from homeostat_monitor.domain.policies.policy import Mute, Policy

_MOST_CHARACTERS = 1_000


class Policies(Protocol):
    """What people want of their models' watches."""

    async def policy(self, model_name: str) -> Policy:
        """The newest one, DEFAULT where nobody set any."""
        ...


class KeptPolicies(Policies, Protocol):
    """Those that are kept in hand for a moment."""

    def forget(self) -> None:
        """Whoever asks next hears what was set last."""


class PolicyTransaction(Policies, Protocol):
    """State and events of one transaction."""

    async def is_known(self, model_name: str) -> bool: ...
    async def take_turn(self, model_name: str) -> None:
        """Until the transaction ends nobody else judges the model or changes its policy."""
        ...

    async def add_policy(self, policy: Policy) -> int:
        """Keeps one more revision; when, in microseconds."""
        ...

    async def find_alert(self, alert_id: str) -> Alert | None: ...
    async def save_alerts(self, alerts: Sequence[Alert]) -> None: ...
    async def tell(self, alerts: Sequence[Alert]) -> None: ...
    async def add_acknowledgement(self, alert_id: str, who: str, comment: str) -> None: ...
    async def is_past(self, at_us: int) -> bool:
        """By the database's clock."""
        ...

    async def set_mute(self, mute: Mute) -> None: ...
    async def end_mute(self, mute: Mute) -> None: ...
    async def mutes(self, model_name: str) -> list[Mute]: ...


async def get_policy(model_name: str, *, tx: PolicyTransaction) -> Policy:
    """The one that holds; UnknownModel."""
    await _require_model(model_name, tx)
    return await tx.policy(model_name)


async def set_policy(
    policy: Policy,
    *,
    who: str,
    known: Known,
    expected_revision: int | None,
    is_dry_run: bool,
    tx: PolicyTransaction,
) -> Policy:
    """The policy as it is kept from now on (or would be). BadPolicy with every problem;
    StaleRevision where somebody set another one in between."""
    require_valid(policy, known)
    await _require_model(policy.model_name, tx)
    await tx.take_turn(policy.model_name)
    present = await tx.policy(policy.model_name)
    if expected_revision is not None and expected_revision != present.revision:
        by = f", set by {present.set_by}" if present.set_by else ""
        raise StaleRevision(
            f"the policy of {policy.model_name} is at revision {present.revision}{by}, not at "
            f"{expected_revision}; cure: read it again and make your change there"
        )
    policy = replace(policy, revision=present.revision + 1, set_by=who, set_at_us=0)
    if is_dry_run:
        return policy
    return replace(policy, set_at_us=await tx.add_policy(policy))


async def acknowledge(alert_id: str, *, who: str, comment: str, tx: PolicyTransaction) -> Alert:
    """Somebody has seen it; told as one more event of the alert. UnknownAlert, BadRequest."""
    if not who:
        raise BadRequest("acknowledged_by is empty; cure: say who has seen the alert")
    _require_short(who=who, comment=comment)
    alert = await _alert(alert_id, tx)
    await tx.add_acknowledgement(alert_id, who, comment)
    if alert.acknowledged_by == who:
        return alert
    return await _tell(replace(alert, acknowledged_by=who), tx)


async def assign(alert_id: str, *, to: str, tx: PolicyTransaction) -> Alert:
    """Somebody shall look at it, or nobody any more. UnknownAlert, BadRequest."""
    _require_short(assigned_to=to)
    alert = await _alert(alert_id, tx)
    if alert.assigned_to == to:
        return alert
    return await _tell(replace(alert, assigned_to=to), tx)


async def mute(mute: Mute, *, tx: PolicyTransaction) -> bool:
    """Keeps webhooks quiet until then; one that has ended, or has no end, ends it. Whether it is
    silent now. UnknownModel, BadRequest."""
    await _require_model(mute.model_name, tx)
    _require_short(
        feature=mute.feature, segment=mute.segment, muted_by=mute.muted_by, reason=mute.reason
    )
    # Judging tells alerts under the same lock: it sees the mute whole or not at all.
    await tx.take_turn(mute.model_name)
    if await tx.is_past(mute.until_us):
        await tx.end_mute(mute)
        return False
    await tx.set_mute(mute)
    return True


async def mutes_of(model_name: str, *, tx: PolicyTransaction) -> list[Mute]:
    """Those that have not ended. UnknownModel."""
    await _require_model(model_name, tx)
    return await tx.mutes(model_name)


async def _alert(alert_id: str, tx: PolicyTransaction) -> Alert:
    """Read once more under the model's lock: judging changes alerts too."""
    found = await tx.find_alert(alert_id)
    if found is not None:
        await tx.take_turn(found.subject.model_name)
        found = await tx.find_alert(alert_id)
    if found is None:
        raise UnknownAlert(
            f"there is no alert {alert_id!r}; cure: `homeostat alerts list MODEL` shows their ids"
        )
    return found


async def _tell(alert: Alert, tx: PolicyTransaction) -> Alert:
    """Nothing new is known of the model: state and watermark stay as they were."""
    alert = replace(alert, revision=alert.revision + 1)
    await tx.save_alerts([alert])
    await tx.tell([alert])
    return alert


async def _require_model(model_name: str, tx: PolicyTransaction) -> None:
    if not await tx.is_known(model_name):
        raise UnknownModel(f"nothing is known of the model {model_name!r}")


def _require_short(**texts: str) -> None:
    for name, text in texts.items():
        if len(text) > _MOST_CHARACTERS:
            raise BadRequest(f"{name} has more than {_MOST_CHARACTERS} characters; cure: shorten")
