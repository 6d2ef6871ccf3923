"""Calls of other services, passed on to the keeper as they are."""

from collections.abc import Sequence
from typing import Any

import grpc

from homeostat_kit.grpc_server import MAX_MESSAGE_BYTES

# What the keeper serves behind the workers' door.
KEEPER_SERVICES = (
    "homeostat.inference.v1.TruthService",
    "homeostat.inference.v1.ServingService",
    "homeostat.progress.v1.ProgressService",
)
# Said anew on the way; whatever else the caller sent goes with the call.
_OWN_METADATA = frozenset(("user-agent", "content-type", "te"))
_OWN_PREFIXES = ("grpc-", ":")
_DEFAULT_SECONDS = 30.0


def keeper_channel(address: str) -> grpc.aio.Channel:
    """To the keeper's socket. Close it."""
    return grpc.aio.insecure_channel(
        address,
        options=(
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 500),
            # A Unix socket has no name; without one the path would be said.
            ("grpc.default_authority", "keeper"),
        ),
    )


class PassedOn(grpc.GenericRpcHandler):
    """Hands unary calls of some services on: bytes in, bytes out, with deadline, metadata, status
    and trailing metadata."""

    def __init__(self, channel: grpc.aio.Channel, services: Sequence[str]) -> None:
        self._channel = channel
        self._prefixes = tuple(f"/{each}/" for each in services)

    def service(self, handler_call_details: Any) -> Any:
        """A handler for methods of these services; the keeper knows which there are."""
        method = handler_call_details.method
        if not method.startswith(self._prefixes):
            return None
        call: Any = self._channel.unary_unary(method)

        async def pass_on(request: bytes, context: Any) -> bytes:
            left = context.time_remaining()
            try:
                passed = call(
                    request,
                    timeout=_DEFAULT_SECONDS if left is None else left,
                    metadata=_passable(context.invocation_metadata()),
                )
                answer: bytes = await passed
                context.set_trailing_metadata(_passable(await passed.trailing_metadata()))
            except grpc.aio.AioRpcError as error:
                await context.abort(
                    error.code(), error.details() or "", _passable(error.trailing_metadata())
                )
            return answer

        return grpc.unary_unary_rpc_method_handler(pass_on)


def _passable(metadata: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (key, value)
        for key, value in metadata or ()
        if key not in _OWN_METADATA and not key.startswith(_OWN_PREFIXES)
    )
