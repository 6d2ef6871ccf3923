"""Whether a shift is over although spans that began before its end still breach, or did lately.

The newest rows, as many as the longest span, have to agree with the reference at a level far above
that of a breach: fewer could not tell the end of a strong shift from a weak rest of it, which would
be a second alert later. And no span that breached may lie among them: what comes and goes lasts.
"""

from collections.abc import Sequence

from homeostat_monitor.domain.judges import Finding


def latest_begin(breaches: Sequence[Finding], before_us: int | None = None) -> int | None:
    """Where the latest of all spans began that breached so far."""
    begun = [each.since_us for each in breaches if each.since_us is not None]
    return max(begun if before_us is None else [*begun, before_us], default=None)


def is_clear(begun_us: int | None, findings: Sequence[Finding]) -> bool:
    """Whether a finding says that all rows since ``begun_us``, or a later time, are as they were:
    ``begun_us`` is where the latest span began that breached."""
    clear = [each.clear_since_us for each in findings if each.clear_since_us is not None]
    return begun_us is not None and bool(clear) and begun_us <= max(clear)
