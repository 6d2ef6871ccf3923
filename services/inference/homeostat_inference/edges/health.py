"""How the server is: told to workers, who tell it to load balancers."""

import asyncio
from collections.abc import Sequence

from homeostat_inference.edges.control import TellHealth
from homeostat_inference.edges.events import wait_for
from homeostat_inference.edges.following import Following
from homeostat_inference.edges.slots import WorkerSlot
from homeostat_inference.edges.status import Status
from homeostat_kit.logs import get_logger

_LOOK_SECONDS = 0.5
# Until it is ready, somebody may be waiting for that.
_EARLY_LOOK_SECONDS = 0.02
log = get_logger("homeostat_inference.keeper")


class Health:
    """Looks again and again, and tells what has changed."""

    def __init__(self, following: Following, slots: Sequence[WorkerSlot]) -> None:
        self._following = following
        self._slots = slots
        # What is to be served is known from the last life.
        self.has_cached = False
        self._was_ready = False
        # As it was at the last look.
        self.now = TellHealth([], is_losing=False, is_ready=False)

    @property
    def is_ready(self) -> bool:
        """Whether what is to be served is known (from the registry, or from the last life), and was
        loaded once by every worker that there is: a fresh one loads before it takes calls."""
        if not self._was_ready and (self._following.has_snapshot or self.has_cached):
            number = self._following.plan.number
            alive = [each for each in self._slots if each.has_process]
            self._was_ready = bool(alive) and all(
                each.is_ready and each.told.plan_number >= number for each in alive
            )
        return self._was_ready

    async def tell(self, status: Status, stop: asyncio.Event) -> None:
        """Until ``stop``."""
        while not stop.is_set():
            health = TellHealth(status.degraded_reasons(), status.is_losing(), self.is_ready)
            if health != self.now:
                new = set(health.degraded_reasons) - set(self.now.degraded_reasons)
                for reason in sorted(new):
                    log.warning("degraded", reason=reason)
                self.now = health
                for each in self._slots:
                    each.send(health)
            # Suspicion ends by itself.
            self._following.renew()
            await wait_for((stop,), _LOOK_SECONDS if self.is_ready else _EARLY_LOOK_SECONDS)
