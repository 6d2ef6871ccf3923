"""Taking calls in: whose they are, whether they fit, whether there is room for them."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import random

import numpy as np

from homeostat.inference.v2.open_inference_pb2 import ModelInferRequest
from homeostat_inference.app.ports import Call, Clock
from homeostat_inference.app.routing import Split
from homeostat_inference.app.serving import NotLoaded, Served, Table
from homeostat_inference.app.waiting import Waiting
from homeostat_inference.domain.errors import InferenceError, InvalidInput, TooLarge
from homeostat_inference.domain.layouts import MAX_BYTES, Layout, Layouts, learn
from homeostat_inference.domain.parts import part_of
from homeostat_inference.domain.requests import CheckedRequest, check
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array
from homeostat_inference.domain.times import TimeBounds

# What the broker takes as one record, with room for its own framing.
MAX_BLOCK_BYTES = 15 * 1024 * 1024
# Event time, client key, score, decision and latency of one row.
ROW_OVERHEAD_BYTES = 8 + 16 + 8 + 8 + 4

Groups = dict[Served, list[Waiting]]


@dataclass(frozen=True, slots=True)
class Rules:
    """How calls are treated, for the life of the process."""

    max_message_bytes: int
    client_key_secret: bytes
    # What the answers say: "durable", "fast" or "sampled".
    durability: str
    # For calls that bring no deadline.
    request_timeout_seconds: float = 10.0
    # What ends a run; batches are made so that they need a part of it.
    run_limit_seconds: float = 5.0
    # "sampled": of the requests, the share that is kept.
    sample_share: float = 1.0
    # Whether requests are answered although they can't be kept.
    sheds_when_full: bool = False


@dataclass(slots=True)
class Intake:
    """Reads calls. Those that it can't take it fails, and those whose version has to be fetched
    first it hands over; may be called from several threads."""

    table: Table
    clock: Clock
    rules: Rules
    # Bounds for times now.
    times: Callable[[int], TimeBounds]
    fetch: Callable[[Call, NotLoaded], None]
    fail: Callable[[Call, Exception], None]
    _layouts: Layouts = field(default_factory=Layouts)
    _learned: int = 0
    # Held while layouts are looked through or learned.
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sample: Split = field(init=False)

    def __post_init__(self) -> None:
        self._sample = Split.of("homeostat.sample", 0, self.rules.sample_share)

    def read(self, calls: Sequence[Call]) -> Groups:
        """Requests by the version that answers them."""
        now_us = self.clock.now_us()
        times = self.times(now_us)
        by_length: dict[int, list[Call]] = {}
        for call in calls:
            length = len(call.payload)
            same = by_length.get(length)
            if same is None:
                by_length[length] = [call]
            else:
                same.append(call)
        turn = _Turn(self, now_us, times)
        with self._lock:
            for length, group in by_length.items():
                turn.read(length, group)
        return turn.groups

    @property
    def layouts_count(self) -> int:
        """Layouts known now."""
        return self._layouts.count

    @property
    def learned_count(self) -> int:
        """Layouts learned since the start."""
        return self._learned

    def is_logged(self, client_id: bytes | None) -> bool:
        """Whether a request of this client goes into the journal."""
        if self.rules.durability != "sampled":
            return True
        return self._sample.takes(client_id) if client_id else random() < self.rules.sample_share

    def deadlines_ns(self, calls: Sequence[Call]) -> tuple[int, int]:
        """Of these calls, the first deadline and the last."""
        allowed_ns = int(self.rules.request_timeout_seconds * 1e9)
        found = [each.deadline_ns or each.received_ns + allowed_ns for each in calls]
        return min(found), max(found)


@dataclass(slots=True)
class _Turn:
    """One reading of calls."""

    _intake: Intake
    _now_us: int
    _times: TimeBounds
    groups: Groups = field(default_factory=dict)
    _has_learned: bool = False

    def read(self, length: int, calls: list[Call]) -> None:
        limit = self._intake.rules.max_message_bytes
        if length > limit:
            for call in calls:
                self._intake.fail(
                    call, TooLarge(f"expected a message of at most {limit} bytes, got {length}")
                )
            return
        layouts = self._intake._layouts
        for layout in tuple(layouts.of(length)):
            calls = self._by_layout(layout, calls)
            if not calls:
                return
        for call in calls:
            try:
                self._by_parsing(call)
            except NotLoaded as missing:
                self._intake.fetch(call, missing)
            except Exception as error:
                self._intake.fail(call, error)

    def _by_layout(self, layout: Layout, calls: list[Call]) -> list[Call]:
        """Takes the calls that have this layout; gives back the others."""
        payloads = [each.payload for each in calls]
        stack = layout.stack(payloads)
        good = layout.matches(stack)
        others: list[Call] = []
        if good is not None:
            calls, stack, others = _split(calls, stack, good)
        if calls:
            fine = layout.in_time(stack, self._times)
            if fine is not None:
                calls, stack, late = _split(calls, stack, fine)
                others += late
        if calls and not self._route(layout, calls, stack):
            others += calls
        return others

    def _route(self, layout: Layout, calls: list[Call], stack: Array) -> bool:
        """False if the long way has to be gone, be it to say what is wrong."""
        intake = self._intake
        table = intake.table
        entry = None if layout.model_version else table.entries.get(layout.model_name)
        try:
            if entry is not None and entry.canary is not None:
                return self._route_one_by_one(layout, calls, stack)
            served, arm = (
                (entry.served, entry.arm)
                if entry is not None
                else table.route(layout.model_name, layout.model_version)
            )
        except (InferenceError, NotLoaded):
            return False
        if not layout.fits(served.schema):
            intake._layouts.forget(layout)
            return False
        self._take(layout, served, arm, calls, stack)
        return True

    def _route_one_by_one(self, layout: Layout, calls: list[Call], stack: Array) -> bool:
        """Where some of the clients are a canary's."""
        table = self._intake.table
        clients = layout.clients([each.payload for each in calls]) or [b""] * len(calls)
        ways: dict[tuple[Served, int], list[int]] = {}
        for index, client in enumerate(clients):
            way = table.route(layout.model_name, layout.model_version, client or None)
            ways.setdefault(way, []).append(index)
        if not all(layout.fits(served.schema) for served, _ in ways):
            return False
        for (served, arm), indexes in ways.items():
            self._take(layout, served, arm, [calls[at] for at in indexes], stack[indexes])
        return True

    def _take(
        self, layout: Layout, served: Served, arm: int, calls: list[Call], stack: Array
    ) -> None:
        intake = self._intake
        admitted = served.admit(layout.rows, layout.length, len(calls), self._now_us)
        if admitted < len(calls):
            _turn_away(intake, served, calls[admitted:])
            calls, stack = calls[:admitted], stack[:admitted]
        if not admitted:
            return
        if intake.rules.durability != "sampled":
            self._add(layout, served, arm, calls, stack, is_logged=True)
            return
        clients = layout.clients([each.payload for each in calls]) or [b""] * len(calls)
        logged = np.array([intake.is_logged(each) for each in clients])
        kept, kept_stack, rest = _split(calls, stack, logged)
        if kept:
            self._add(layout, served, arm, kept, kept_stack, is_logged=True)
        if rest:
            self._add(layout, served, arm, rest, stack[~logged], is_logged=False)

    def _add(
        self,
        layout: Layout,
        served: Served,
        arm: int,
        calls: list[Call],
        stack: Array,
        *,
        is_logged: bool,
    ) -> None:
        try:
            part = layout.part(calls, stack, [each.payload for each in calls], served.schema)
        except Exception as error:
            served.release(layout.rows, layout.length, len(calls), self._now_us)
            for call in calls:
                self._intake.fail(call, error)
            return
        first_ns, last_ns = self._intake.deadlines_ns(calls)
        waiting = Waiting(part, arm, self._now_us, first_ns, last_ns, is_logged)
        self.groups.setdefault(served, []).append(waiting)

    def _by_parsing(self, call: Call) -> None:
        intake = self._intake
        payload = call.payload
        try:
            message = ModelInferRequest.FromString(payload)
        except Exception:
            raise InvalidInput("expected a serialized ModelInferRequest, got other bytes") from None
        served, arm = self._routed(message)
        schema = served.schema
        if served.is_full:
            _turn_away(intake, served, [call])
            return
        request = check(message, schema, self._times)
        check_block_bytes(request, schema, len(payload))
        # An empty message fits no signature, so its size is not 0.
        if not served.admit(request.rows, len(payload), 1, self._now_us):
            _turn_away(intake, served, [call])
            return
        try:
            self._learn(payload, message, request, schema)
            part = part_of(call, request, schema, len(payload))
        except Exception:
            served.release(request.rows, len(payload), 1, self._now_us)
            raise
        client = part.client_ids[0] if part.client_ids else None
        first_ns, last_ns = intake.deadlines_ns([call])
        waiting = Waiting(part, arm, self._now_us, first_ns, last_ns, intake.is_logged(client))
        self.groups.setdefault(served, []).append(waiting)

    def _routed(self, message: ModelInferRequest) -> tuple[Served, int]:
        table = self._intake.table
        name, version = message.model_name, message.model_version
        entry = None if version else table.entries.get(name)
        if entry is None or entry.canary is None:
            return table.route(name, version)
        # Whose request it is says who answers.
        request = check(message, entry.served.schema, self._times)
        return table.route(
            name, version, request.client_ids[0].encode() if request.client_ids else None
        )

    def _learn(
        self, payload: bytes, message: ModelInferRequest, request: CheckedRequest, schema: Schema
    ) -> None:
        """At most one layout in a turn: learning takes longer than reading one request."""
        layouts = self._intake._layouts
        if self._has_learned or len(payload) > MAX_BYTES:
            return
        if not layouts.is_worth_learning(len(payload)):
            return
        layout = learn(payload, message, request, schema)
        if layout is not None:
            self._has_learned = True
            layouts.add(layout)
            self._intake._learned += 1


def _split(calls: list[Call], stack: Array, good: Array) -> tuple[list[Call], Array, list[Call]]:
    """The good ones with their payloads, and the others."""
    flags = good.tolist()
    return (
        [call for call, is_good in zip(calls, flags, strict=True) if is_good],
        stack[good],
        [call for call, is_good in zip(calls, flags, strict=True) if not is_good],
    )


def _turn_away(intake: Intake, served: Served, calls: Sequence[Call]) -> None:
    served.tally.refused += len(calls)
    error = served.overloaded()
    for call in calls:
        intake.fail(call, error)


def check_block_bytes(request: CheckedRequest, schema: Schema, payload_bytes: int) -> None:
    """A request's rows stay together in one record, and the broker takes none beyond a limit."""
    expected = expected_bytes(schema, request.rows, payload_bytes)
    if expected > MAX_BLOCK_BYTES:
        raise TooLarge(
            f"model {schema.model_name!r}: expected a request whose record has at most "
            f"{MAX_BLOCK_BYTES} bytes, got {request.rows} rows that make about {expected}; "
            "send fewer rows at once"
        )


def expected_bytes(schema: Schema, rows: int, payload_bytes: int) -> int:
    """What a request takes in a block, without the text of its outputs."""
    inputs = max(payload_bytes, rows * schema.input_row_bytes)
    return inputs + rows * (ROW_OVERHEAD_BYTES + schema.output_row_bytes)
