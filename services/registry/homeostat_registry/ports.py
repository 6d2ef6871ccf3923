"""What the use cases need from the world."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from homeostat_registry.domain.facts import (
    Artifact,
    Change,
    Model,
    Reign,
    Signature,
    Stage,
    Version,
)

T = TypeVar("T")


class Clock(Protocol):
    """Says what time it is."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        ...


@dataclass(frozen=True, slots=True)
class Move:
    """One fact for the world: a version moved, or its model's traffic is shared out anew."""

    # None for a model without a champion whose serving changed.
    version: Version | None
    change: Change
    model: Model
    previous_champion: int | None
    reasons: tuple[str, ...]
    occurred_at_us: int


class Pages(Protocol):
    """One model's pages while nobody else may write on them: one transaction."""

    async def model(self) -> Model:
        """The model; UnknownModel."""
        ...

    async def version(self, version: int) -> Version:
        """One version; UnknownVersion."""
        ...

    async def of_run(self, run_id: str) -> Version | None:
        """What this run registered."""
        ...

    async def of_artifact(self, sha256: str) -> Version | None:
        """The first version with this model file."""
        ...

    async def waiting(self) -> Sequence[Version]:
        """All versions that await approval, oldest first."""
        ...

    async def newest(self) -> Version | None:
        """The version that was registered last."""
        ...

    async def next_version(self) -> int:
        """The number that a new version gets."""
        ...

    async def history(self) -> Sequence[Reign]:
        """All champions in the order of their revisions."""
        ...

    async def add_version(self, version: Version) -> None:
        """Writes a new version."""
        ...

    async def move_stage(self, version: int, stage: Stage, reasons: Sequence[str]) -> None:
        """Moves one version."""
        ...

    async def change_model(self, model: Model) -> None:
        """Writes autonomy, champion, serving and revisions."""
        ...

    async def raise_fencing_token(self, token: int) -> None:
        """Remembers the highest token seen."""
        ...

    async def add_reign(self, reign: Reign) -> None:
        """Writes a new line into the history of champions."""
        ...

    async def tell(self, moves: Sequence[Move]) -> None:
        """Puts events into the outbox."""
        ...

    async def audit(self, action: str, actor: str, detail: Mapping[str, object]) -> None:
        """Appends to the audit chain. Last in a transaction."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a server starts from: of one moment."""

    models: Sequence[Model]
    champions: Sequence[Version]
    # Shadows, canaries and fallbacks.
    others: Sequence[Version]


class Book(Protocol):
    """Everything that is written down."""

    async def change(self, model_name: str, work: Callable[[Pages], Awaitable[T]]) -> T:
        """Runs ``work`` in one transaction under the model's lock; possibly more than once."""
        ...

    async def create_model(self, model: Model, actor: str) -> Model | None:
        """The new model; None if the name is taken."""
        ...

    async def model(self, name: str) -> Model:
        """One model; UnknownModel."""
        ...

    async def models(self) -> Sequence[Model]:
        """All models by name."""
        ...

    async def version(self, model_name: str, version: int) -> Version:
        """One version; UnknownVersion."""
        ...

    async def versions(self, model_name: str, limit: int, before: int) -> Sequence[Version]:
        """The newest ``limit`` versions below ``before`` (0: all), oldest first."""
        ...

    async def challenger(self, model_name: str) -> int | None:
        """The newest version that awaits approval."""
        ...

    async def of_run(self, model_name: str, run_id: str) -> Version | None:
        """What this run registered."""
        ...

    async def of_artifact(self, model_name: str, sha256: str) -> Version | None:
        """The first version with this model file."""
        ...

    async def newest(self, model_name: str) -> Version | None:
        """The version that was registered last."""
        ...

    async def snapshot(self) -> Snapshot:
        """All models and all versions that serve, of one moment."""
        ...

    async def history(self, model_name: str) -> Sequence[Reign]:
        """All champions in the order of their revisions."""
        ...


class Intake(Protocol):
    """One upload that is not an artifact yet."""

    @property
    def path(self) -> Path:
        """Where its bytes stand, whole and checked, after ``seal``."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Appends; BadArtifact beyond the size that was announced."""
        ...

    async def seal(self) -> None:
        """Syncs it to disk; BadArtifact if size or sha256 is not what was announced."""
        ...

    async def keep(self) -> None:
        """Makes it an artifact."""
        ...


class Shelf(Protocol):
    """The artifacts, by sha256."""

    def intake(self, artifact: Artifact) -> AbstractAsyncContextManager[Intake]:
        """An upload, thrown away at the end unless it was kept."""
        ...

    def read(self, sha256: str) -> AsyncIterator[bytes]:
        """The artifact in chunks; UnknownArtifact, and DamagedArtifact at its end."""
        ...


class Judge(Protocol):
    """Judges model files where they can do no harm."""

    def prepare(self) -> None:
        """A file will come soon."""
        ...

    async def judge(self, path: Path, signature: Signature) -> str:
        """What was found, as JSON; BadArtifact with the cure, or JudgeAway."""
        ...
