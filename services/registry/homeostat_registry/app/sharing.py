"""Who answers beside the champion: a person shares out a model's traffic."""

import dataclasses

from homeostat_registry.app import stages
from homeostat_registry.domain import life, routing
from homeostat_registry.domain.facts import Change, Model, require_person, require_text
from homeostat_registry.domain.serving import Serving
from homeostat_registry.ports import Book, Clock, Move, Pages


async def set_serving(
    name: str,
    wanted: Serving,
    etag: str,
    *,
    actor: str,
    reason: str,
    book: Book,
    clock: Clock,
) -> Model:
    """Shares the traffic out anew, as a whole, and tells it.

    Invalid, StaleEtag, UnknownVersion; WrongStage where a version may not answer, SelfApproval
    where ``actor`` alone may not say so. Evidence gathered
    before stays good: it is about versions, not about shares.
    """
    actor = require_person(actor, "actor")
    require_text(reason, "reason")
    routing.check_serving(wanted)

    async def work(pages: Pages) -> Model:
        model = await pages.model()
        life.require_etag(model, etag)
        champion = await stages.champion_of(pages, model)
        named = {each: await pages.version(each) for each in wanted.versions()}
        routing.require_servable(wanted, champion, named, name)
        life.require_four_eyes(wanted, model, named, actor=actor)
        changed = model.reshared(wanted)
        reasons = routing.told(model.serving, wanted)
        said = f"Shared out by {actor}{f': {reason.strip()}' if reason.strip() else '.'}"
        await pages.change_model(changed)
        now_us = clock.now_us()
        told = (*reasons, said)
        await pages.tell([Move(champion, Change.SERVING, changed, None, told, now_us)])
        await pages.audit(
            "set_serving",
            actor,
            {
                "from": dataclasses.asdict(model.serving),
                "to": dataclasses.asdict(wanted),
                "reasons": list(reasons),
                "reason": reason.strip(),
                "champion": model.champion_version,
                "revision": changed.revision,
            },
        )
        return changed

    return await book.change(name, work)
