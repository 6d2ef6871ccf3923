"""Telling the others which champion became active in which worker, or why it could not."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from homeostat.events.v1.version_activated_pb2 import VersionActivated
from homeostat_inference.app.plan import ServingPlan
from homeostat_inference.app.ports import Clock, Done
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
    # Puts the serialized event on its way; what it is given is called once the event is kept, from
    # any thread.
    publish: Callable[[bytes, Done], None]
    _known: dict[str, list[int]] = field(default_factory=dict)
    # Of those known, which are sure to be told: only they are on disk.
    _told: dict[str, list[int]] = field(default_factory=dict)
    _noting: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """Remembers the last life, as far as the file can be read."""
        try:
            stored = json.loads(self.file.read_text())
            self._known = {str(name): [int(each) for each in told] for name, told in stored.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return
        self._told = dict(self._known)

    def loaded(self, slot: str, plan: ServingPlan, loaded: dict[tuple[str, int], Loaded]) -> None:
        """What a worker has loaded, as far as the plan calls it a champion."""
        for name, model in plan.models.items():
            found = loaded.get((name, model.champion or 0))
            if found is not None:
                self._tell_once(slot, slot, name, found.version, model.revision, found.load_seconds)

    def failed(self, slot: str, plan: ServingPlan, failed: Failed) -> None:
        """A worker can't load a version, which matters if that is a champion."""
        name, version = failed.model_name, failed.version
        model = plan.models.get(name)
        if model is not None and model.champion == version:
            self._tell_once(
                f"{slot} failed", slot, name, version, model.revision, failed.load_seconds,
                failed.error,
            )  # fmt: skip

    def not_fetched(self, model_name: str, version: int, revision: int, error: str) -> None:
        """A champion's file can't be had."""
        self._tell_once("failed", "", model_name, version, revision, 0.0, error)

    def _tell_once(
        self, what: str, slot: str, model_name: str, version: int, revision: int, seconds: float,
        error: str = "",
    ) -> None:  # fmt: skip
        key, value = f"{what}/{model_name}", [version, revision]
        if self._known.get(key) == value:
            return
        self._known[key] = value
        message = VersionActivated(
            model_name=model_name,
            version=version,
            revision=revision,
            worker_id=f"{self.server_name}/{slot}" if slot else self.server_name,
            load_seconds=seconds,
            error=error,
            occurred_at=timestamp(self.clock.now_us()),
        )
        self.publish(message.SerializeToString(), lambda error: self._note(key, value, error))

    def _note(self, key: str, value: list[int], error: Exception | None) -> None:
        """The next life need not tell of it. Not before it is kept, or it might never be told."""
        if error is not None:
            return
        with self._noting:
            self._told[key] = value
            try:
                write_whole(self.file, json.dumps(self._told).encode())
            except OSError as failure:
                log.warning("activations_not_noted", reason=str(failure))
