"""New models and new versions."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import Enum

from homeostat_registry.app import stages
from homeostat_registry.domain import life
from homeostat_registry.domain.errors import AlreadyExists, BadArtifact, Invalid
from homeostat_registry.domain.facts import (
    Autonomy,
    Model,
    Registration,
    Stage,
    Version,
    check_registration,
    require_model_name,
    require_parquet,
    require_same_question,
)
from homeostat_registry.domain.gate import GateRule
from homeostat_registry.ports import Book, Clock, Intake, Judge, Pages, Shelf


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


async def create_model(
    name: str, autonomy: Autonomy | None, *, actor: str, book: Book, clock: Clock
) -> Model:
    """A new model without versions; AlreadyExists if the name is taken. ``actor``: if it is known,
    since anybody may."""
    require_model_name(name)
    wanted = Model(name, autonomy or Autonomy.APPROVE, None, 1, clock.now_us())
    made = await book.create_model(wanted, actor=actor)
    if made is None:
        raise AlreadyExists(f"model {name} exists already")
    return made


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
    require_same_question(said.signature, await book.newest(said.model_name))
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
    require_same_question(said.signature, await pages.newest())
    champion = await stages.champion_of(pages, model)
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
        said.equivalence,
    )
    await pages.add_version(version)
    if not said.is_by_hand:
        await pages.raise_fencing_token(said.fencing_token)
    occurred_at_us = now_us if said.occurred_at_us is None else said.occurred_at_us
    entered = await stages.carry_out(pages, model, version, decision, occurred_at_us)
    await stages.note(pages, "register", version.author, entered, model, occurred_at_us)
    return entered, False
