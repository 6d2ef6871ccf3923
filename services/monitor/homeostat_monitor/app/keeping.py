"""What detectors remember between transactions: in the database, and in hand while it is the same.

What is in hand is given back only after a commit: a transaction that failed has fed it for nothing.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.ports import StateKey, Transaction

# Versions whose detectors stay in hand; the others' are read again.
_MOST_SUBJECTS = 2048


class Stateful(Protocol):
    """A detector or watch."""

    def to_bytes(self) -> bytes: ...
    def restore(self, state: bytes) -> None: ...


Part = TypeVar("Part", bound=Stateful)


@dataclass(frozen=True, slots=True)
class Held:
    """A part as it was committed."""

    part: Any
    # By whom it was made: another profile makes other detectors.
    maker: object
    revision: int | None
    digest: bytes


class InHand:
    """Of all versions that this process judged last. Not for use by two judges of one version."""

    def __init__(self) -> None:
        self._held: OrderedDict[Subject, Mapping[StateKey, Held]] = OrderedDict()

    def take(self, subject: Subject) -> dict[StateKey, Held]:
        """What is in hand of it, and it no longer is."""
        return dict(self._held.pop(subject, {}))

    def put(self, keepers: "list[Keeper]") -> None:
        """After the commit."""
        for each in keepers:
            self._held[each.subject] = each.held
        while len(self._held) > _MOST_SUBJECTS:
            self._held.popitem(last=False)


@dataclass(slots=True)
class Keeper:
    """One version's parts within one transaction."""

    subject: Subject
    tx: Transaction
    revisions: Mapping[StateKey, int]
    held: dict[StateKey, Held] = field(default_factory=dict)
    _used: dict[StateKey, Held] = field(default_factory=dict)

    @classmethod
    async def open(cls, subject: Subject, tx: Transaction, in_hand: InHand | None) -> "Keeper":
        """Nothing is read of what is in hand and still the same."""
        held = in_hand.take(subject) if in_hand is not None else {}
        return cls(subject, tx, await tx.state_revisions(subject), held)

    async def get(
        self,
        key: StateKey,
        make: Callable[[], Part],
        *,
        maker: object,
        pristine: bytes | None = None,
    ) -> Part:
        """The part with its state; what cannot be trusted begins anew, and that is said.

        ``pristine``: the state to put into what ``make`` gives where there is no other; None: it
        comes fresh.
        """
        if key in self._used:
            return self._used[key].part  # type: ignore[no-any-return]
        held = self.held.get(key)
        revision = self.revisions.get(key)
        if held is None or held.maker is not maker or held.revision != revision:
            held = await self._read(key, make, maker, pristine)
        self._used[key] = held
        return held.part  # type: ignore[no-any-return]

    def has(self, key: StateKey) -> bool:
        """Whether it remembers anything."""
        return key in self.revisions

    async def _read(
        self, key: StateKey, make: Callable[[], Part], maker: object, pristine: bytes | None
    ) -> Held:
        part = make()
        stored = await self.tx.read_state(self.subject, key) if key in self.revisions else None
        if stored is not None:
            try:
                part.restore(stored[0])
            except CorruptState as error:
                await self._give_up(key, error)
                part = make()
            else:
                return Held(part, maker, stored[1], _digest(stored[0]))
        if pristine is None:
            return Held(part, maker, None, b"")
        part.restore(pristine)
        return Held(part, maker, None, _digest(pristine))

    async def _give_up(self, key: StateKey, error: CorruptState) -> None:
        where = f" of the segment {key.segment}" if key.segment else ""
        text = (
            f"the detector {key.name}{where} could not be read and began anew, until it is rebuilt "
            f"from the ledger's past: {error}"
        )
        await self.tx.remark(self.subject, [text])
        await self.tx.want_rebuild(self.subject, key)

    async def save(self) -> None:
        """Stores what has changed."""
        states = {key: each.part.to_bytes() for key, each in self._used.items()}
        digests = {key: _digest(state) for key, state in states.items()}
        changed = {
            key: state for key, state in states.items() if digests[key] != self._used[key].digest
        }
        revisions = await self.tx.save_states(self.subject, changed)
        for key, each in self._used.items():
            revision = revisions.get(key, each.revision)
            self.held[key] = Held(each.part, each.maker, revision, digests[key])


def _digest(state: bytes) -> bytes:
    return hashlib.sha256(state).digest()
