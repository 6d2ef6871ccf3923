"""The versions that run beside champions: loading them, and running them on what was answered."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat_inference.app.plan import ServingPlan
from homeostat_inference.app.ports import Model
from homeostat_inference.app.routing import Guard, Key, guards_of
from homeostat_inference.app.shadowing import inputs_of, shadow_block
from homeostat_inference.domain.errors import InvalidInput
from homeostat_inference.domain.schema import Schema, schema_of
from homeostat_inference.domain.tensors import Array
from homeostat_inference.edges.board import Board
from homeostat_inference.edges.board_layout import Word
from homeostat_inference.edges.board_runs import BoardRuns, Watched
from homeostat_inference.edges.control import Applied, Dropped, Failed, Loaded, Message
from homeostat_inference.edges.session import OnnxModel, UnfitModel
from homeostat_inference.edges.versions import VersionCache
from homeostat_kit.clock import Clock
from homeostat_kit.logs import get_logger

# After so long by the clock even a process that gets no time is taken for stuck: by the keeper.
STUCK_NS = 60_000_000_000
# What a run may take beyond its share, once it was told to end.
_MERCY_NS = 1_000_000_000
log = get_logger("homeostat_inference.shadow")


@dataclass(frozen=True, slots=True)
class _Beside:
    schema: Schema
    model: Model


@dataclass(slots=True)
class ShadowModels:
    """Reconciles what is loaded with one plan after the other."""

    cache: VersionCache
    board: Board
    runs: BoardRuns
    clock: Clock
    run_limit_seconds: float
    tell: Callable[[Message], None]
    plan: ServingPlan = field(default_factory=lambda: ServingPlan(number=-1))
    _guards: Mapping[Key, Guard] = field(default_factory=dict)
    _loaded: dict[Key, _Beside] = field(default_factory=dict)
    # Versions that can't be run; tried again once a plan has left them out.
    _unfit: set[Key] = field(default_factory=set)
    # The run under way, and how much of a processor this process had had when it began.
    _running: tuple[Watched, int] | None = None
    _ending: threading.Lock = field(default_factory=threading.Lock)

    @property
    def has_shadows(self) -> bool:
        """Whether any model has one."""
        return any(model.shadows for model in self.plan.models.values())

    def take(self, plan: ServingPlan) -> None:
        """Follows the plan, unless a later one was taken before."""
        if plan.number < self.plan.number:
            return
        self.plan, self._guards = plan, guards_of(plan)
        held = {(e.model_name, e.version) for e in plan.quarantines if not e.input_fingerprints}
        wanted = {(name, each) for name, model in plan.models.items() for each in model.shadows}
        for key in [each for each in self._loaded if each not in wanted - held]:
            del self._loaded[key]
            self.tell(Dropped(*key))
        self._unfit &= wanted
        for key in sorted(wanted - held - set(self._loaded) - self._unfit):
            self._load(key)
        self.tell(Applied(plan.number, is_complete=True))

    def _load(self, key: Key) -> None:
        begun = time.monotonic()
        try:
            found = self.cache.find(*key)
            if found is None:
                raise InvalidInput("its file is not here")
            version, content = found
            schema = schema_of(version.model_name, version.version, version.signature)
            # Where it ends this process, or never ends, the keeper finds it on the board.
            with self.runs.loading(schema, STUCK_NS / 1e9):
                self._loaded[key] = _Beside(schema, OnnxModel(content, schema))
        except (UnfitModel, InvalidInput) as error:
            self._give_up(key, str(error), time.monotonic() - begun)
            return
        self.tell(Loaded(*key, time.monotonic() - begun, 0.0, 0.0))
        log.info("shadow_loaded", model_name=key[0], version=key[1])

    def _give_up(self, key: Key, reason: str, seconds: float) -> None:
        self._unfit.add(key)
        self._loaded.pop(key, None)
        self.tell(Failed(*key, reason, seconds))
        log.error("shadow_not_run", model_name=key[0], version=key[1], reason=reason)

    def repeat(self, origin: PredictionBlock, version: int) -> PredictionBlock | None:
        """What the version makes of a block; None if it does not, which is told of."""
        key = (origin.model_name, version)
        beside = self._loaded.get(key)
        if beside is None:
            return None
        try:
            return self._repeated(beside, origin)
        except InvalidInput as error:
            self._give_up(key, str(error), 0.0)
        except Exception as error:
            self.board.words[Word.FAILED] += origin.row_count
            log.warning("shadow_failed", model_name=key[0], version=version, error=repr(error))
        return None

    def _repeated(self, beside: _Beside, origin: PredictionBlock) -> PredictionBlock | None:
        arrays = inputs_of(beside.schema, origin)
        begun = time.monotonic()
        outputs = self._outputs(beside, arrays, origin.row_count)
        if outputs is None:
            return None
        return shadow_block(
            beside.schema,
            origin,
            outputs,
            run_seconds=time.monotonic() - begun,
            produced_at_us=self.clock.now_us(),
        )

    def _outputs(
        self, beside: _Beside, arrays: Sequence[Array], rows: int
    ) -> Sequence[Array] | None:
        """None if one of the rows must not run."""
        schema = beside.schema
        guard = self._guards.get((schema.model_name, schema.version))
        if guard is None:
            return self._watched(beside, arrays, rows)
        held = guard.input_fingerprints
        if held and self.runs.held_back(schema, arrays, held):
            return None
        if not guard.is_suspect:
            return self._watched(beside, arrays, rows)
        # One by one, so that it is known which of them ends the process.
        apart = [
            self._watched(beside, [values[row : row + 1] for values in arrays], 1)
            for row in range(rows)
        ]
        return [np.concatenate(each) for each in zip(*apart, strict=True)]

    def _watched(self, beside: _Beside, arrays: Sequence[Array], rows: int) -> list[Array]:
        begun_ns = time.monotonic_ns()
        run = self.runs.enter(beside.schema, begun_ns + STUCK_NS, arrays, rows)
        self._running = (run, time.process_time_ns())
        try:
            return beside.model.run(arrays, run.options)
        finally:
            with self._ending:
                self._running = None
            self.runs.exit(run)
            words = self.board.words
            words[Word.RUNS] += 1
            words[Word.RUN_NS] += time.monotonic_ns() - begun_ns

    def end_overdue(self) -> None:
        """Ends a run that has had its share; called now and then by a thread. By the processor's
        time, not the clock's: whoever only gets time that nobody wants may wait long for it."""
        with self._ending:
            if self._running is None:
                return
            run, begun_ns = self._running
            over_ns = time.process_time_ns() - begun_ns - round(self.run_limit_seconds * 1e9)
            if over_ns > _MERCY_NS:
                # The keeper finds on the board what was running; whoever is killed by others has
                # another signal.
                os.kill(os.getpid(), signal.SIGXCPU)
            if over_ns > 0 and not run.is_overdue:
                run.is_overdue = True
                run.options.terminate = True


def run_options() -> Any:
    """What ends a run early."""
    import onnxruntime as ort  # noqa: PLC0415 - the nursery has it already

    return ort.RunOptions()
