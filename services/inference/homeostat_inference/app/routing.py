"""Who answers a request: which side of a split a client is on, and who answers for a model."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from homeostat.events.v1.column_pb2 import ARM_CANARY, ARM_CHAMPION, ARM_FALLBACK
from homeostat_inference.app.plan import CanaryPlan, ModelPlan, ServingPlan
from homeostat_inference.domain.errors import InferenceError, NotServed, NotServedYet, Quarantined

if TYPE_CHECKING:
    from homeostat_inference.app.serving import Served

# A loaded version's name.
Key = tuple[str, int]
# Numbers from 0 up to and without 1.
Draw = Callable[[], float]
_WHOLE = 1 << 64


@dataclass(frozen=True, slots=True)
class Split:
    """Which clients belong to a canary.

    A client's place is a hash of its id, the model's name and the canary's version. It belongs to
    the canary if that lies below the share: so it stays on its side, a larger share keeps who was
    in, and another canary draws other clients.
    """

    salt: bytes
    below: int

    @staticmethod
    def of(model_name: str, version: int, share: float) -> "Split":
        """The split for a share from 0 to 1."""
        name = f"{version}:{model_name}".encode()
        salt = hashlib.blake2b(name, digest_size=32).digest()
        return Split(salt, round(share * _WHOLE))

    def takes(self, client_id: bytes) -> bool:
        """Whether the client (its id in UTF-8) belongs to the canary."""
        place = hashlib.blake2b(client_id, digest_size=8, key=self.salt).digest()
        return int.from_bytes(place, "little") < self.below


@dataclass(frozen=True, slots=True)
class Canary:
    """A loaded version that answers a share of the requests that name none."""

    served: "Served"
    share: float
    split: Split
    is_random: bool
    draw: Draw

    def takes(self, client_id: bytes | None) -> bool:
        """Whether it answers; drawn for requests without an id, or if every request is drawn."""
        if client_id and not self.is_random:
            return self.split.takes(client_id)
        return self.draw() < self.share


@dataclass(frozen=True, slots=True)
class Entry:
    """Who answers a model's requests that name no version; the same for all where there is no
    canary."""

    served: "Served"
    arm: int
    canary: Canary | None = None

    def route(self, client_id: bytes | None) -> "tuple[Served, int]":
        """Who answers this client, and the arm."""
        canary = self.canary
        if canary is not None and canary.takes(client_id):
            return canary.served, ARM_CANARY
        return self.served, self.arm


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a model of the plan answers nobody. An exception that is raised again and again would
    gather tracebacks, so it is made anew each time."""

    kind: type[InferenceError]
    reason: str

    def error(self) -> InferenceError:
        """For one request."""
        return self.kind(self.reason)


@dataclass(frozen=True, slots=True)
class Guard:
    """How a version that was running when a process died is treated."""

    # Its requests run one by one.
    is_suspect: bool = False
    # Rows that must not run, by their fingerprints (hex).
    input_fingerprints: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Routes:
    """One state of the table; never changed, only replaced by the next."""

    plan: ServingPlan = field(default_factory=ServingPlan)
    entries: Mapping[str, Entry] = field(default_factory=dict)
    # Why models of the plan have no entry.
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    versions: Mapping[Key, "Served"] = field(default_factory=dict)
    # Versions that are held back, and why.
    quarantined: Mapping[Key, str] = field(default_factory=dict)
    # Empty while all is well.
    guards: Mapping[Key, Guard] = field(default_factory=dict)


def held_back(model_name: str, version: int, reason: str) -> Refusal:
    """What a request hears that only a quarantined version could answer."""
    return Refusal(
        Quarantined,
        f"model {model_name!r} version {version} is held back: {reason}; "
        f"release it with `homeostat serving release {model_name} {version}`, "
        "or promote another version",
    )


def reconcile(
    plan: ServingPlan,
    loaded: Mapping[Key, "Served"],
    failed: Mapping[Key, str],
    before: Routes,
    draw: Draw,
) -> Routes:
    """The routes that come nearest to the plan with what is loaded.

    ``failed``: versions that can't be loaded, and why. While a version is still being loaded, who
    answered before goes on.
    """
    quarantined = {
        (each.model_name, each.version): each.reason
        for each in plan.quarantines
        if not each.input_fingerprints
    }
    choice = _Choice(loaded, failed, quarantined, before, draw)
    entries: dict[str, Entry] = {}
    refusals: dict[str, Refusal] = {}
    for name, model in plan.models.items():
        found = choice.entry(model)
        if isinstance(found, Entry):
            entries[name] = found
        else:
            refusals[name] = found
    return Routes(
        plan,
        MappingProxyType(entries),
        MappingProxyType(refusals),
        MappingProxyType(_reachable(plan, loaded, entries)),
        MappingProxyType(quarantined),
        MappingProxyType(guards_of(plan)),
    )


def guards_of(plan: ServingPlan) -> dict[Key, Guard]:
    """Versions that are run with care, and how."""
    held: dict[Key, frozenset[str]] = {}
    for each in plan.quarantines:
        key = (each.model_name, each.version)
        held[key] = held.get(key, frozenset()) | frozenset(each.input_fingerprints)
    suspects = frozenset(plan.suspects)
    return {
        key: Guard(key in suspects, held.get(key, frozenset()))
        for key in {*suspects, *(key for key, rows in held.items() if rows)}
    }


def _reachable(
    plan: ServingPlan, loaded: Mapping[Key, "Served"], entries: Mapping[str, Entry]
) -> dict[Key, "Served"]:
    wanted = [(name, each) for name, model in plan.models.items() for each in model.versions()]
    versions = {key: loaded[key] for key in (*wanted, *plan.pinned) if key in loaded}
    # Who goes on answering in the place of a version that is still being loaded.
    for name, entry in entries.items():
        versions[name, entry.served.schema.version] = entry.served
    return versions


@dataclass(frozen=True, slots=True)
class _Choice:
    """Picks who answers for a model."""

    loaded: Mapping[Key, "Served"]
    failed: Mapping[Key, str]
    quarantined: Mapping[Key, str]
    before: Routes
    draw: Draw

    def entry(self, model: ModelPlan) -> Entry | Refusal:
        """Who answers; or why nobody does."""
        # A switch to nobody (its file is still on its way) switches nothing.
        if model.is_on_fallback and model.fallback is not None:
            return self._fallback(model) or self._going_on(model, model.fallback)
        champion = self._able(model.name, model.champion)
        if champion is not None:
            return Entry(champion, ARM_CHAMPION, self._canary(model))
        if self._is_hopeless(model.name, model.champion):
            fallback = self._fallback(model)
            if fallback is not None:
                return fallback
        return self._going_on(model, model.champion)

    def _able(self, name: str, version: int | None) -> "Served | None":
        if version is None or (name, version) in self.quarantined:
            return None
        return self.loaded.get((name, version))

    def _is_hopeless(self, name: str, version: int | None) -> bool:
        """It won't come by waiting."""
        return version is not None and (
            (name, version) in self.quarantined or (name, version) in self.failed
        )

    def _fallback(self, model: ModelPlan) -> Entry | None:
        served = self._able(model.name, model.fallback)
        return None if served is None else Entry(served, ARM_FALLBACK)

    def _canary(self, model: ModelPlan) -> Canary | None:
        plan: CanaryPlan | None = model.canary
        if plan is None or plan.version == model.champion:
            return None
        served = self._able(model.name, plan.version)
        if served is None:
            return None
        split = Split.of(model.name, plan.version, plan.share)
        return Canary(served, plan.share, split, plan.is_random, self.draw)

    def _going_on(self, model: ModelPlan, wanted: int | None) -> Entry | Refusal:
        """Who answered before, while ``wanted`` is not there; or why it may not."""
        name = model.name
        if wanted is None:
            return Refusal(NotServed, f"model {name!r} has no version that serves; promote one")
        if (name, wanted) in self.quarantined:
            return held_back(name, wanted, self.quarantined[name, wanted])
        before = self.before.entries.get(name)
        may_go_on = not (model.is_on_fallback and (name, wanted) in self.failed)
        if before is not None and may_go_on:
            served = self._able(name, before.served.schema.version)
            if served is not None:
                return Entry(served, before.arm)
        if (name, wanted) not in self.failed:
            return Refusal(
                NotServedYet, f"model {name!r} version {wanted} is being loaded; try again"
            )
        reason = self.failed[name, wanted]
        return Refusal(NotServed, f"model {name!r} version {wanted} does not serve: {reason}")
