"""What can be done with models and versions, one function each."""

import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import Enum

from homeostat_registry.domain import life
from homeostat_registry.domain.errors import (
    AlreadyExists,
    BadArtifact,
    Invalid,
    UnknownVersion,
)
from homeostat_registry.domain.facts import (
    Artifact,
    Autonomy,
    Change,
    Model,
    Registration,
    Reign,
    Stage,
    Version,
    check_registration,
    require_model_name,
    require_parquet,
    require_person,
    require_text,
)
from homeostat_registry.domain.gate import GateRule
from homeostat_registry.domain.life import Decision
from homeostat_registry.ports import Book, Clock, Intake, Judge, Move, Pages, Shelf


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused for its size."""

    model_bytes: int
    reference_bytes: int
    chunk_bytes: int
    future_bound_seconds: float


# A Parquet file begins and ends with a mark of so many bytes.
_MARK_BYTES = 4


class Part(Enum):
    """Which file a chunk belongs to."""

    MODEL = "model"
    REFERENCE = "reference"


Parts = AsyncIterator[tuple[Part, bytes]]


async def create_model(name: str, autonomy: Autonomy | None, *, book: Book, clock: Clock) -> Model:
    """A new model without versions; AlreadyExists if the name is taken."""
    require_model_name(name)
    wanted = Model(name, autonomy or Autonomy.APPROVE, None, 1, clock.now_us())
    made = await book.create_model(wanted, actor="")
    if made is None:
        raise AlreadyExists(f"model {name} exists already")
    return made


async def set_autonomy(
    name: str, autonomy: Autonomy, etag: str, actor: str, *, book: Book
) -> Model:
    """Changes how far the gate may go alone; StaleEtag. Evidence gathered before is then stale."""
    actor = require_person(actor, "actor")

    async def work(pages: Pages) -> Model:
        model = await pages.model()
        life.require_etag(model, etag)
        changed = dataclasses.replace(model, autonomy=autonomy, revision=model.revision + 1)
        await pages.change_model(changed)
        await pages.audit(
            "set_autonomy",
            actor,
            {"from": model.autonomy.name, "to": autonomy.name, "revision": changed.revision},
        )
        return changed

    return await book.change(name, work)


async def register(
    said: Registration,
    parts: Parts,
    *,
    book: Book,
    shelf: Shelf,
    judge: Judge,
    clock: Clock,
    rule: GateRule,
    limits: Limits,
) -> tuple[Version, bool]:
    """A new version and False, or what its run registered before and True.

    The files are received, judged in their jail and kept before anything is written down; stage,
    events and audit are then one transaction. A crash leaves at most an artifact without a version.
    """
    check_registration(
        said, now_us=clock.now_us(), future_bound_seconds=limits.future_bound_seconds
    )
    _require_sizes(said, limits)
    judge.prepare()
    before = await _registered_before(said, book)
    if before is not None:
        return before, True
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(shelf.intake(said.model))
        intakes = {Part.MODEL: model}
        if said.reference is not None:
            intakes[Part.REFERENCE] = await stack.enter_async_context(shelf.intake(said.reference))
        await _receive(parts, intakes, limits)
        admission = await judge.judge(model.path, said.signature)
        for intake in intakes.values():
            await intake.keep()

    async def work(pages: Pages) -> tuple[Version, bool]:
        return await _enter(said, admission, pages, clock.now_us(), rule)

    return await book.change(said.model_name, work)


def _require_sizes(said: Registration, limits: Limits) -> None:
    for what, artifact, limit in (
        ("model", said.model, limits.model_bytes),
        ("reference", said.reference, limits.reference_bytes),
    ):
        if artifact is None:
            continue
        if artifact.size_bytes == 0:
            raise BadArtifact(f"the {what} file is empty (0 bytes); export it again")
        if artifact.size_bytes > limit:
            raise BadArtifact(
                f"the {what} file has {artifact.size_bytes} bytes; {limit} is the limit: make it "
                f"smaller or raise HOMEOSTAT_REGISTRY_{what.upper()}_LIMIT_BYTES"
            )


async def _registered_before(said: Registration, book: Book) -> Version | None:
    """Spares the upload where the outcome is clear; the transaction asks all of it again."""
    model = await book.model(said.model_name)
    if not said.is_by_hand:
        before = await book.of_run(said.model_name, said.lineage.run_id)
        if before is not None:
            return before
    life.require_fresh_run(said, model)
    life.require_new_artifact(said, await book.of_artifact(said.model_name, said.model.sha256))
    return None


async def _receive(parts: Parts, intakes: dict[Part, Intake], limits: Limits) -> None:
    current = Part.MODEL
    head = tail = b""
    async for part, chunk in parts:
        if len(chunk) > limits.chunk_bytes:
            raise Invalid(f"a chunk of {len(chunk)} bytes; send at most {limits.chunk_bytes} each")
        if part not in intakes:
            raise Invalid("reference bytes without reference_sha256 in the header; add it there")
        if part is Part.MODEL and current is Part.REFERENCE:
            raise Invalid("model bytes after reference bytes; send the model first")
        if part is Part.REFERENCE:
            head, tail = (
                (head + chunk[: _MARK_BYTES - len(head)]),
                (tail + chunk[-_MARK_BYTES:])[-_MARK_BYTES:],
            )
        current = part
        await intakes[part].write(chunk)
    for intake in intakes.values():
        await intake.seal()
    if Part.REFERENCE in intakes:
        require_parquet(head, tail)


async def _enter(
    said: Registration, admission: str, pages: Pages, now_us: int, rule: GateRule
) -> tuple[Version, bool]:
    model = await pages.model()
    if not said.is_by_hand:
        before = await pages.of_run(said.lineage.run_id)
        if before is not None:
            return before, True
    life.require_fresh_run(said, model)
    life.require_new_artifact(said, await pages.of_artifact(said.model.sha256))
    champion = await _champion(pages, model)
    decision = life.decide(said, model, champion, rule)
    # A promotion moves it from REGISTERED, so that the old champion has left before.
    first = Stage.REGISTERED if decision.stage is Stage.CHAMPION else decision.stage
    version = Version(
        said.model_name,
        await pages.next_version(),
        first,
        said.model,
        said.reference,
        said.signature,
        said.lineage,
        said.evidence,
        said.author.strip(),
        decision.reasons,
        now_us,
        admission,
    )
    await pages.add_version(version)
    if not said.is_by_hand:
        await pages.raise_fencing_token(said.fencing_token)
    occurred_at_us = now_us if said.occurred_at_us is None else said.occurred_at_us
    entered = await _carry_out(pages, model, version, decision, occurred_at_us)
    await _audit(pages, "register", version.author, entered, model, occurred_at_us)
    return entered, False


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
        champion = await _champion(pages, model)
        decision = life.decide_approval(
            waiting, champion, approver=approver, is_approved=is_approved, reason=reason
        )
        now_us = clock.now_us()
        moved = await _carry_out(pages, model, waiting, decision, now_us)
        action = "approve" if is_approved else "reject"
        await _audit(pages, action, approver, moved, model, now_us)
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
    """Past the gate, by a person. StaleEtag, WrongStage."""
    actor = require_person(actor, "actor")
    require_text(reason, "reason")

    async def work(pages: Pages) -> Version:
        model = await pages.model()
        life.require_etag(model, etag)
        wanted = await pages.version(version)
        decision = life.decide_promotion(wanted, actor=actor, reason=reason)
        now_us = clock.now_us()
        moved = await _carry_out(pages, model, wanted, decision, now_us)
        await _audit(pages, "promote", actor, moved, model, now_us)
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
        moved = await _crown(
            pages, model, target, Decision(Stage.CHAMPION, (told,)), now_us, Change.ROLLED_BACK
        )
        await _audit(pages, "roll_back", actor, moved, model, now_us)
        return moved

    return await book.change(model_name, work)


async def _carry_out(
    pages: Pages, model: Model, version: Version, decision: Decision, occurred_at_us: int
) -> Version:
    if decision.stage is Stage.CHAMPION:
        return await _crown(pages, model, version, decision, occurred_at_us, Change.PROMOTED)
    await pages.move_stage(version.version, decision.stage, decision.reasons)
    moved = dataclasses.replace(version, stage=decision.stage, reasons=decision.reasons)
    await pages.tell([Move(moved, decision.change, model, None, decision.reasons, occurred_at_us)])
    return moved


async def _crown(
    pages: Pages,
    model: Model,
    version: Version,
    decision: Decision,
    occurred_at_us: int,
    change: Change,
) -> Version:
    """The old champion retires and the new one serves, in one revision with an event for each."""
    changed = dataclasses.replace(
        model, champion_version=version.version, revision=model.revision + 1
    )
    previous = model.champion_version
    retired = await _retire(pages, model, version.version)
    await pages.move_stage(version.version, Stage.CHAMPION, decision.reasons)
    crowned = dataclasses.replace(version, stage=Stage.CHAMPION, reasons=decision.reasons)
    await pages.change_model(changed)
    await pages.add_reign(Reign(changed.revision, version.version, occurred_at_us, change))
    moves = [Move(crowned, change, changed, previous, decision.reasons, occurred_at_us)]
    if retired is not None:
        why = (f"Version {version.version} took its place.",)
        moves.append(Move(retired, Change.RETIRED, changed, previous, why, occurred_at_us))
    await pages.tell(moves)
    return crowned


async def _retire(pages: Pages, model: Model, successor: int) -> Version | None:
    champion = await _champion(pages, model)
    if champion is None:
        return None
    reasons = (*champion.reasons, f"Retired: version {successor} took its place.")
    await pages.move_stage(champion.version, Stage.RETIRED, reasons)
    return dataclasses.replace(champion, stage=Stage.RETIRED, reasons=reasons)


async def _champion(pages: Pages, model: Model) -> Version | None:
    return None if model.champion_version is None else await pages.version(model.champion_version)


async def _audit(
    pages: Pages, action: str, actor: str, version: Version, before: Model, occurred_at_us: int
) -> None:
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
            "revision_before": before.revision,
            "run_id": version.lineage.run_id,
            "evidence": dataclasses.asdict(version.evidence) if version.evidence else None,
            "effective_at_us": occurred_at_us,
        },
    )


async def get_version(model_name: str, version: int, *, book: Book) -> Version:
    """One version; 0 means the champion. UnknownModel, UnknownVersion."""
    model = await book.model(model_name)
    wanted = version or model.champion_version
    if wanted is None:
        raise UnknownVersion(f"model {model_name} has no champion yet; promote a version")
    return await book.version(model_name, wanted)


async def list_versions(model_name: str, *, book: Book) -> Sequence[Version]:
    """All versions, oldest first. UnknownModel."""
    await book.model(model_name)
    return await book.versions(model_name)


async def champion_at(model_name: str, at_us: int, *, book: Book) -> Reign | None:
    """Who was champion at that event time. UnknownModel."""
    await book.model(model_name)
    return life.champion_at(await book.history(model_name), at_us)


def aliases(version: Version, versions: Sequence[Version]) -> list[str]:
    """ "champion", or "challenger" for the newest that awaits approval."""
    if version.stage is Stage.CHAMPION:
        return ["champion"]
    waiting = [each.version for each in versions if each.stage is Stage.AWAITS_APPROVAL]
    return ["challenger"] if waiting and version.version == max(waiting) else []


def artifact(sha256: str, size_bytes: int) -> Artifact | None:
    """An artifact, or None where neither hash nor size is given."""
    return Artifact(sha256, size_bytes) if sha256 or size_bytes else None
