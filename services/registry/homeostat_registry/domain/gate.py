"""The gate: recomputes from the evidence whether a candidate may replace the champion."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

from homeostat_registry.domain.facts import (
    Artifact,
    Equivalence,
    Evidence,
    Lineage,
    Model,
    Signature,
    Version,
)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MICROS_PER_DAY = 86_400_000_000

# Where 500 rows are equal, fewer than 0.6 % of all differ, with 95 % certainty (3 / 500).
_LEAST_ROWS_ALIKE = 500
# Another form of a model is to be the same model.
_LEAST_SHARE_ALIKE = 0.999
# Clients act on scores, not on classes alone: what is equal to the eye is another model beyond it.
_MOST_SCORE_DIFFERENCE = 0.02
# Less is within what two measurements of one model differ by, and not worth another file.
_LEAST_SPEED_UP = 1.05


@dataclass(frozen=True, slots=True)
class GateRule:
    """What counts as proof."""

    # Below this many hold-out rows the mean's distribution is too far from normal to be tested so.
    min_holdout_rows: int = 300
    # One-sided, over all candidates of the run together.
    error_probability: float = 0.05


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What the gate says, and why: one sentence each."""

    passes: bool
    reasons: tuple[str, ...]
    # It passes only on the sender's own word for what is alike: a person has to agree.
    needs_person: bool = False


def judge(
    evidence: Evidence | None,
    *,
    candidate: Artifact,
    lineage: Lineage,
    model: Model,
    champion: Version | None,
    rule: GateRule,
) -> GateVerdict:
    """Whether the evidence proves the candidate better than the present champion.

    All faults of the evidence are told at once; the gain is judged only where there are none.
    """
    if evidence is None:
        return GateVerdict(False, ("There is no evidence: evaluate it beside the champion.",))
    faults = tuple(_faults(evidence, candidate, lineage, model, champion, rule))
    if faults:
        return GateVerdict(False, faults)
    return _judge_gain(evidence, rule)


def judge_equivalence(
    said: Equivalence, *, signature: Signature, champion: Version | None
) -> GateVerdict:
    """Whether the candidate is the present champion in another form: it decides alike, and faster.

    All faults are told at once.
    """
    faults = (
        *_stale_parent(said, champion),
        *_unlike(signature, champion),
        *_unsound_comparison(said, signature),
    )
    if faults:
        return GateVerdict(False, faults)
    share = said.equal_count / said.row_count
    needed = max(_LEAST_SHARE_ALIKE, said.tolerated_share)
    alike = (
        f"{said.equal_count} of {said.row_count} rows are equal ({share:.4%} where "
        f"{needed:.4%} is needed), largest difference of the score "
        f"{said.max_score_difference:.3g}"
    )
    faster = (
        f"{said.speed_up:.2f} times as fast per row on {said.machine} where "
        f"{_LEAST_SPEED_UP} is needed"
    )
    if share < needed:
        return GateVerdict(False, (f"Not equivalent to its parent: {alike}.",))
    if signature.classes and said.max_score_difference > _MOST_SCORE_DIFFERENCE:
        most = f"a score may differ by {_MOST_SCORE_DIFFERENCE} at most"
        return GateVerdict(False, (f"Not equivalent to its parent: {alike}; {most}.",))
    if said.speed_up <= _LEAST_SPEED_UP:
        return GateVerdict(False, (f"Equivalent but not faster: {faster}.",))
    reasons = (f"Equivalent to its parent by {said.method}: {alike}; {faster}.",)
    if signature.classes or said.value_tolerance == 0:
        return GateVerdict(True, reasons)
    # What a value of the model is worth is in no file that the gate reads.
    loosely = (
        f"Values that differ by up to {said.value_tolerance:.6g} were counted as equal: a person "
        "has to say whether they are."
    )
    return GateVerdict(True, (*reasons, loosely), needs_person=True)


def _stale_parent(said: Equivalence, champion: Version | None) -> Iterator[str]:
    if champion is None:
        yield "No version serves: there is no parent that it could be another form of."
    elif said.parent_sha256 != champion.model.sha256:
        yield (
            f"Stale: its parent {said.parent_sha256[:12]!r} is not the present champion, version "
            f"{champion.version} ({champion.model.sha256[:12]}); convert that one."
        )


def _unlike(signature: Signature, champion: Version | None) -> Iterator[str]:
    if champion is not None and signature != champion.signature:
        yield (
            f"Its signature is not that of its parent, version {champion.version}: another form "
            "takes and gives the very same."
        )


def _unsound_comparison(said: Equivalence, signature: Signature) -> Iterator[str]:
    if not _SHA256.fullmatch(said.rows_sha256):
        yield "The rows compared are not named: rows_sha256 must be 64 hex digits."
    if said.row_count < _LEAST_ROWS_ALIKE:
        yield (
            f"Too few rows were compared: {said.row_count}, at least {_LEAST_ROWS_ALIKE} are "
            "needed."
        )
    if said.equal_count > said.row_count:
        yield f"{said.equal_count} equal rows are more than the {said.row_count} compared."
    if not 0 <= said.tolerated_share <= 1:
        yield "tolerated_share must lie between 0 and 1."
    if not (math.isfinite(said.value_tolerance) and said.value_tolerance >= 0):
        yield "value_tolerance must be finite and not negative."
    difference = said.max_score_difference
    if not (math.isfinite(difference) and difference >= 0):
        yield "The largest difference of the score is no finite number."
    elif signature.classes and difference > 1:
        yield f"Probabilities can't differ by {difference:.3g}."
    if not (math.isfinite(said.speed_up) and said.speed_up > 0):
        yield "The speed-up is no finite number above 0."
    if not (said.method.strip() and said.machine.strip()):
        yield "It does not say what was done (method), and where it was measured (machine)."


def required_z(candidate_count: int, error_probability: float) -> float:
    """The one-sided critical value for the best of so many candidates (Bonferroni)."""
    return -NormalDist().inv_cdf(error_probability / candidate_count)


def _judge_gain(evidence: Evidence, rule: GateRule) -> GateVerdict:
    z = evidence.mean_gain * math.sqrt(evidence.holdout_rows) / evidence.gain_deviation
    needed = required_z(evidence.candidate_count, rule.error_probability)
    told = (
        f"gain {evidence.mean_gain:.6g} per row on {evidence.holdout_rows} hold-out rows, "
        f"z = {z:.2f} where {needed:.2f} is needed for the best of {evidence.candidate_count} "
        f"at {100 * (1 - rule.error_probability):.0f} %."
    )
    passes = z >= needed
    return GateVerdict(passes, (f"{'Proven better' if passes else 'Not proven better'}: {told}",))


def _faults(
    evidence: Evidence,
    candidate: Artifact,
    lineage: Lineage,
    model: Model,
    champion: Version | None,
    rule: GateRule,
) -> Iterator[str]:
    yield from _stale(evidence, model, champion)
    yield from _misfits(evidence, candidate)
    yield from _unsound_numbers(evidence, rule)
    yield from _peeking(evidence, lineage, champion)


def _stale(evidence: Evidence, model: Model, champion: Version | None) -> Iterator[str]:
    yield from stale_champion(evidence, champion)
    if not model.is_since_settled(evidence.champion_etag):
        yield "Stale: the model changed since the comparison began; compare again."


def stale_champion(evidence: Evidence | None, champion: Version | None) -> Iterator[str]:
    """Why the evidence's champion is not the present one; nothing where it is."""
    if evidence is None:
        if champion is not None:
            yield f"There is no evidence against the present champion {champion.version}."
        return
    if champion is None:
        yield f"Stale: it was compared with version {evidence.champion_version}; none serves now."
    elif evidence.champion_version != champion.version:
        yield (
            f"Stale: it was compared with version {evidence.champion_version}, "
            f"but version {champion.version} is champion now; compare again."
        )
    elif evidence.champion_sha256 != champion.model.sha256:
        yield "Stale: the champion's artifact is not the one that it was compared with."


def stale_proof(version: Version, champion: Version | None) -> Iterator[str]:
    """Why what the version was proven with is not about the present champion; nothing if it is."""
    if version.equivalence is not None:
        yield from _stale_parent(version.equivalence, champion)
    else:
        yield from stale_champion(version.evidence, champion)


def _misfits(evidence: Evidence, candidate: Artifact) -> Iterator[str]:
    if evidence.candidate_sha256 != candidate.sha256:
        yield "The evidence is for another artifact: candidate_sha256 is not that of the model."
    if not _SHA256.fullmatch(evidence.holdout_sha256):
        yield "The evidence does not name its hold-out: holdout_sha256 must be 64 hex digits."


def _unsound_numbers(evidence: Evidence, rule: GateRule) -> Iterator[str]:
    numbers = (
        evidence.mean_gain,
        evidence.gain_deviation,
        evidence.candidate_loss,
        evidence.champion_loss,
    )
    if not all(math.isfinite(each) for each in numbers):
        yield "The evidence holds a number that is not finite."
    if evidence.gain_deviation < 0:
        yield "The deviation of the gain is negative."
    if evidence.gain_deviation == 0:
        yield "The gain does not vary from row to row: that is no comparison."
    if evidence.holdout_rows < rule.min_holdout_rows:
        yield (
            f"Too few hold-out rows: {evidence.holdout_rows}, "
            f"at least {rule.min_holdout_rows} are needed; wait for more truth."
        )
    if evidence.candidate_count < 1:
        yield "The evidence does not say how many candidates were tried."


def _peeking(evidence: Evidence, lineage: Lineage, champion: Version | None) -> Iterator[str]:
    """All times are known-at times: truth known until then may have been trained on."""
    if evidence.holdout_from_us > evidence.holdout_to_us:
        yield "The hold-out ends before it begins."
    if lineage.trained_to_us <= 0:
        yield "The lineage does not say up to when the candidate was trained (trained_to_us)."
    trained = [("candidate", lineage)]
    if champion is not None:
        trained.append(("champion", champion.lineage))
    for who, of in trained:
        peeked = of.trained_to_us - evidence.holdout_from_us
        if peeked >= 0:
            yield (
                f"Peeking: the {who} was trained on truth known up to "
                f"{peeked / _MICROS_PER_DAY:.2f} days into the hold-out; use later truth."
            )
