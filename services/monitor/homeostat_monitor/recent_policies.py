"""Every model's policy as it was a moment ago, from one question for all of them."""

import time

from homeostat_kit import logs
from homeostat_kit.postgres import Pool, queries
from homeostat_monitor.domain.policies.policy import DEFAULT, Policy

# A policy that was set is in force after so long.
_FRESH_SECONDS = 1.0

_SQL = queries("homeostat_monitor")
_log = logs.get_logger("homeostat_monitor.policies")


class RecentPolicies:
    """The port of those who judge; models without a policy have the default one."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: dict[str, Policy] = {}
        self._revisions: dict[str, int] = {}
        self._good_until = 0.0

    async def policy(self, model_name: str) -> Policy:
        """The newest one, DEFAULT where nobody set any."""
        if time.monotonic() > self._good_until:
            await self._read()
        return self._known.get(model_name) or DEFAULT.of(model_name)

    def forget(self) -> None:
        """Whoever asks next hears what was set last."""
        self._good_until = 0.0

    async def _read(self) -> None:
        self._good_until = time.monotonic() + _FRESH_SECONDS
        rows = await self._pool.fetch(_SQL["policy_revisions"])
        revisions = {row["model_name"]: row["revision"] for row in rows}
        changed = [
            name for name, revision in revisions.items() if self._revisions.get(name) != revision
        ]
        for row in await self._pool.fetch(_SQL["policies_of"], changed) if changed else ():
            name = row["model_name"]
            policy = Policy.stored(name, revisions[name], row["body"])
            if policy.fault:
                _log.error("policy_not_read", model_name=name, error=policy.fault)
            self._known[name] = policy
        self._revisions = revisions
