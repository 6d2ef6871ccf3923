"""A gRPC server with health, reflection, and one place where errors become status codes."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from homeostat_kit import logs
from homeostat_kit.auth import Guard, Guarding, Roles
from homeostat_kit.tls import TlsFiles, grpc_credentials, require_usable

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# A status text travels in a header, and clients end the connection over one of more than 8 KiB.
_TEXT_CHARACTERS = 2000
Errors = Mapping[type[Exception], grpc.StatusCode]

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Two services on one port would silently share its calls.
    ("grpc.so_reuseport", 0),
    # Clients ping every 20 s (grpc_client); the default limit would end their connections.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

_log = logs.get_logger("homeostat_kit.grpc")


@dataclass(frozen=True, slots=True)
class Security:
    """How a server shows who it is, and whom it lets in; as it stands, everybody."""

    tls: TlsFiles | None = None
    guard: Guard | None = None

    @staticmethod
    def of(tls: TlsFiles | None, tokens_file: Path | None, roles: Roles) -> "Security":
        """From settings and the service's table of methods; UnusableTokens if that file is none."""
        return Security(tls, None if tokens_file is None else Guard(tokens_file, roles))

    def require_usable(self) -> None:
        """UnusableCertificate before anything listens, where others will listen later."""
        if self.tls is not None:
            require_usable(self.tls)

    def warn(self, address: str) -> None:
        """Says so in the log, with the cure, if strangers can reach ``address`` and would be let
        in, or could listen."""
        lacks = [
            what
            for what, is_there in (
                ("TLS (tls_certificate_file, tls_key_file)", self.tls is not None),
                ("tokens (tokens_file)", self.guard is not None),
            )
            if not is_there
        ]
        if lacks and not is_loopback(address):
            _log.warning("door_is_open", address=address, cure=f"set {' and '.join(lacks)}")


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches "host:port" or "unix:path"."""
    host = address.rpartition(":")[0].strip("[]")
    if address.startswith("unix:") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class RunningServer:
    """A server that has been started."""

    def __init__(self, server: grpc.aio.Server, address: str, health: Any) -> None:
        self.server = server
        # With the port that was bound, where 0 was asked for.
        self.address = address
        self._health = health

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self.address.rpartition(":")[2])

    async def tell_health(self, service_name: str, *, is_serving: bool) -> None:
        """What health says of one service from now on."""
        status = health_pb2.HealthCheckResponse
        await self._health.set(service_name, status.SERVING if is_serving else status.NOT_SERVING)

    async def stop(self, grace: float | None = 3.0) -> None:
        """Says NOT_SERVING, takes no new calls, and gives those under way ``grace`` seconds."""
        await self._health.enter_graceful_shutdown()
        await self.server.stop(grace)

    async def wait_for_termination(self) -> None:
        """Returns when the server was stopped."""
        await self.server.wait_for_termination()

    async def __aenter__(self) -> "RunningServer":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


async def serve(
    address: str,
    add: Callable[[grpc.aio.Server], None],
    *,
    errors: Errors,
    service_names: Sequence[str],
    security: Security | None = None,
    options: Sequence[tuple[str, Any]] = (),
) -> RunningServer:
    """Starts a server on ``address`` ("127.0.0.1:0" takes a free port) with what ``add`` registers.

    ``errors`` maps exceptions of the domain to status codes and sends their text; any other one is
    logged, and answered INTERNAL without its text. ``options`` of gRPC win over the kit's. OSError
    if the address is taken, UnusableCertificate if the certificate can't be used.
    """
    security = security or Security()
    guarding = [] if security.guard is None else [Guarding(security.guard)]
    server = grpc.aio.server(
        interceptors=[*guarding, _ErrorMapping(errors)],
        options=tuple({**dict(_OPTIONS), **dict(options)}.items()),
    )
    add(server)
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection(
        [
            *service_names,
            health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
            reflection.SERVICE_NAME,
        ],
        server,
    )
    port = _listen(server, address, security)
    await server.start()
    for name in ("", *service_names):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    return RunningServer(server, f"{address.rpartition(':')[0]}:{port}", health)


def _listen(server: grpc.aio.Server, address: str, security: Security) -> int:
    security.warn(address)
    credentials = None if security.tls is None else grpc_credentials(security.tls)
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise OSError(f"{address} cannot be listened on") from error


class _ErrorMapping(grpc.aio.ServerInterceptor):
    """Wraps every method, so that none needs a ``try`` of its own."""

    def __init__(self, errors: Errors) -> None:
        self._errors = dict(errors)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        if handler.unary_unary:
            return _replaced(handler, unary_unary=self._unary(handler.unary_unary, method))
        if handler.stream_unary:
            return _replaced(handler, stream_unary=self._unary(handler.stream_unary, method))
        if handler.unary_stream:
            return _replaced(handler, unary_stream=self._stream(handler.unary_stream, method))
        return _replaced(handler, stream_stream=self._stream(handler.stream_stream, method))

    def _unary(self, call: Any, method: str) -> Any:
        async def mapped(request: Any, context: Any) -> Any:
            try:
                answer = await call(request, context)
            except Exception as error:
                await self._abort(error, context, method)
            else:
                if answer is None:
                    # grpc would answer OK and empty.
                    await self._abort(TypeError("the method returned nothing"), context, method)
                return answer

        return mapped

    def _stream(self, call: Any, method: str) -> Any:
        async def mapped(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                async for answer in call(request, context):
                    yield answer
            except Exception as error:
                await self._abort(error, context, method)

        return mapped

    async def _abort(self, error: Exception, context: Any, method: str) -> None:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        code = self._code(error)
        if code is None:
            _log.exception("call_failed", method=method, error=repr(error))
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")
        else:
            await context.abort(code, str(error)[:_TEXT_CHARACTERS])

    def _code(self, error: Exception) -> grpc.StatusCode | None:
        for kind in type(error).__mro__:
            if kind in self._errors:
                return self._errors[kind]
        if isinstance(error, asyncio.TimeoutError):
            return grpc.StatusCode.DEADLINE_EXCEEDED
        return None


def _replaced(handler: Any, **method: Any) -> Any:
    ((kind, call),) = method.items()
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(call, handler.request_deserializer, handler.response_serializer)
