"""The life of a version: what registration, approval, promotion and roll-back lead to."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from homeostat_registry.domain.errors import (
    AlreadyExists,
    Invalid,
    SelfApproval,
    StaleChampion,
    StaleEtag,
    StaleRun,
    UnknownVersion,
    WrongStage,
)
from homeostat_registry.domain.facts import (
    Autonomy,
    Change,
    Model,
    Registration,
    Reign,
    Stage,
    Version,
)
from homeostat_registry.domain.gate import (
    GateRule,
    GateVerdict,
    judge,
    judge_equivalence,
    stale_proof,
)
from homeostat_registry.domain.serving import Serving


@dataclass(frozen=True, slots=True)
class Decision:
    """Which stage a version takes, and why: one sentence each."""

    stage: Stage
    reasons: tuple[str, ...]

    @property
    def change(self) -> Change:
        """What to tell the world."""
        return _CHANGES[self.stage]


_CHANGES = {
    Stage.REGISTERED: Change.REGISTERED,
    Stage.CHAMPION: Change.PROMOTED,
    Stage.AWAITS_APPROVAL: Change.AWAITS_APPROVAL,
    Stage.REJECTED: Change.REJECTED,
    Stage.RETIRED: Change.RETIRED,
}


def require_fresh_run(said: Registration, model: Model) -> None:
    """StaleRun if a run with a newer fencing token has registered already."""
    if not said.is_by_hand and said.fencing_token < model.highest_fencing_token:
        raise StaleRun(
            f"{model.name}: run {said.lineage.run_id} holds fencing token {said.fencing_token}, "
            f"but {model.highest_fencing_token} was seen: another run took over; end this one"
        )


def require_new_artifact(said: Registration, same: Version | None) -> None:
    """AlreadyExists if a person registers an artifact that is a version already."""
    if said.is_by_hand and same is not None:
        raise AlreadyExists(
            f"{said.model_name}: this model file is version {same.version} already "
            f"({same.stage.name.lower()}); promote that one, or change the file"
        )


def require_etag(model: Model, etag: str) -> None:
    """StaleEtag if the model changed since ``etag`` was read; Invalid without one."""
    if not etag:
        raise Invalid(f"{model.name}: pass the model's present etag, from GetModel")
    if etag != model.etag:
        raise StaleEtag(
            f"{model.name}: the model changed since etag {etag[:64]!r} was read (it is at revision "
            f"{model.revision} now); read it again and decide anew"
        )


def decide(said: Registration, model: Model, champion: Version | None, rule: GateRule) -> Decision:
    """What becomes of a version at its registration."""
    if said.equivalence is not None:
        alike = judge_equivalence(said.equivalence, signature=said.signature, champion=champion)
        return _decide_proven(alike, model.autonomy)
    if champion is None and said.evidence is None:
        return _decide_first(said, model)
    if said.evidence is None and said.is_by_hand:
        return Decision(
            Stage.REGISTERED, ("Registered by hand without evidence: it waits to be promoted.",)
        )
    verdict = judge(
        said.evidence,
        candidate=said.model,
        lineage=said.lineage,
        model=model,
        champion=champion,
        rule=rule,
    )
    return _decide_proven(verdict, model.autonomy)


def _decide_first(said: Registration, model: Model) -> Decision:
    if model.autonomy in (Autonomy.OBSERVE, Autonomy.RECOMMEND):
        return Decision(
            Stage.REGISTERED,
            (f"No version serves yet; under {_spoken(model)} a person promotes it.",),
        )
    if model.autonomy is Autonomy.APPROVE and not said.is_by_hand:
        return Decision(Stage.AWAITS_APPROVAL, ("No version serves yet, and a run made this one.",))
    return Decision(Stage.CHAMPION, ("The first version of its model: nothing to compare with.",))


def _decide_proven(verdict: GateVerdict, autonomy: Autonomy) -> Decision:
    if autonomy is Autonomy.OBSERVE:
        return Decision(Stage.REGISTERED, ("Recorded only: the model's autonomy is OBSERVE.",))
    if autonomy is Autonomy.RECOMMEND:
        word = "Recommended." if verdict.passes else "Not recommended."
        return Decision(Stage.REGISTERED, (word, *verdict.reasons))
    if not verdict.passes:
        return Decision(Stage.REJECTED, verdict.reasons)
    is_alone = autonomy is Autonomy.AUTO and not verdict.needs_person
    stage = Stage.CHAMPION if is_alone else Stage.AWAITS_APPROVAL
    return Decision(stage, verdict.reasons)


def decide_approval(
    version: Version, champion: Version | None, *, approver: str, is_approved: bool, reason: str
) -> Decision:
    """What an approver's word leads to.

    WrongStage if it does not await approval; SelfApproval; StaleChampion if the champion moved on.
    """
    if version.stage is not Stage.AWAITS_APPROVAL:
        raise WrongStage(
            f"{version.model_name} version {version.version} is {version.stage.name.lower()}: "
            "only a version that awaits approval can be approved or rejected"
        )
    if same_person(approver, version.author):
        raise SelfApproval(
            f"{version.model_name} version {version.version} was made by {version.author}: "
            "somebody else must approve it"
        )
    said = f"{'Approved' if is_approved else 'Rejected'} by {approver}{_because(reason)}"
    if not is_approved:
        return Decision(Stage.REJECTED, (*version.reasons, said))
    stale = tuple(stale_proof(version, champion))
    if stale:
        raise StaleChampion(
            f"{version.model_name} version {version.version} can't be approved any more. "
            f"{' '.join(stale)} Reject it, or promote it by hand."
        )
    return Decision(Stage.CHAMPION, (*version.reasons, said))


def decide_promotion(version: Version, model: Model, *, actor: str, reason: str) -> Decision:
    """Past the gate by a person's word; WrongStage if it is champion already.

    SelfApproval if it needs approval, or was refused, and ``actor`` made it: four eyes.
    """
    if version.stage is Stage.CHAMPION:
        raise WrongStage(f"{version.model_name} version {version.version} is champion already")
    if (
        model.autonomy is Autonomy.APPROVE
        and version.stage in (Stage.AWAITS_APPROVAL, Stage.REJECTED)
        and same_person(actor, version.author)
    ):
        raise SelfApproval(
            f"{version.model_name} version {version.version} was made by {version.author}: "
            f"under {_spoken(model)} somebody else must promote it"
        )
    if not reason.strip():
        raise Invalid("a promotion past the gate needs a reason")
    return Decision(Stage.CHAMPION, (f"Promoted past the gate by {actor}{_because(reason)}",))


def require_four_eyes(
    wanted: Serving, model: Model, versions: Mapping[int, Version], *, actor: str
) -> None:
    """SelfApproval if ``actor`` would let a version answer clients that ``actor`` made and somebody
    else has to approve. ``versions`` holds all that ``wanted`` names."""
    if model.autonomy is not Autonomy.APPROVE:
        return
    is_same_fallback = (wanted.fallback_version, wanted.is_on_fallback) == (
        model.serving.fallback_version,
        model.serving.is_on_fallback,
    )
    canary = wanted.canary if wanted.canary != model.serving.canary else None
    for number in (
        None if canary is None else canary.version,
        None if is_same_fallback else wanted.fallback_version,
    ):
        version = None if number is None else versions[number]
        if (
            version is not None
            and version.stage is Stage.AWAITS_APPROVAL
            and same_person(actor, version.author)
        ):
            raise SelfApproval(
                f"{model.name} version {version.version} was made by {version.author} and awaits "
                f"approval: under {_spoken(model)} somebody else must let it answer; it may run "
                "as a shadow"
            )


def autonomy_after(model: Model, successor: int, change: Change) -> Autonomy:
    """How far the gate may still go once ``successor`` serves.

    Who goes back to an older version takes ``AUTO`` away: the loop would find the same drift again
    and promote again what was just taken down.
    """
    goes_back = change is Change.ROLLED_BACK or successor < (model.champion_version or 0)
    return Autonomy.APPROVE if goes_back and model.autonomy is Autonomy.AUTO else model.autonomy


def roll_back_target(model: Model, history: Sequence[Reign], wanted: int | None) -> int:
    """The version to go back to: the one named, or the champion before the present one.

    UnknownVersion if none served before; WrongStage if the one named never did, or serves now.
    """
    line = _line_of_champions(history)
    if wanted is None:
        if len(line) < 2:
            raise UnknownVersion(f"{model.name}: no version was champion before; nothing to go to")
        return line[-2]
    if wanted == model.champion_version:
        raise WrongStage(f"{model.name} version {wanted} is champion already")
    if wanted not in {each.version for each in history}:
        raise WrongStage(
            f"{model.name} version {wanted} never was champion; promote it by hand instead"
        )
    return wanted


def _line_of_champions(history: Sequence[Reign]) -> list[int]:
    """Champions in order, without those that were rolled back: going back twice goes two back."""
    line: list[int] = []
    for reign in history:
        if reign.change is Change.ROLLED_BACK and reign.version in line:
            del line[len(line) - line[::-1].index(reign.version) :]
        else:
            line.append(reign.version)
    return line


def champion_at(history: Sequence[Reign], at_us: int) -> Reign | None:
    """Who was champion at that event time; None before the first.

    A later decision that counts from an earlier time replaces what was decided for after it.
    """
    before = [each for each in history if each.since_us <= at_us]
    return max(before, key=lambda each: each.revision, default=None)


def same_person(one: str, other: str) -> bool:
    """Whether two names are one person's, whatever their case, blanks or Unicode form."""
    return _folded(one) == _folded(other)


def _folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _because(reason: str) -> str:
    stripped = reason.strip()
    return f": {stripped}" if stripped else "."


def _spoken(model: Model) -> str:
    return f"autonomy {model.autonomy.name}"
