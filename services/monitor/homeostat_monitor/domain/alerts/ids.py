"""Names of alerts: hashed from what opened them, so that a second telling gives the same."""

import hashlib
from collections.abc import Collection
from itertools import count
from typing import TYPE_CHECKING

from homeostat_monitor.domain.judges import Rule

if TYPE_CHECKING:  # alerts are named here
    from homeostat_monitor.domain.alerts.alert import Subject


def alert_id(subject: "Subject", rule: Rule, feature: str, *opening: int, segment: str = "") -> str:
    """The same opening gives the same id, also on a second telling.

    ``opening``: the window's start, or the opening loss's time and its number.
    """
    digest = hashlib.sha256()
    parts = (subject.model_name, str(subject.version), rule, feature, *map(str, opening))
    for part in (*parts, segment) if segment else parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


def free_id(
    taken: Collection[str],
    subject: "Subject",
    rule: Rule,
    feature: str,
    start_us: int,
    *,
    segment: str,
) -> str:
    """The first that is not taken: with truths that became known at one time an alert may open,
    end and open again."""
    found = alert_id(subject, rule, feature, start_us, segment=segment)
    for number in count(2):
        if found not in taken:
            break
        found = alert_id(subject, rule, feature, start_us, number, segment=segment)
    return found
