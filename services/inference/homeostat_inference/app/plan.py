"""What a worker is told to serve: the whole wish, sent again whenever it changes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class CanaryPlan:
    """A share of the requests that name no version."""

    version: int
    share: float
    is_random: bool = False


@dataclass(frozen=True, slots=True)
class BatchingPlan:
    """How many requests run at once; zeros and nothing mean the server's defaults."""

    max_rows: int = 0
    max_delay_seconds: float = 0.0
    preferred_rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model: who answers, and how its requests are batched."""

    name: str
    # The registry's revision that this is.
    revision: int
    champion: int | None = None
    canary: CanaryPlan | None = None
    shadows: tuple[int, ...] = ()
    fallback: int | None = None
    # The registry's kill switch.
    is_on_fallback: bool = False
    batching: BatchingPlan = BatchingPlan()

    def versions(self) -> tuple[int, ...]:
        """Every version that a worker has to have loaded; shadows run elsewhere."""
        wanted = (self.champion, self.canary.version if self.canary else None, self.fallback)
        return tuple(dict.fromkeys(each for each in wanted if each is not None))


@dataclass(frozen=True, slots=True)
class QuarantinePlan:
    """What must not run again: a whole version, or rows of it by their fingerprints (hex)."""

    model_name: str
    version: int
    reason: str
    # Nothing means the whole version.
    input_fingerprints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """Everything a worker serves. Plans are numbered; a lower number is old news."""

    number: int = 0
    models: Mapping[str, ModelPlan] = field(default_factory=dict)
    # Versions that requests named, newest last.
    pinned: tuple[tuple[str, int], ...] = ()
    quarantines: tuple[QuarantinePlan, ...] = ()
    # Versions that were running when a worker died: their requests run one by one for a while.
    suspects: tuple[tuple[str, int], ...] = ()

    def to_json(self) -> str:
        """For the control channel, and for the disk."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "ServingPlan":
        """What `to_json` wrote; ValueError, KeyError or TypeError if it is something else."""
        told = json.loads(text)
        return ServingPlan(
            number=int(told["number"]),
            models={name: _model(each) for name, each in told["models"].items()},
            pinned=tuple((str(name), int(version)) for name, version in told["pinned"]),
            quarantines=tuple(_quarantine(each) for each in told["quarantines"]),
            suspects=tuple((str(name), int(version)) for name, version in told["suspects"]),
        )


def _model(told: Mapping[str, Any]) -> ModelPlan:
    batching = told["batching"]
    return ModelPlan(
        name=str(told["name"]),
        revision=int(told["revision"]),
        champion=told["champion"],
        canary=CanaryPlan(**told["canary"]) if told["canary"] else None,
        shadows=tuple(told["shadows"]),
        fallback=told["fallback"],
        is_on_fallback=bool(told["is_on_fallback"]),
        batching=BatchingPlan(
            int(batching["max_rows"]),
            float(batching["max_delay_seconds"]),
            tuple(batching["preferred_rows"]),
        ),
    )


def _quarantine(told: Mapping[str, Any]) -> QuarantinePlan:
    return QuarantinePlan(
        str(told["model_name"]),
        int(told["version"]),
        str(told["reason"]),
        tuple(told["input_fingerprints"]),
    )
