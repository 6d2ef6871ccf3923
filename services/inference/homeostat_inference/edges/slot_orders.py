"""What a slot asks of whoever runs the server."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from homeostat_inference.app.plan import ServingPlan
from homeostat_inference.app.supervising import DeadRun
from homeostat_inference.edges.control import Message, TellHealth

if TYPE_CHECKING:
    from homeostat_inference.edges.slots import WorkerSlot


@dataclass(frozen=True, slots=True)
class Orders:
    """What a slot asks of whoever runs the server."""

    # What callers have promised.
    mark_us: Callable[[], int | None]
    # What the nursery is told for a new process, and what it is given besides its own.
    assignment: Callable[[], dict[str, Any]]
    given: Callable[[], list[int]]
    plan: Callable[[], ServingPlan]
    health: Callable[[], TellHealth]
    # Called with what a worker said, before the slot itself heeds it.
    heard: Callable[["WorkerSlot", Message], None]
    # Called after a worker's end that nobody wanted: what ran, and the reason.
    crashed: Callable[["WorkerSlot", list[DeadRun], str], None]
