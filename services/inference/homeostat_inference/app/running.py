"""Running a model on what waits, and finding out whose request it can't digest."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

from homeostat.schema import judge
from homeostat_inference.app.ports import Call, Run, RunWatch
from homeostat_inference.app.routing import Guard
from homeostat_inference.app.serving import Served
from homeostat_inference.app.waiting import Waiting
from homeostat_inference.domain.batches import unfit
from homeostat_inference.domain.blocks import Answered
from homeostat_inference.domain.errors import DeadlineExceeded, InvalidInput, Quarantined
from homeostat_inference.domain.parts import gathered
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array

Refuse = Callable[[Served, Waiting, Exception], None]
Trace = Callable[[Schema, int], AbstractContextManager[str]]


class Ran(NamedTuple):
    """One run of a model."""

    # Whose rows these are, in order.
    batch: list[Waiting]
    answered: Answered
    started_ns: int
    ran_ns: int
    traceparent: str

    @property
    def rows(self) -> int:
        """All rows of the run."""
        return len(self.answered.scores)


@dataclass(slots=True)
class Runs:
    """Runs models; what must not be run is refused."""

    refuse: Refuse
    # Until when callers wait: their first deadline, and their last.
    deadlines_ns: Callable[[Sequence[Call]], tuple[int, int]]

    def run(
        self,
        served: Served,
        batch: list[Waiting],
        guard: Guard | None,
        watch: RunWatch | None,
        trace: Trace,
    ) -> Ran | None:
        """What the model made of the batch; None if nobody was left. Raises what the model raises,
        DeadlineExceeded if the run was ended. Who is refused is taken out of ``batch`` before, so
        that whoever called knows what is left, be it after an error."""
        self._in_time(served, batch)
        arrays = self._fit(served, batch)
        if batch and guard is not None and watch is not None and guard.input_fingerprints:
            held = watch.held_back(served.schema, arrays, guard.input_fingerprints)
            if held:
                self._without_rows(served, batch, held)
                arrays = gathered([each.part for each in batch]) if batch else []
        if not batch:
            return None
        schema = served.schema
        rows = len(arrays[0])
        # As long as anybody waits for it.
        deadline_ns = max([each.last_deadline_ns for each in batch])
        started_ns = time.monotonic_ns()
        with trace(schema, rows) as traceparent:
            outputs = _watched(served, arrays, watch, deadline_ns)
            require_rows(outputs, rows)
            scores, decisions = judge(schema.signature, outputs[schema.score_index])
        ran_ns = time.monotonic_ns() - started_ns
        return Ran(
            batch, Answered(arrays, outputs, scores, decisions), started_ns, ran_ns, traceparent
        )

    def _in_time(self, served: Served, batch: list[Waiting]) -> None:
        """Without those that have waited too long: their answers would be heard by nobody."""
        now_ns = time.monotonic_ns()
        found: dict[int, dict[int, Exception]] = {}
        for at, each in enumerate(batch):
            if each.deadline_ns <= now_ns:
                calls = each.part.items
                late = [
                    index
                    for index, call in enumerate(calls)
                    if self.deadlines_ns([call])[0] <= now_ns
                ]
                found[at] = dict.fromkeys(late, _late(served))
        if found:
            self._take_out(served, batch, found)
            for each in batch:
                each.deadline_ns, each.last_deadline_ns = self.deadlines_ns(each.part.items)

    def _fit(self, served: Served, batch: list[Waiting]) -> list[Array]:
        """Without requests whose values no model can be given; the others' values."""
        while batch:
            parts = [each.part for each in batch]
            arrays = gathered(parts)
            bad = unfit(served.schema, parts, arrays)
            if not bad:
                return arrays
            reasons = {
                at: {index: InvalidInput(reason) for index, reason in found.items()}
                for at, found in bad.items()
            }
            self._take_out(served, batch, reasons)
        return []

    def _without_rows(self, served: Served, batch: list[Waiting], rows: Sequence[int]) -> None:
        """Without requests whose rows have ended processes before."""
        schema = served.schema
        error = Quarantined(
            f"model {schema.model_name!r} version {schema.version}: this input is held back, "
            "because the server died twice while it was running; release it with `homeostat "
            f"serving release {schema.model_name} {schema.version}`, or promote another version"
        )
        found: dict[int, dict[int, Exception]] = {}
        first = 0
        for at, each in enumerate(batch):
            after = first + each.rows
            own = {(row - first) // each.part.each for row in rows if first <= row < after}
            if own:
                found[at] = dict.fromkeys(own, error)
            first = after
        self._take_out(served, batch, found)

    def _take_out(
        self,
        served: Served,
        batch: list[Waiting],
        found: Mapping[int, Mapping[int, Exception]],
    ) -> None:
        left: list[Waiting] = []
        out: list[tuple[Waiting, Exception]] = []
        for at, each in enumerate(batch):
            errors = found.get(at)
            if errors is None:
                left.append(each)
                continue
            out += [(each.cut(index, index + 1), error) for index, error in errors.items()]
            left += each.without(list(errors))
        batch[:] = left
        for one, error in out:
            self.refuse(served, one, error)


def _watched(
    served: Served, arrays: list[Array], watch: RunWatch | None, deadline_ns: int
) -> list[Array]:
    if watch is None:
        return served.model.run(arrays)
    run = watch.enter(served.schema, deadline_ns, arrays, len(arrays[0]))
    try:
        return served.model.run(arrays, run.options)
    except Exception as error:
        raise _overdue(served, run) or error from error
    finally:
        watch.exit(run)


def _overdue(served: Served, run: Run) -> DeadlineExceeded | None:
    if not run.is_overdue:
        return None
    schema = served.schema
    return DeadlineExceeded(
        f"model {schema.model_name!r} version {schema.version}: its run was ended, "
        "because it took longer than allowed"
    )


def _late(served: Served) -> DeadlineExceeded:
    schema = served.schema
    return DeadlineExceeded(
        f"model {schema.model_name!r} version {schema.version}: the deadline passed before its "
        "turn came"
    )


def require_rows(outputs: Sequence[Array], rows: int) -> None:
    """A model that does not answer row by row would give some callers the answers of others."""
    for each in outputs:
        if each.shape[:1] != (rows,):
            raise ValueError(f"expected an output of {rows} rows, got shape {each.shape}")
