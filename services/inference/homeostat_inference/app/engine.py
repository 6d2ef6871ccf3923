"""Answering calls: take in, batch, run, keep, answer."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from homeostat_inference.app.answers import Forms
from homeostat_inference.app.book import BlockBook
from homeostat_inference.app.intake import MAX_BLOCK_BYTES, Groups, Intake, Rules
from homeostat_inference.app.keeping import ClientKeys, Keeper
from homeostat_inference.app.plan import BatchingPlan
from homeostat_inference.app.ports import Call, Clock, RunWatch
from homeostat_inference.app.running import Ran, Runs
from homeostat_inference.app.serving import NotLoaded, Served, Table
from homeostat_inference.app.supervising import SUSPECT_SECONDS
from homeostat_inference.app.turns import (
    ALONE,
    MAX_RUN_ROWS,
    NO_POLICY,
    OVER_THE_LIMIT,
    Turns,
    max_rows,
    preferred,
)
from homeostat_inference.app.waiting import Waiting, taken
from homeostat_inference.domain.errors import (
    DeadlineExceeded,
    InferenceError,
    Leaving,
    ModelFailed,
)
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.times import TimeBounds

__all__ = ["MAX_BLOCK_BYTES", "MAX_RUN_ROWS", "Counts", "Engine", "Rules"]

SUSPECT = "suspect"
RUN_APART = "its batch failed"
# Of the time after which a run is ended, what one with several rows is expected to take: another
# machine, or a busy one, may need a few times as long.
_SHARE_OF_LIMIT = 0.25
# A run that had to be ended after so many times what it usually takes would not have ended soon.
_ENDLESS_FACTOR = 4


def _no_trace(schema: Schema, rows: int) -> AbstractContextManager[str]:
    return nullcontext("")


@dataclass(slots=True)
class Counts:
    """What was done since the start; read by the metrics."""

    requests: int = 0
    rows: int = 0
    refused: int = 0
    failed: int = 0
    runs: int = 0
    batch_rows_max: int = 0
    run_seconds: float = 0.0
    # From receipt to run, all requests together.
    queue_seconds: float = 0.0
    # Rows answered although the journal could not keep them.
    shed: int = 0
    # Rows answered and, by the sample, not journalled.
    sampled_out: int = 0
    # Answered too late, or not run because it was too late.
    overdue: int = 0


@dataclass(slots=True)
class Engine:
    """Answers calls, each of them once. `handle` may be called from several threads; who receives
    most of the calls uses `take` and `work` instead: so what comes in meanwhile is batched, and
    bounded, and no model holds up another."""

    table: Table
    book: BlockBook
    clock: Clock
    rules: Rules
    # Bounds for times now.
    times: Callable[[int], TimeBounds]
    # Told the newest event time of each batch.
    see: Callable[[int, int], None]
    # Takes over a call whose version must be fetched first.
    fetch: Callable[[Call, NotLoaded], None]
    log: Callable[[str, Exception], None]
    trace: Callable[[Schema, int], AbstractContextManager[str]] = _no_trace
    watch: RunWatch | None = None
    # Monotonic: by it runs are measured and waits end.
    now_ns: Callable[[], int] = time.monotonic_ns
    counts: Counts = field(default_factory=Counts)
    is_leaving: bool = False
    intake: Intake = field(init=False)
    _runs: Runs = field(init=False)
    _keeper: Keeper = field(init=False)
    _turns: Turns = field(init=False)
    # What the answers of a version share.
    _forms: "WeakKeyDictionary[Served, Forms]" = field(default_factory=WeakKeyDictionary)

    def __post_init__(self) -> None:
        self.intake = Intake(self.table, self.clock, self.rules, self.times, self.fetch, self._fail)
        self._runs = Runs(self._refuse, self.intake.deadlines_ns)
        self._turns = self._new_turns()
        self._keeper = Keeper(
            self.book,
            self.rules,
            self.see,
            self._refuse,
            self._shed,
            ClientKeys(self.rules.client_key_secret),
        )

    def _new_turns(self) -> Turns:
        return Turns(self._turn, self._policy, self.now_ns, allowed_seconds=self._allowed_seconds)

    @property
    def _allowed_seconds(self) -> float:
        return self.rules.run_limit_seconds * _SHARE_OF_LIMIT

    def another_way(self) -> "Way":
        """For another thread that takes calls and works."""
        return Way(self, self._new_turns())

    def handle(self, calls: Sequence[Call]) -> None:
        """Answers all calls, now or later; raises nothing."""
        for served, waiting in self._read(calls).items():
            if served.is_inline(1):
                self.run_all(served, waiting)
            else:
                self._hand_over(served, waiting)

    def take(self, calls: Sequence[Call]) -> None:
        """Like `handle`, except that the calls are answered by `work`; for one thread only."""
        self._take(calls, self._turns)

    def _take(self, calls: Sequence[Call], turns: Turns) -> None:
        for served, waiting in self._read(calls).items():
            turns.add(served, waiting)

    def work(self) -> None:
        """Answers some of what was taken, if it is time; raises nothing."""
        self._turns.work()

    def patience_ms(self, at_most_ms: int) -> int:
        """How long to wait for more calls before `work` is called again; 0 for not at all."""
        return _patience_ms(self._turns, at_most_ms)

    def _read(self, calls: Sequence[Call]) -> Groups:
        if not self.is_leaving:
            return self.intake.read(calls)
        for call in calls:
            error = Leaving("the server is shutting down; try another one or again later")
            self._fail(call, error)
        return {}

    def _turn(self, served: Served, batch: list[Waiting], why_alone: str) -> None:
        if served.is_inline(1):
            self.run(served, batch, why_alone)
        else:
            self._hand_over(served, batch)

    def _policy(self, served: Served) -> BatchingPlan | None:
        model = self.table.plan.models.get(served.schema.model_name)
        return None if model is None else model.batching

    def run_all(self, served: Served, waiting: list[Waiting]) -> None:
        """Runs and answers it all, in runs of a limited size."""
        policy = self._policy(served) or NO_POLICY
        limit = max_rows(served, policy, self._allowed_seconds)
        while waiting:
            rows = limit
            if policy.preferred_rows:
                rows = preferred(policy, sum(each.rows for each in waiting), limit)
            batch, waiting = taken(waiting, rows)
            self.run(served, batch, OVER_THE_LIMIT if waiting else ALONE)

    def _hand_over(self, served: Served, waiting: list[Waiting]) -> None:
        runner = served.runner_for(lambda some: self.run_all(served, some), MAX_RUN_ROWS)
        if runner is None or not runner.submit(waiting):
            # Swapped out between routing and here: the version is still loaded, so it answers.
            self.run_all(served, waiting)

    def run(self, served: Served, batch: list[Waiting], why_alone: str = ALONE) -> None:
        """Runs and answers a batch of one version; raises nothing. ``why_alone``: what is told if
        it is a single request."""
        schema = served.schema
        guards = self.table.guards
        guard = guards.get((schema.model_name, schema.version)) if guards else None
        is_suspect = (guard is not None and guard.is_suspect) or self._runs_apart(served)
        if is_suspect and not (len(batch) == 1 and batch[0].count == 1):
            self._run_apart(served, batch, SUSPECT)
            return
        if len(batch) > 1:
            # Rows of one block share arm and context columns.
            batch.sort(key=lambda each: each.block_key)
        begun_ns = self.now_ns()
        try:
            ran = self._runs.run(served, batch, guard, self.watch, self.trace)
        except Exception as error:
            if isinstance(error, DeadlineExceeded):
                self._note_ended(served, batch, begun_ns)
            self._failed(served, batch, error)
            return
        if ran is None:
            return
        self._count(served, ran)
        why = ""
        if len(ran.batch) == 1 and ran.batch[0].count == 1:
            why = SUSPECT if is_suspect else why_alone
        forms = self._forms.get(served)
        if forms is None:
            forms = self._forms[served] = {}
        self._keeper.keep(served, ran, why, forms)

    def _runs_apart(self, served: Served) -> bool:
        return served.apart_until_ns > 0 and self.now_ns() < served.apart_until_ns

    def _note_ended(self, served: Served, batch: list[Waiting], begun_ns: int) -> None:
        """One request that the model never comes to an end with must not take the next batch with
        it too. Callers who wait shorter than a run usually takes are no sign of one."""
        now_ns = self.now_ns()
        usual_seconds = served.run_seconds(sum(each.rows for each in batch))
        if now_ns - begun_ns > usual_seconds * _ENDLESS_FACTOR * 1e9:
            served.apart_until_ns = now_ns + round(SUSPECT_SECONDS * 1e9)

    def _failed(self, served: Served, batch: list[Waiting], error: Exception) -> None:
        is_single = len(batch) == 1 and batch[0].count == 1
        if not is_single and not isinstance(error, DeadlineExceeded):
            self._run_apart(served, batch, RUN_APART)
            return
        named = self._named(served, error)
        for each in batch:
            self._refuse(served, each, named)

    def _run_apart(self, served: Served, batch: list[Waiting], why: str) -> None:
        """One request that the model can't digest must not take the others with it."""
        for each in batch:
            for index in range(each.count):
                self.run(served, [each.cut(index, index + 1)], why)

    def _named(self, served: Served, error: Exception) -> Exception:
        if isinstance(error, InferenceError):
            return error
        self.log("model_failed", error)
        return ModelFailed(
            f"model {served.schema.model_name!r} version {served.schema.version} failed on this "
            f"input ({type(error).__name__})"
        )

    def _count(self, served: Served, ran: Ran) -> None:
        counts, rows = self.counts, ran.rows
        requests = sum(each.count for each in ran.batch)
        counts.runs += 1
        counts.requests += requests
        counts.rows += rows
        counts.batch_rows_max = max(counts.batch_rows_max, rows)
        counts.run_seconds += ran.ran_ns / 1e9
        # Those of one part came in together.
        queue_ns = sum(
            [(ran.started_ns - each.part.items[0].received_ns) * each.count for each in ran.batch]
        )
        counts.queue_seconds += queue_ns / 1e9
        if self.rules.durability == "sampled":
            counts.sampled_out += sum(each.rows for each in ran.batch if not each.is_logged)
        served.tally.add(requests, rows, ran.ran_ns, queue_ns, self.clock.now_us())

    def _shed(self, rows: int) -> None:
        self.counts.shed += rows

    def _refuse(self, served: Served, waiting: Waiting, error: Exception) -> None:
        served.tally.refused += waiting.count
        if not waiting.release(served):
            self.log("released_twice", RuntimeError(f"{waiting.rows} rows"))
        for call in waiting.part.items:
            self._fail(call, error)

    def _fail(self, call: Call, error: Exception) -> None:
        if isinstance(error, InferenceError):
            self.counts.refused += 1
            self.counts.overdue += isinstance(error, DeadlineExceeded)
        else:
            self.counts.failed += 1
            self.log("call_failed", error)
        try:
            call.fail(error)
        except Exception as own:
            # Those beside it are to hear of it all the same.
            self.log("call_not_failed", own)


class Way:
    """Takes calls and answers them, for one thread (as the engine itself does for another)."""

    def __init__(self, engine: Engine, turns: Turns) -> None:
        self._engine = engine
        self._turns = turns

    def take(self, calls: Sequence[Call]) -> None:
        """Takes the calls, or fails them."""
        self._engine._take(calls, self._turns)

    def work(self) -> None:
        """Answers some of what was taken, if it is time; raises nothing."""
        self._turns.work()

    def patience_ms(self, at_most_ms: int) -> int:
        """How long `work` can wait; 0 for not at all."""
        return _patience_ms(self._turns, at_most_ms)


def _patience_ms(turns: Turns, at_most_ms: int) -> int:
    wait_ns = turns.wait_ns()
    return at_most_ms if wait_ns is None else min(at_most_ms, -(-wait_ns // 1_000_000))
