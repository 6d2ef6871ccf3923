"""What the keeper does about what workers and the shadow say, and about how they end."""

import time
from dataclasses import dataclass

from homeostat_inference.app.ports import Clock
from homeostat_inference.app.supervising import CrashBook, DeadRun
from homeostat_inference.domain.errors import NotServed
from homeostat_inference.edges.announcing import Announcer
from homeostat_inference.edges.beside import Beside
from homeostat_inference.edges.control import (
    Applied,
    Failed,
    Loaded,
    Message,
    Need,
    Refuse,
    TellPlan,
)
from homeostat_inference.edges.following import Following
from homeostat_inference.edges.slots import WorkerSlot
from homeostat_inference.edges.versions import RegistryAway
from homeostat_kit.logs import get_logger

# Versions that requests named and that are fetched at the same time, and what else is under way.
_TASKS = 64
log = get_logger("homeostat_inference.keeper")


@dataclass(frozen=True, slots=True)
class Heeding:
    """Versions that are loaded, that fail, that are asked for, and that end whoever runs them."""

    following: Following
    announcer: Announcer
    crashes: CrashBook
    beside: Beside
    clock: Clock

    def heard(self, slot: WorkerSlot, message: Message) -> None:
        """A worker said it."""
        match message:
            case Loaded() | Applied():
                self._announce(slot)
            case Failed(model_name, version):
                self.announcer.failed(slot.name, self.following.plan, message)
                if not self._forgot_file(message):
                    self.following.note_unfit((model_name, version))
            case Need():
                self._need(slot, message)
            case _:
                pass

    def heard_of_shadow(self, slot: WorkerSlot, message: Message) -> None:
        """The shadow said it."""
        if isinstance(message, Failed):
            self._forgot_file(message)

    def _forgot_file(self, failed: Failed) -> bool:
        """Whether the version failed because its file has gone: then it is fetched again."""
        key = (failed.model_name, failed.version)
        if self.following.cache.has(*key):
            return False
        self.following.forget_file(key)
        return True

    def crashed(self, slot: WorkerSlot, runs: list[DeadRun], reason: str) -> None:
        """A process ended, and nobody wanted it to."""
        self.crashes.note(runs, reason, time.monotonic(), self.clock.now_us())
        for each in self.crashes.held:
            if each.reason.endswith(reason):
                log.error(
                    "quarantined",
                    model_name=each.model_name,
                    version=each.version,
                    input_fingerprint=each.input_fingerprint,
                )
        self.following.renew()

    def release(self, model_name: str, version: int, input_fingerprint: str) -> int:
        """Lets it run again; how many quarantines that lifted."""
        count = self.crashes.release(model_name, version, input_fingerprint)
        if input_fingerprint:
            self.following.renew()
        else:
            self.following.forgive((model_name, version))
        return count

    def _announce(self, slot: WorkerSlot) -> None:
        plan = self.following.plan
        for name, model in plan.models.items():
            if model.champion is not None and (name, model.champion) in slot.told.loaded:
                self.following.note_loaded(name, model.champion, model.revision)
        self.announcer.loaded(slot.name, plan, slot.told.loaded)

    def _need(self, slot: WorkerSlot, need: Need) -> None:
        if len(self.beside) < _TASKS:
            self.beside.begin(self._pin(slot, need))
        else:
            reason = "too many other versions are being fetched; try again"
            slot.send(Refuse(need.model_name, need.version, reason, is_away=True))

    async def _pin(self, slot: WorkerSlot, need: Need) -> None:
        try:
            await self.following.pin((need.model_name, need.version))
        except Exception as error:
            # A client waits for a word, whatever happens here.
            is_away = not isinstance(error, NotServed)
            slot.send(Refuse(need.model_name, need.version, str(error) or repr(error), is_away))
            if not isinstance(error, NotServed | RegistryAway):
                raise
        else:
            # The plan may have held it already: then this worker has not heard of it again.
            slot.send(TellPlan(self.following.plan.to_json()))
