"""Posting to webhooks: signatures, what an answer means, and when to try again.

Signed as Standard Webhooks 1.0 has it: HMAC-SHA256 over "id.timestamp.body", one signature for each
key, so that keys can be changed without a gap.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from homeostat_monitor.domain.errors import MonitorError

_KEY_PREFIX = "whsec_"
# What the specification allows.
_LEAST_KEY_BYTES, _MOST_KEY_BYTES = 24, 64
_MOST_KEYS = 8
_FIRST_SECONDS = 5.0
_FACTOR = 3.0
_LONGEST_SECONDS = 6 * 3_600.0
# A receiver may ask for a longer pause, but not for silence.
_LONGEST_ASKED_SECONDS = 86_400.0
_GONE = 410


class UnusableSecret(MonitorError):
    """A webhook's file of keys is not there or holds none; the message names the cure."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a try led to."""

    # None: there was no answer.
    status: int | None
    # Why there was none.
    error: str = ""
    # The header Retry-After as it came, and the Date beside it.
    retry_after: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a notification after a try."""

    is_delivered: bool = False
    # Nobody listens there any more.
    is_gone: bool = False
    is_given_up: bool = False
    retry_seconds: float = 0.0
    error: str = ""


def keys_of(text: str, name: str) -> list[bytes]:
    """The keys of a file, one ``whsec_<base64>`` a line, the newest first. UnusableSecret."""
    lines = [line for line in map(str.strip, text.splitlines()) if line and line[0] != "#"]
    if not 1 <= len(lines) <= _MOST_KEYS:
        raise UnusableSecret(
            f"the secret {name!r} has {len(lines)} keys; cure: one to {_MOST_KEYS} lines "
            f"{_KEY_PREFIX}<base64 of {_LEAST_KEY_BYTES} to {_MOST_KEY_BYTES} random bytes>"
        )
    return [_key(line, name, number) for number, line in enumerate(lines, 1)]


def _key(line: str, name: str, number: int) -> bytes:
    try:
        key = base64.b64decode(line.removeprefix(_KEY_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not line.startswith(_KEY_PREFIX) or not _LEAST_KEY_BYTES <= len(key) <= _MOST_KEY_BYTES:
        # Without the line: it may be a key with a slip of the pen.
        raise UnusableSecret(
            f"line {number} of the secret {name!r} is no key; cure: {_KEY_PREFIX}<base64 of "
            f"{_LEAST_KEY_BYTES} to {_MOST_KEY_BYTES} random bytes>"
        )
    return key


def signed_headers(
    keys: Sequence[bytes], message_id: str, at_seconds: int, body: bytes
) -> Mapping[str, str]:
    """The three headers; ``at_seconds`` is the time of this try."""
    signed = f"{message_id}.{at_seconds}.".encode() + body
    signatures = [
        base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_seconds),
        "webhook-signature": " ".join(f"v1,{each}" for each in signatures),
    }


def outcome_of(
    answer: Answer, *, tries: int, age_seconds: float, give_up_seconds: float, jitter: float
) -> Outcome:
    """After this many tries; ``jitter`` is uniform in [0, 1).

    Only 2xx is a delivery: a redirect is not followed, for it may lead where nobody allowed.
    """
    if answer.status is not None and 200 <= answer.status < 300:
        return Outcome(is_delivered=True)
    error = answer.error or f"it answered {answer.status}"
    if answer.status == _GONE:
        return Outcome(
            is_gone=True, error=f"{error} Gone: nothing more is posted until the policy is set anew"
        )
    if answer.status is not None and 300 <= answer.status < 400:
        error += ", a redirect, which is not followed; cure: write the final URL into the policy"
    pause = max(_pause(tries, jitter), _asked_seconds(answer))
    if age_seconds + pause > give_up_seconds:
        return Outcome(is_given_up=True, error=f"{error}; given up after {tries} tries")
    return Outcome(retry_seconds=pause, error=error)


def _pause(tries: int, jitter: float) -> float:
    """5 s, 15 s, 45 s, ... 6 h, each between three quarters and five quarters of it."""
    exponent = min(max(tries - 1, 0), 20)
    return min(_FIRST_SECONDS * _FACTOR**exponent, _LONGEST_SECONDS) * (0.75 + jitter / 2)


def _asked_seconds(answer: Answer) -> float:
    """Retry-After in seconds or as a time (RFC 9110, 10.2.3), by the receiver's own clock."""
    text = answer.retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_ASKED_SECONDS)
    try:
        until, now = parsedate_to_datetime(text), parsedate_to_datetime(answer.date)
        seconds = (until - now).total_seconds()
    except (TypeError, ValueError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_ASKED_SECONDS)
