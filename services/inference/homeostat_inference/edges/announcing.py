"""Telling the others which champion became active in which worker, or why it could not."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from homeostat.events.v1.version_activated_pb2 import VersionActivated
from homeostat_inference.app.plan import ServingPlan
from homeostat_inference.app.ports import Clock
from homeostat_inference.domain.blocks import timestamp
from homeostat_inference.edges.control import Failed, Loaded
from homeostat_inference.edges.versions import write_whole
from homeostat_kit.logs import get_logger

log = get_logger("homeostat_inference.announcing")


@dataclass(slots=True)
class Announcer:
    """Tells of each worker's champions once: a restart does not tell of them again."""

    server_name: str
    # Which were told of.
    file: Path
    clock: Clock
    # Puts the serialized event on its way.
    publish: Callable[[bytes], None]
    _known: dict[str, list[int]] = field(default_factory=dict)

    def begin(self) -> None:
        """Remembers the last life, as far as the file can be read."""
        try:
            stored = json.loads(self.file.read_text())
            self._known = {str(name): [int(each) for each in told] for name, told in stored.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return

    def loaded(self, slot: str, plan: ServingPlan, loaded: dict[tuple[str, int], Loaded]) -> None:
        """What a worker has loaded, as far as the plan calls it a champion."""
        for name, model in plan.models.items():
            found = loaded.get((name, model.champion or 0))
            if found is not None and self._is_new(slot, name, found.version, model.revision):
                self._tell(slot, name, found.version, model.revision, found.load_seconds)

    def failed(self, slot: str, plan: ServingPlan, failed: Failed) -> None:
        """A worker can't load a version, which matters if that is a champion."""
        model = plan.models.get(failed.model_name)
        if model is None or model.champion != failed.version:
            return
        name, version = failed.model_name, failed.version
        if self._is_new(f"{slot} failed", name, version, model.revision):
            self._tell(slot, name, version, model.revision, failed.load_seconds, failed.error)

    def not_fetched(self, model_name: str, version: int, revision: int, error: str) -> None:
        """A champion's file can't be had."""
        if self._is_new("failed", model_name, version, revision):
            self._tell("", model_name, version, revision, 0.0, error)

    def _is_new(self, slot: str, model_name: str, version: int, revision: int) -> bool:
        key = f"{slot}/{model_name}"
        if self._known.get(key) == [version, revision]:
            return False
        self._known[key] = [version, revision]
        try:
            write_whole(self.file, json.dumps(self._known).encode())
        except OSError as error:
            log.warning("activations_not_noted", reason=str(error))
        return True

    def _tell(
        self, slot: str, model_name: str, version: int, revision: int, seconds: float,
        error: str = "",
    ) -> None:  # fmt: skip
        message = VersionActivated(
            model_name=model_name,
            version=version,
            revision=revision,
            worker_id=f"{self.server_name}/{slot}" if slot else self.server_name,
            load_seconds=seconds,
            error=error,
            occurred_at=timestamp(self.clock.now_us()),
        )
        self.publish(message.SerializeToString())
