"""Channels to other services: bounded messages, keepalive, and a deadline on every call."""

from collections.abc import Callable
from typing import Any

import grpc

from homeostat.channels import ChannelSecurity, open_channel
from homeostat_kit.grpc_server import MAX_MESSAGE_BYTES

_CALL_SECONDS = 10.0
# Artifacts and training sets come in streams, which last longer.
_STREAM_SECONDS = 300.0

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A peer that is restarted is there again within seconds; the default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


def connect(address: str, security: ChannelSecurity | None = None) -> grpc.aio.Channel:
    """A channel to "host:port"; calls without a timeout get 10 s, streams 300 s. Close it.

    Plain and without a token unless ``security`` says otherwise.
    """
    return open_channel(
        address,
        security or ChannelSecurity(),
        options=_OPTIONS,
        interceptors=[
            _UnaryUnary(_CALL_SECONDS),
            _UnaryStream(_STREAM_SECONDS),
            _StreamUnary(_STREAM_SECONDS),
            _StreamStream(_STREAM_SECONDS),
        ],
    )


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def _call(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        if details.timeout is None:
            details = grpc.aio.ClientCallDetails(
                details.method,
                self._seconds,
                details.metadata,
                details.credentials,
                details.wait_for_ready,
            )
        return await continuation(details, request)


class _UnaryUnary(_Deadline, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await self._call(continuation, details, request)


class _UnaryStream(_Deadline, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await self._call(continuation, details, request)


class _StreamUnary(_Deadline, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await self._call(continuation, details, requests)


class _StreamStream(_Deadline, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await self._call(continuation, details, requests)
