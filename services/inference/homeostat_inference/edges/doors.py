"""Every way in: gRPC, streams and HTTP, opened together and closed together."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc

from homeostat.inference.v1.truth_pb2 import RecordOutcomesRequest, RecordOutcomesResponse
from homeostat_inference.app.engine import MAX_RUN_ROWS
from homeostat_inference.app.inventory import Inventory
from homeostat_inference.app.serving import Table
from homeostat_inference.edges.errors import CODES
from homeostat_inference.edges.grpc_api import InferenceApi, ServerState
from homeostat_inference.edges.http_server import HttpServer
from homeostat_inference.edges.lane import AtOnce, Handle, Lane, Turns
from homeostat_inference.edges.rest import Rest, RestRules
from homeostat_inference.edges.roles import INFERENCE_SERVICE
from homeostat_inference.edges.streaming import Streams
from homeostat_inference.edges.transports import (
    MAX_STREAMS,
    Infer,
    Transport,
    open_transport,
)
from homeostat_kit.grpc_server import RunningServer, Security, serve


@dataclass(frozen=True, slots=True)
class DoorRules:
    """Where and how a server is reached."""

    transport: Literal["native", "grpcio"]
    grpc_address: str
    # None: no HTTP.
    http_address: str | None
    security: Security
    max_message_bytes: int
    max_json_bytes: int
    held_http_bytes: int
    request_timeout_seconds: float
    # Other processes listen on the same addresses.
    is_shared: bool = False
    # For sockets inside the process; None: a temporary one.
    socket_folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Behind:
    """What the doors lead to."""

    handle: Handle
    table: Table
    state: ServerState
    record: Callable[[RecordOutcomesRequest], Awaitable[RecordOutcomesResponse]]
    # Registers what else is served over gRPC, under these names.
    add: Callable[[grpc.aio.Server], None]
    service_names: Sequence[str]
    # Answer in the place of `handle`: what comes over gRPC, and what waits on the event loop.
    turns: Turns | None = None
    lane_turns: Turns | None = None


class Doors:
    """Open until `stop`."""

    def __init__(self, rules: DoorRules, behind: Behind) -> None:
        self._rules = rules
        self._behind = behind
        self._closing = AsyncExitStack()
        self._transport: Transport
        self._http: HttpServer | None = None
        # The grpc.aio server: all of gRPC, or what the native front passes on.
        self.server: RunningServer

    async def open(self) -> None:
        """Listens; OSError if an address is taken, after which nothing is open."""
        rules, behind = self._rules, self._behind
        if rules.transport == "native":
            # The server behind it, which warns otherwise, sees a Unix socket.
            rules.security.warn(rules.grpc_address)
        async with AsyncExitStack() as closing:
            self._lane = Lane(behind.lane_turns or AtOnce(behind.handle), "receive-loop")
            closing.push_async_callback(self._lane.close)
            self._inventory = Inventory(behind.table, max_run_rows=MAX_RUN_ROWS)
            if rules.http_address:
                self._http = await self._rest().open(rules.http_address, reuse_port=rules.is_shared)
                closing.push_async_callback(self._http.stop)
            self._transport = await open_transport(
                rules.transport,
                rules.grpc_address,
                behind.handle,
                self._serve,
                guard=rules.security.guard,
                is_shared=rules.is_shared,
                turns=behind.turns,
                folder=rules.socket_folder,
            )
            closing.push_async_callback(self._transport.stop)
            self._closing = closing.pop_all()

    @property
    def grpc_port(self) -> int:
        """The bound port."""
        return self._transport.port

    @property
    def http_port(self) -> int | None:
        """The bound port; None without HTTP."""
        return self._http.port if self._http else None

    async def stop(self) -> None:
        """Takes no more calls; those that were taken should have been answered before."""
        await self._closing.aclose()

    async def _serve(self, address: str, infer: Infer | None) -> RunningServer:
        rules, behind = self._rules, self._behind
        streams = Streams(self._lane, rules.request_timeout_seconds)
        api = InferenceApi(self._inventory, behind.state, streams)

        def add(server: grpc.aio.Server) -> None:
            server.add_generic_rpc_handlers((api.handlers(infer),))
            behind.add(server)

        self.server = await serve(
            address,
            add,
            errors=CODES,
            service_names=(INFERENCE_SERVICE, *behind.service_names),
            security=rules.security,
            options=self._options(),
        )
        return self.server

    def _options(self) -> tuple[tuple[str, Any], ...]:
        # Behind the native front the streams of all its connections are one connection's.
        is_behind = self._rules.transport == "native"
        return (
            ("grpc.so_reuseport", int(self._rules.is_shared)),
            ("grpc.max_receive_message_length", self._rules.max_message_bytes),
            *(() if is_behind else (("grpc.max_concurrent_streams", MAX_STREAMS),)),
        )

    def _rest(self) -> Rest:
        rules, behind = self._rules, self._behind
        return Rest(
            self._inventory,
            self._lane,
            behind.record,
            behind.state.is_ready,
            RestRules(
                max_body_bytes=rules.max_message_bytes,
                max_json_bytes=rules.max_json_bytes,
                held_bytes=rules.held_http_bytes,
                default_timeout_seconds=rules.request_timeout_seconds,
            ),
            rules.security,
        )
