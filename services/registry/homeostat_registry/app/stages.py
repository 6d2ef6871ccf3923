"""Moving a version from stage to stage: state, history and events of one transaction."""

import dataclasses

from homeostat_registry.domain import life, routing
from homeostat_registry.domain.facts import Change, Model, Reign, Stage, Version
from homeostat_registry.domain.gate import stale_proof
from homeostat_registry.domain.life import Decision
from homeostat_registry.domain.serving import Serving
from homeostat_registry.ports import Move, Pages


async def carry_out(
    pages: Pages, model: Model, version: Version, decision: Decision, occurred_at_us: int
) -> Version:
    """The version in its new stage, written down and told."""
    if decision.stage is Stage.CHAMPION:
        return await crown(pages, model, version, decision, occurred_at_us, Change.PROMOTED)
    reasons = decision.reasons
    if decision.stage is Stage.REJECTED:
        left = routing.after_rejection(model.serving, [version.version])
        reasons = (*reasons, *routing.spoken_changes(model.serving, left))
        model = await _served(pages, model, left)
    await pages.move_stage(version.version, decision.stage, reasons)
    moved = dataclasses.replace(version, stage=decision.stage, reasons=reasons)
    await pages.tell([Move(moved, decision.change, model, None, reasons, occurred_at_us)])
    return moved


async def _served(pages: Pages, model: Model, serving: Serving) -> Model:
    """The model with its traffic shared out so: a revision of its own, if that is a change."""
    if serving == model.serving:
        return model
    changed = model.reshared(serving)
    await pages.change_model(changed)
    return changed


async def crown(
    pages: Pages,
    model: Model,
    version: Version,
    decision: Decision,
    occurred_at_us: int,
    change: Change,
) -> Version:
    """The old champion retires, the new one serves, and what waits with evidence against another
    is rejected: in one revision with an event for each."""
    stale = await _stale(pages, version)
    serving = routing.after_rejection(
        routing.under_champion(model.serving, version, await _named(pages, model.serving)),
        [each.version for each in stale],
    )
    changed = dataclasses.replace(
        model,
        autonomy=life.autonomy_after(model, version.version, change),
        champion_version=version.version,
        revision=model.revision + 1,
        settled_revision=model.revision + 1,
        serving=serving,
    )
    previous = model.champion_version
    left = routing.spoken_changes(model.serving, serving)
    reasons = (*decision.reasons, *_lowered(model, changed), *left)
    retired = await _retire(pages, model, version.version)
    await pages.move_stage(version.version, Stage.CHAMPION, reasons)
    crowned = dataclasses.replace(version, stage=Stage.CHAMPION, reasons=reasons)
    await pages.change_model(changed)
    await pages.add_reign(Reign(changed.revision, version.version, occurred_at_us, change))
    moves = [Move(crowned, change, changed, previous, reasons, occurred_at_us)]
    if retired is not None:
        why = (f"Version {version.version} took its place.",)
        moves.append(Move(retired, Change.RETIRED, changed, previous, why, occurred_at_us))
    rejected = [await _reject_stale(pages, each, crowned) for each in stale]
    moves += [
        Move(each, Change.REJECTED, changed, previous, each.reasons, occurred_at_us)
        for each in rejected
    ]
    await pages.tell(moves)
    if stale:
        detail = {"versions": [each.version for each in stale], "champion": crowned.version}
        await pages.audit("reject_stale", "registry", detail)
    return crowned


def _lowered(before: Model, after: Model) -> tuple[str, ...]:
    if after.autonomy is before.autonomy:
        return ()
    return (
        f"Autonomy lowered from {before.autonomy.name} to {after.autonomy.name}, so that the loop "
        "does not undo it; set it again when the loop may go on alone.",
    )


async def _retire(pages: Pages, model: Model, successor: int) -> Version | None:
    champion = await champion_of(pages, model)
    if champion is None:
        return None
    reasons = (*champion.reasons, f"Retired: version {successor} took its place.")
    await pages.move_stage(champion.version, Stage.RETIRED, reasons)
    return dataclasses.replace(champion, stage=Stage.RETIRED, reasons=reasons)


async def _stale(pages: Pages, champion: Version) -> list[Version]:
    """Nobody may approve them once ``champion`` serves, and no other call would ever move them."""
    return [
        each
        for each in await pages.waiting()
        if each.version != champion.version and any(stale_proof(each, champion))
    ]


async def _reject_stale(pages: Pages, waiting: Version, champion: Version) -> Version:
    reasons = (*waiting.reasons, f"Stale: another champion since, {champion.version}.")
    await pages.move_stage(waiting.version, Stage.REJECTED, reasons)
    return dataclasses.replace(waiting, stage=Stage.REJECTED, reasons=reasons)


async def _named(pages: Pages, serving: Serving) -> dict[int, Version]:
    return {each: await pages.version(each) for each in serving.versions()}


async def champion_of(pages: Pages, model: Model) -> Version | None:
    """The version that serves, if one does."""
    return None if model.champion_version is None else await pages.version(model.champion_version)


async def note(
    pages: Pages, action: str, actor: str, version: Version, before: Model, occurred_at_us: int
) -> None:
    """Into the audit chain: what was decided, by whom, and on what ground."""
    after = await pages.model()
    await pages.audit(
        action,
        actor,
        {
            "version": version.version,
            "stage": version.stage.name,
            "reasons": list(version.reasons),
            "model_sha256": version.model.sha256,
            "champion_before": before.champion_version,
            "autonomy": before.autonomy.name,
            "autonomy_after": after.autonomy.name,
            "revision_before": before.revision,
            "run_id": version.lineage.run_id,
            "evidence": dataclasses.asdict(version.evidence) if version.evidence else None,
            "equivalence": dataclasses.asdict(version.equivalence) if version.equivalence else None,
            "effective_at_us": occurred_at_us,
        },
    )
