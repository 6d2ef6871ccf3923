"""The server's slots, the workers' and the shadow's, and the journal that each of them writes."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from homeostat_inference.app.plan import ServingPlan
from homeostat_inference.edges.board_layout import Word
from homeostat_inference.edges.callers import CallersPromises
from homeostat_inference.edges.control import Assignment, TellHealth, TellPlan
from homeostat_inference.edges.heeding import Heeding
from homeostat_inference.edges.journal_reader import Segment
from homeostat_inference.edges.journals import Journals
from homeostat_inference.edges.nursery import Nursery
from homeostat_inference.edges.relay_hooks import Hooks
from homeostat_inference.edges.shadow_positions import (
    Position,
    bound_positions,
    is_held,
    load_positions,
    positions_file,
)
from homeostat_inference.edges.slot_orders import Orders
from homeostat_inference.edges.slots import WorkerSlot

SHADOW_SLOT = "shadow"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where workers listen, and where the keeper does."""

    grpc: str
    http: str | None
    keeper: str


class Crew:
    """Makes the slots, and tells all of them what concerns all."""

    def __init__(
        self,
        slots: list[WorkerSlot],
        *,
        workers: int,
        memory_bytes: int,
        addresses: Addresses,
        folder: Path,
        nursery: Nursery,
        journals: Journals,
        callers: CallersPromises,
        heeding: Heeding,
        health: Callable[[], TellHealth],
    ) -> None:
        """``slots`` is where the workers' are put. ``memory_bytes``: what a process may take.
        ``health``: how the server is."""
        self.slots = slots
        self._memory_bytes = memory_bytes
        self._addresses = addresses
        self._folder = folder
        self._nursery = nursery
        self._journals = journals
        self._callers = callers
        self._following = heeding.following
        self._heeding = heeding
        self._health = health
        for index in range(workers):
            slots.append(self._add_worker(f"worker-{index}", index))
        self.shadow = self._add_shadow(workers)
        self.shadow.want(_has_shadows(self._following.plan))

    @property
    def all(self) -> tuple[WorkerSlot, ...]:
        """The workers' and the shadow's."""
        return (*self.slots, self.shadow)

    def bound_positions(self) -> None:
        """Once, after all journals were added and before anybody writes them."""
        relays = self._journals.relays
        ends = {name: each.end for name, each in relays.items() if not each.trouble}
        bound_positions(positions_file(self._folder), ends)

    def publish(self, plan: ServingPlan) -> None:
        """What is to be served from now on."""
        message = TellPlan(plan.to_json())
        for each in self.all:
            each.send(message)
        has_shadows = _has_shadows(plan)
        if has_shadows:
            self._journals.promises.count(SHADOW_SLOT)
        self.shadow.want(has_shadows)

    @property
    def is_shadow_behind(self) -> bool:
        """Whether it has not read yet what the workers' journals hold."""
        if not self.shadow.is_wanted:
            return False
        positions = self._positions()
        return any(
            (at := positions.get(each.name)) is None
            or at.floor < self._journals.relays[each.name].end
            for each in self.slots
        )

    def _add_worker(self, name: str, index: int) -> WorkerSlot:
        orders = Orders(
            lambda: self._callers.asked_us,
            partial(self._assignment, index),
            list,
            lambda: self._following.plan,
            self._health,
            self._heeding.heard,
            self._heeding.crashed,
        )
        slot = WorkerSlot(
            name, index, self._nursery, orders, memory_bytes=self._memory_bytes, may_overlap=True
        )
        return self._with_journal(slot, self._hooks_of_worker(slot))

    def _add_shadow(self, index: int) -> WorkerSlot:
        orders = Orders(
            lambda: self._callers.asked_us,
            lambda: {"role": SHADOW_SLOT, "mark_us": self._callers.marks.mark_us},
            lambda: [each.board.descriptor for each in self.slots],
            lambda: self._following.plan,
            self._health,
            self._heeding.heard_of_shadow,
            self._heeding.crashed,
        )
        slot = WorkerSlot(
            SHADOW_SLOT, index, self._nursery, orders,
            memory_bytes=self._memory_bytes, may_overlap=False,
        )  # fmt: skip
        return self._with_journal(slot, _hooks_of_shadow(slot))

    def _assignment(self, index: int) -> dict[str, object]:
        to = self._addresses
        return Assignment(index, to.grpc, to.http, to.keeper).told()

    def _with_journal(self, slot: WorkerSlot, hooks: Hooks) -> WorkerSlot:
        self._journals.add(slot.name, lambda: slot.board.committed_end, hooks)
        slot.board.set(Word.JOURNAL_START, self._journals.start(slot.name))
        asyncio.get_running_loop().add_reader(slot.bell, self._rung, slot)
        return slot

    def _rung(self, slot: WorkerSlot) -> None:
        os.eventfd_read(slot.bell)
        self._journals.relays[slot.name].wake()

    def _hooks_of_worker(self, slot: WorkerSlot) -> Hooks:
        board, marks = slot.board, self._callers.marks
        return Hooks(
            # By the clock, nothing is promised for a worker that can't start, and the others serve.
            # What a caller promises holds for every journal.
            has_writer=lambda: marks.is_explicit or slot.has_writer,
            set_idle=lambda is_idle: board.set(Word.IS_RELAY_IDLE, int(is_idle)),
            forgot=lambda start: board.set(Word.JOURNAL_START, start),
            standing_mark_us=self._callers.standing_us,
            is_held=lambda segment: self._is_held(slot.name, segment),
        )

    def _is_held(self, slot: str, segment: Segment) -> bool:
        """Whether the shadow process has still to read a segment of a worker's journal."""
        return self.shadow.is_wanted and is_held(segment, self._positions().get(slot))

    def _positions(self) -> dict[str, Position]:
        return load_positions(positions_file(self._folder))


def _has_shadows(plan: ServingPlan) -> bool:
    return any(each.shadows for each in plan.models.values())


def _hooks_of_shadow(slot: WorkerSlot) -> Hooks:
    board = slot.board

    def standing_mark_us() -> int | None:
        """A quiet shadow spells nothing out: what it has promised stands on its board."""
        return board.get(Word.LAST_MARK_US) or None if slot.is_ready else None

    return Hooks(
        # The server's promises do not wait for one that dies again and again.
        has_writer=lambda: slot.has_writer,
        set_idle=lambda is_idle: board.set(Word.IS_RELAY_IDLE, int(is_idle)),
        forgot=lambda start: board.set(Word.JOURNAL_START, start),
        standing_mark_us=standing_mark_us,
    )
