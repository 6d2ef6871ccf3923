"""The versions that serve, where their runs take place, and the table that leads to them."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import random
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

from homeostat.events.v1.column_pb2 import ARM_PINNED
from homeostat_inference.app.plan import ModelPlan, ServingPlan
from homeostat_inference.app.ports import Model
from homeostat_inference.app.routing import (
    Draw,
    Entry,
    Guard,
    Key,
    Routes,
    held_back,
    reconcile,
)
from homeostat_inference.domain.errors import NotServed, Overloaded
from homeostat_inference.domain.schema import Schema


class HasRows(Protocol):
    """Whatever waits for a run."""

    @property
    def rows(self) -> int:
        """How many rows it has."""


Waiting = TypeVar("Waiting", bound=HasRows)


class NotLoaded(Exception):
    """The request names a version that has to be fetched first."""

    def __init__(self, model_name: str, version: int) -> None:
        super().__init__(f"model {model_name!r} version {version} is not loaded")
        self.model_name = model_name
        self.version = version


@dataclass(slots=True)
class Tally:
    """What a version has done since it was loaded; written by whoever runs it, read by anybody."""

    requests: int = 0
    rows: int = 0
    runs: int = 0
    run_ns: int = 0
    # Requests that were checked and yet got no answer.
    refused: int = 0
    last_us: int = 0
    # From their receipt to the beginning of their run, all requests together.
    queue_ns: int = 0

    def add(self, requests: int, rows: int, run_ns: int, queue_ns: int, now_us: int) -> None:
        """One run."""
        self.queue_ns += queue_ns
        self.requests += requests
        self.rows += rows
        self.runs += 1
        self.run_ns += run_ns
        self.last_us = now_us


class Served:
    """A loaded version and the rows that it has taken on."""

    def __init__(
        self,
        schema: Schema,
        model: Model,
        *,
        run_seconds: Callable[[int], float],
        inline_seconds: float,
        queue_rows: int,
        queue_bytes: int,
    ) -> None:
        """``run_seconds``: expected time of a run of so many rows. Runs that take longer than
        ``inline_seconds`` go to a thread of their own. ``queue_rows`` and ``queue_bytes`` bound
        what may wait."""
        self.schema = schema
        self.model = model
        self.runner: Runner[Any] | None = None
        self.run_seconds = run_seconds
        self.tally = Tally()
        # Monotonic: until then its requests run one by one, because a run had to be ended.
        self.apart_until_ns = 0
        self._inline_seconds = inline_seconds
        self._queue_rows = queue_rows
        self._queue_bytes = queue_bytes
        self._rows = 0
        self._bytes = 0
        # Requests in hand by their time of arrival, oldest first or nearly so.
        self._arrivals: dict[int, int] = {}
        self._is_retired = False
        self._lock = threading.Lock()

    def runner_for(self, run: "Callable[[list[Any]], None]", max_rows: int) -> "Runner[Any] | None":
        """The thread that runs this version, started when it is first needed; None once retired."""
        with self._lock:
            if self.runner is None and not self._is_retired:
                name = f"run-{self.schema.model_name}-{self.schema.version}"
                self.runner = Runner(name, run, max_rows)
            return self.runner

    def retire(self) -> None:
        """Another version took over: what waits is still answered, then the thread ends."""
        with self._lock:
            self._is_retired = True
            if self.runner is not None:
                self.runner.close()

    @property
    def rows_in_hand(self) -> int:
        """Rows taken on and not yet answered."""
        return self._rows

    @property
    def oldest_arrival_us(self) -> int | None:
        """When the oldest request in hand came in; None if there is none."""
        with self._lock:
            return min(self._arrivals, default=None)

    def is_inline(self, rows: int) -> bool:
        """Whether a run takes place in the receiving loop, for a request of so many rows."""
        return self.run_seconds(rows) <= self._inline_seconds

    def admit(self, rows: int, size_bytes: int, count: int, arrived_at_us: int) -> int:
        """Takes on as many as it can of ``count`` requests with so many rows and bytes each, and
        says how many. Where nothing waits, a large request alone is let in."""
        with self._lock:
            room = min(
                (self._queue_rows - self._rows) // rows,
                (self._queue_bytes - self._bytes) // size_bytes,
            )
            taken = min(count, max(room, 0 if self._rows else 1))
            if taken:
                self._rows += rows * taken
                self._bytes += size_bytes * taken
                self._arrivals[arrived_at_us] = self._arrivals.get(arrived_at_us, 0) + taken
            return taken

    @property
    def is_full(self) -> bool:
        """Whether not one more row is taken on."""
        return self._rows >= self._queue_rows or self._bytes >= self._queue_bytes

    def overloaded(self) -> Overloaded:
        """What is told to those who were not taken on."""
        seconds = max(0.01, self.run_seconds(self._rows))
        return Overloaded(
            f"model {self.schema.model_name!r} version {self.schema.version}: "
            f"{self._rows} rows of {self._bytes} bytes wait, at most {self._queue_rows} "
            f"rows and {self._queue_bytes} bytes may; try again in {seconds:.2f} s",
            seconds,
        )

    def release(self, rows: int, size_bytes: int, count: int, arrived_at_us: int) -> bool:
        """``count`` requests of so many rows and bytes each were answered, one way or the other.
        False if so many were not in hand, which is a bug: what may wait stays bounded."""
        with self._lock:
            were_in_hand = self._rows >= rows * count
            self._rows = max(0, self._rows - rows * count)
            self._bytes = max(0, self._bytes - size_bytes * count)
            left = self._arrivals.pop(arrived_at_us, 0) - count
            if left > 0:
                self._arrivals[arrived_at_us] = left
            return were_in_hand


class Runner(Generic[Waiting]):
    """A thread that runs whatever waits for one version, all of it at once."""

    def __init__(self, name: str, run: Callable[[list[Waiting]], None], max_rows: int) -> None:
        self._run = run
        self._max_rows = max_rows
        self._waiting: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def submit(self, waiting: list[Waiting]) -> bool:
        """False if the runner has been closed: the version was swapped out."""
        with self._changed:
            if self._is_closed:
                return False
            self._waiting.extend(waiting)
            self._changed.notify()
            return True

    def close(self) -> None:
        """Runs what waits, then ends."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _loop(self) -> None:
        while batch := self._take():
            self._run(batch)

    def _take(self) -> list[Waiting]:
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            batch: list[Waiting] = []
            rows = 0
            while self._waiting and (not batch or rows + self._waiting[0].rows <= self._max_rows):
                batch.append(self._waiting.popleft())
                rows += batch[-1].rows
            return batch


class Table:
    """The versions that serve. Reading takes no lock: a swap replaces one reference."""

    def __init__(self, pinned_versions: int = 0, draw: Draw = random) -> None:
        """``pinned_versions``: how many versions `pin` keeps loaded that are nobody's champion.
        ``draw``: for canaries, numbers from 0 up to and without 1."""
        self._pinned_limit = pinned_versions
        self._draw = draw
        self._routes = Routes()
        # Held by who changes the routes; nobody who reads them waits for it.
        self._changing = threading.Lock()
        # Who was swapped out still answers what waits, and lives until then.
        self._ever: WeakSet[Served] = WeakSet()

    def apply(
        self,
        plan: ServingPlan,
        loaded: Mapping[Key, Served],
        failed: Mapping[Key, str] = MappingProxyType({}),
    ) -> tuple[Served, ...]:
        """Routes by this plan from now on, as far as what is ``loaded`` allows.

        ``failed``: versions that can't be loaded, and why. While the plan's champion is neither
        loaded nor failed, who answered before goes on, so it has to be among ``loaded`` still.
        Returns those that nothing leads to any longer: they have been retired, still answer what
        waits, and must not be handed in again.
        """
        with self._changing:
            return self._apply(plan, loaded, failed)

    def _apply(
        self,
        plan: ServingPlan,
        loaded: Mapping[Key, Served],
        failed: Mapping[Key, str] = MappingProxyType({}),
    ) -> tuple[Served, ...]:
        before = self._routes
        routes = reconcile(plan, loaded, failed, before, self._draw)
        self._ever.update(routes.versions.values())
        self._routes = routes
        kept = set(routes.versions.values())
        dropped = tuple(each for each in before.versions.values() if each not in kept)
        for each in dropped:
            each.retire()
        return dropped

    @property
    def plan(self) -> ServingPlan:
        """What was applied last."""
        return self._routes.plan

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Model name to who answers requests that name no version. Whoever answers many calls
        asks once per model: an entry without a canary is the same for every client."""
        return self._routes.entries

    @property
    def guards(self) -> Mapping[Key, Guard]:
        """Versions that are run with care; empty while all is well."""
        return self._routes.guards

    @property
    def champions(self) -> Mapping[str, Served]:
        """Model name to who answers for it: its champion, or its fallback."""
        return {name: each.served for name, each in self._routes.entries.items()}

    @property
    def loaded(self) -> list[Served]:
        """Every version that a request may reach."""
        return list(self._routes.versions.values())

    @property
    def rows_in_hand(self) -> int:
        """Rows taken on and not yet answered, those of swapped out versions among them."""
        return sum(each.rows_in_hand for each in self._alive())

    def _alive(self) -> list[Served]:
        with self._changing:
            # Whoever walks through it while another thread adds to it is thrown out.
            return list(self._ever)

    @property
    def oldest_arrival_us(self) -> int | None:
        """When the oldest request in hand came in; None if there is none."""
        arrivals = [each.oldest_arrival_us for each in self._alive()]
        return min((each for each in arrivals if each is not None), default=None)

    def route(
        self, model_name: str, version: str, client_id: bytes | None = None
    ) -> tuple[Served, int]:
        """Who answers, and the arm. ``client_id``: the client's own id (of the first row) in
        UTF-8, if it gave one; it matters only where the model's entry has a canary.

        NotServed if nobody answers, NotLoaded if somebody might, Quarantined if nobody may.
        """
        routes = self._routes
        if version:
            return _named_version(routes, model_name, version), ARM_PINNED
        entry = routes.entries.get(model_name)
        if entry is not None:
            return entry.route(client_id)
        refusal = routes.refusals.get(model_name)
        if refusal is not None:
            raise refusal.error()
        raise _unknown(routes, model_name)

    def swap(self, served: Served) -> Served | None:
        """Makes it the champion of its model; returns the one before."""
        name, version = _key(served)
        with self._changing:
            routes = self._routes
            before = routes.entries.get(name)
            plan = routes.plan.models.get(name, ModelPlan(name, 0))
            models = {**routes.plan.models, name: replace(plan, champion=version)}
            self._apply(
                replace(routes.plan, models=models), {**routes.versions, (name, version): served}
            )
        return None if before is None else before.served

    def drop(self, model_name: str) -> Served | None:
        """The model has no champion any longer."""
        with self._changing:
            routes = self._routes
            before = routes.entries.get(model_name)
            models = {name: each for name, each in routes.plan.models.items() if name != model_name}
            self._apply(replace(routes.plan, models=models), routes.versions)
        return None if before is None else before.served

    def pin(self, served: Served) -> Served | None:
        """Keeps a version for those who ask for it; returns the one that had to go."""
        key = _key(served)
        with self._changing:
            routes = self._routes
            others = [each for each in routes.plan.pinned if each != key]
            pinned = (*others, key)[-self._pinned_limit :] if self._pinned_limit else ()
            dropped = self._apply(
                replace(routes.plan, pinned=pinned), {**routes.versions, key: served}
            )
        return dropped[0] if dropped else None


def _key(served: Served) -> Key:
    return served.schema.model_name, served.schema.version


def _named_version(routes: Routes, model_name: str, version: str) -> Served:
    # One name per version: neither leading zeros nor another script's digits.
    if not (version.isascii() and version.isdecimal() and version[0] != "0" and len(version) < 10):
        raise NotServed(
            f"model {model_name[:128]!r}: expected a version number from 1, got {version[:32]!r}"
        )
    key = (model_name, int(version))
    reason = routes.quarantined.get(key)
    if reason is not None:
        raise held_back(*key, reason).error()
    served = routes.versions.get(key)
    if served is None:
        if model_name not in routes.plan.models:
            # Nobody is asked for a name that the registry has not told.
            raise _unknown(routes, model_name)
        raise NotLoaded(*key)
    return served


def _unknown(routes: Routes, model_name: str) -> NotServed:
    return NotServed(
        f"unknown model {model_name[:128]!r}: expected one of {_names(routes.entries)}"
    )


def _names(entries: Mapping[str, Entry]) -> str:
    names = sorted(entries)
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") or "none so far"
