"""From the registry's word to what workers are told to serve."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from homeostat.events.v1.serving_pb2 import Batching
from homeostat.registry.v1.registry_pb2 import Model
from homeostat_inference.app.plan import (
    BatchingPlan,
    CanaryPlan,
    ModelPlan,
    QuarantinePlan,
    ServingPlan,
)

Key = tuple[str, int]


def model_plan(model: Model) -> ModelPlan:
    """What the registry wants of one model."""
    serving = model.serving
    return ModelPlan(
        name=model.name,
        revision=model.revision,
        champion=model.champion_version if model.HasField("champion_version") else None,
        canary=CanaryPlan(serving.canary.version, serving.canary.share, serving.canary.is_random)
        if serving.HasField("canary")
        else None,
        shadows=tuple(serving.shadow_versions),
        fallback=serving.fallback_version if serving.HasField("fallback_version") else None,
        is_on_fallback=serving.is_on_fallback,
        batching=_batching(serving.batching),
    )


def _batching(batching: Batching) -> BatchingPlan:
    return BatchingPlan(
        batching.max_rows, batching.max_delay_seconds, tuple(batching.preferred_rows)
    )


def wanted(model: ModelPlan) -> tuple[int, ...]:
    """Every version whose file has to be here, the champion first."""
    return tuple(dict.fromkeys((*model.versions(), *model.shadows)))


@dataclass(frozen=True, slots=True)
class Proven:
    """A champion that a worker had loaded, and by which revision it was one."""

    version: int
    revision: int


def attainable(
    model: ModelPlan,
    proven: Proven | None,
    is_here: Callable[[Key], bool],
    unfit: Container[Key] = (),
) -> ModelPlan:
    """As much of the plan as can be loaded here. Who was champion before, and was loaded, stays it
    until the next one's file has come; and if that can't be loaded, unless there is a fallback."""

    def has(version: int | None) -> bool:
        key = (model.name, version)
        return version is not None and is_here((model.name, version)) and key not in unfit

    champion, revision = model.champion, model.revision
    is_stood_in_for = has(model.fallback) and (model.name, champion) in unfit
    if champion is not None and not has(champion) and not is_stood_in_for:
        is_left = proven is not None and has(proven.version)
        champion, revision = (
            (proven.version, proven.revision) if proven is not None and is_left else (None, 0)
        )
    return replace(
        model,
        revision=revision,
        champion=champion,
        canary=model.canary if model.canary and has(model.canary.version) else None,
        shadows=tuple(each for each in model.shadows if has(each)),
        fallback=model.fallback if has(model.fallback) else None,
    )


@dataclass(slots=True)
class Planner:
    """Holds what is wanted and what is here, and numbers the plans that follow from it."""

    pinned_limit: int
    plan: ServingPlan = field(default_factory=ServingPlan)
    # What the registry wants, by model name; and how far that is followed.
    models: dict[str, ModelPlan] = field(default_factory=dict)
    pinned: list[Key] = field(default_factory=list)
    proven: dict[str, Proven] = field(default_factory=dict)
    # Versions that can't be loaded now.
    unfit: set[Key] = field(default_factory=set)

    def begin_with(self, plan: ServingPlan) -> None:
        """Goes on where the last life ended."""
        self.plan = plan
        self.models = dict(plan.models)
        self.pinned = list(plan.pinned)

    def follow(self, model: ModelPlan) -> bool:
        """Takes the registry's word; False if it is older than what is known."""
        known = self.models.get(model.name)
        if known is not None and model.revision < known.revision:
            return False
        self.models[model.name] = model
        return True

    def pin(self, key: Key) -> None:
        """A request named this version; who was named longest ago may have to go."""
        if key in self.pinned:
            self.pinned.remove(key)
        self.pinned.append(key)
        del self.pinned[: -self.pinned_limit]

    def renewed(
        self,
        is_here: Callable[[Key], bool],
        quarantines: tuple[QuarantinePlan, ...],
        suspects: tuple[Key, ...],
    ) -> ServingPlan | None:
        """The next plan; None if nothing has changed."""
        last = self.plan
        models = {
            name: attainable(each, self.proven.get(name), is_here, self.unfit)
            for name, each in self.models.items()
        }
        pinned = tuple(each for each in self.pinned if is_here(each))
        new = ServingPlan(last.number, models, pinned, quarantines, suspects)
        if new == last:
            return None
        self.plan = replace(new, number=last.number + 1)
        return self.plan

    def versions(self) -> set[Key]:
        """Every version that the plan or the registry names."""
        both: tuple[Mapping[str, ModelPlan], ...] = (self.models, self.plan.models)
        named = {
            (name, each)
            for models in both
            for name, model in models.items()
            for each in wanted(model)
        }
        left = {(name, each.version) for name, each in self.proven.items()}
        return named | left | set(self.pinned)

    def stored(self) -> dict[str, Any]:
        """What has to outlive the keeper, beside the plan."""
        return {"proven": {name: [e.version, e.revision] for name, e in self.proven.items()}}

    def restore(self, stored: Mapping[str, Any]) -> None:
        """What `stored` gave; KeyError, TypeError or ValueError if it is something else."""
        proven = stored["proven"].items()
        self.proven = {str(n): Proven(int(version), int(at)) for n, (version, at) in proven}
