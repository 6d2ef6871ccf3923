"""Delivering what waits for webhooks: each at least once, or given up with the reason."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from homeostat_monitor.domain.alerts.deliveries import (
    Answer,
    Outcome,
    UnusableSecret,
    outcome_of,
    signed_headers,
)
from homeostat_monitor.domain.alerts.hosts import AllowedHosts
from homeostat_monitor.domain.policies.policy import Policy


class Post(Protocol):
    """Posts once; whatever goes wrong is an answer."""

    async def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer: ...


# The keys of a secret by its name; UnusableSecret.
Keys = Callable[[str], Sequence[bytes]]


async def attempt(
    policy: Policy,
    webhook_name: str,
    *,
    message_id: str,
    body: bytes,
    tries: int,
    now_seconds: int,
    age_seconds: float,
    give_up_seconds: float,
    jitter: float,
    hosts: AllowedHosts,
    keys: Keys,
    post: Post,
) -> Outcome:
    """One try at one notification, by what the policy and the operator say now."""
    webhook = policy.webhook(webhook_name)
    if webhook is None:
        return Outcome(is_given_up=True, error="the policy has no such webhook any more")
    refusal = hosts.refusal(webhook.url)
    if refusal is not None:
        return Outcome(is_given_up=True, error=refusal)
    try:
        headers = signed_headers(keys(webhook.secret_name), message_id, now_seconds, body)
    except UnusableSecret as error:
        answer = Answer(None, str(error))
    else:
        answer = await post(webhook.url, headers, body)
    return outcome_of(
        answer,
        tries=tries,
        age_seconds=age_seconds,
        give_up_seconds=give_up_seconds,
        jitter=jitter,
    )
