"""A process that a slot has, or is to have: what it was told, and what it has said."""

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from homeostat_inference.edges.control import (
    Applied,
    Control,
    Dropped,
    Failed,
    Loaded,
    Message,
    Prepared,
    Ready,
    TellHealth,
    TellPlan,
)
from homeostat_inference.edges.nursery import Child, Nursery, NurseryDied


@dataclass(slots=True)
class Told:
    """What the present worker has said so far."""

    port: int = 0
    plan_number: int = -1
    is_complete: bool = False
    loaded: dict[tuple[str, int], Loaded] = field(default_factory=dict)
    failed: dict[tuple[str, int], str] = field(default_factory=dict)


class SlotProcess:
    """A process that the slot has, or is to have."""

    def __init__(self, child: Child, control: Control) -> None:
        self.child = child
        self.control = control
        self.told = Told()
        self.prepared = asyncio.Event()
        self.hearing: asyncio.Task[None] | None = None
        self.is_over = False
        self._told_plan: TellPlan | None = None
        self._told_health: TellHealth | None = None

    @classmethod
    async def fork(
        cls, nursery: Nursery, told: Mapping[str, Any], given: Sequence[int]
    ) -> "SlotProcess":
        """``given``: descriptors behind that of its line to the keeper. OSError or NurseryDied if
        there can be none."""
        ours, theirs = socket.socketpair()
        try:
            child = await nursery.fork(told, [theirs.fileno(), *given])
        except (OSError, NurseryDied):
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(child, await Control.over(ours))

    def tell(self, plan: TellPlan, health: TellHealth) -> None:
        """What it is to serve, and how the server is; nothing if it knows."""
        if plan != self._told_plan:
            self._told_plan = plan
            self.control.send(plan)
        if health != self._told_health:
            self._told_health = health
            self.control.send(health)

    def note(self, message: Message) -> None:
        """Remembers what it said."""
        match message:
            case Prepared():
                self.prepared.set()
            case Ready(port, _):
                self.told.port = port
            case Loaded(model_name, version):
                self.told.loaded[model_name, version] = message
                self.told.failed.pop((model_name, version), None)
            case Dropped(model_name, version):
                self.told.loaded.pop((model_name, version), None)
            case Failed(model_name, version, error):
                self.told.failed[model_name, version] = error
            case Applied(number, is_complete):
                self.told.plan_number = number
                self.told.is_complete = is_complete
            case _:
                pass

    async def gets_ready(self, seconds: float) -> bool:
        """Waits until it is prepared; False if it ended before, or takes longer."""
        preparing = asyncio.ensure_future(self.prepared.wait())
        await asyncio.wait(
            (preparing, self.child.ended), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        preparing.cancel()
        return self.prepared.is_set() and not self.child.ended.done()

    def end(self) -> None:
        """It has ended, or is to be forgotten."""
        self.is_over = True
        if self.hearing is not None:
            self.hearing.cancel()
        self.control.close()
        os.close(self.child.descriptor)
