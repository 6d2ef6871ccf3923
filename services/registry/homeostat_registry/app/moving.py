"""What people decide: autonomy, approvals, promotions past the gate, roll-backs."""

import dataclasses

from homeostat_registry.app import stages
from homeostat_registry.domain import life
from homeostat_registry.domain.facts import (
    Autonomy,
    Change,
    Model,
    Stage,
    Version,
    require_person,
    require_text,
)
from homeostat_registry.domain.life import Decision
from homeostat_registry.ports import Book, Clock, Pages


async def set_autonomy(
    name: str, autonomy: Autonomy, etag: str, actor: str, *, book: Book
) -> Model:
    """Changes how far the gate may go alone; StaleEtag. Evidence gathered before is then stale."""
    actor = require_person(actor, "actor")

    async def work(pages: Pages) -> Model:
        model = await pages.model()
        life.require_etag(model, etag)
        revision = model.revision + 1
        changed = dataclasses.replace(
            model, autonomy=autonomy, revision=revision, settled_revision=revision
        )
        await pages.change_model(changed)
        await pages.audit(
            "set_autonomy",
            actor,
            {"from": model.autonomy.name, "to": autonomy.name, "revision": changed.revision},
        )
        return changed

    return await book.change(name, work)


async def approve(
    model_name: str,
    version: int,
    *,
    approver: str,
    is_approved: bool,
    reason: str,
    etag: str,
    book: Book,
    clock: Clock,
) -> Version:
    """An approver's word. StaleEtag, WrongStage, SelfApproval, StaleChampion."""
    approver = require_person(approver, "approver")
    require_text(reason, "reason")

    async def work(pages: Pages) -> Version:
        model = await pages.model()
        life.require_etag(model, etag)
        waiting = await pages.version(version)
        champion = await stages.champion_of(pages, model)
        decision = life.decide_approval(
            waiting, champion, approver=approver, is_approved=is_approved, reason=reason
        )
        now_us = clock.now_us()
        moved = await stages.carry_out(pages, model, waiting, decision, now_us)
        action = "approve" if is_approved else "reject"
        await stages.note(pages, action, approver, moved, model, now_us)
        return moved

    return await book.change(model_name, work)


async def promote(
    model_name: str,
    version: int,
    *,
    etag: str,
    actor: str,
    reason: str,
    book: Book,
    clock: Clock,
) -> Version:
    """Past the gate, by a person. StaleEtag, WrongStage, SelfApproval."""
    actor = require_person(actor, "actor")
    require_text(reason, "reason")

    async def work(pages: Pages) -> Version:
        model = await pages.model()
        life.require_etag(model, etag)
        wanted = await pages.version(version)
        decision = life.decide_promotion(wanted, model, actor=actor, reason=reason)
        now_us = clock.now_us()
        moved = await stages.carry_out(pages, model, wanted, decision, now_us)
        await stages.note(pages, "promote", actor, moved, model, now_us)
        return moved

    return await book.change(model_name, work)


async def roll_back(
    model_name: str,
    version: int | None,
    *,
    etag: str,
    actor: str,
    reason: str,
    book: Book,
    clock: Clock,
) -> Version:
    """Back to the champion before, or to a named one. StaleEtag, WrongStage, UnknownVersion."""
    actor = require_person(actor, "actor")
    require_text(reason, "reason")

    async def work(pages: Pages) -> Version:
        model = await pages.model()
        life.require_etag(model, etag)
        target = await pages.version(life.roll_back_target(model, await pages.history(), version))
        told = f"Rolled back to by {actor}{f': {reason.strip()}' if reason.strip() else '.'}"
        now_us = clock.now_us()
        moved = await stages.crown(
            pages, model, target, Decision(Stage.CHAMPION, (told,)), now_us, Change.ROLLED_BACK
        )
        await stages.note(pages, "roll_back", actor, moved, model, now_us)
        return moved

    return await book.change(model_name, work)
