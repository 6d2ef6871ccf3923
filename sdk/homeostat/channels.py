"""Channels to services: plain or TLS, with a bearer token where one is given."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc

from homeostat.errors import HomeostatError

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
TOKEN_VARIABLE = "HOMEOSTAT_TOKEN"  # noqa: S105 - the name of a variable
CA_VARIABLE = "HOMEOSTAT_TLS_CA_FILE"
CERTIFICATE_VARIABLE = "HOMEOSTAT_TLS_CERTIFICATE_FILE"
KEY_VARIABLE = "HOMEOSTAT_TLS_KEY_FILE"
# "1" where something else keeps strangers from listening: a private network, a proxy beside us.
CLEAR_VARIABLE = "HOMEOSTAT_ALLOW_CLEAR_TOKEN"


class UnusableSecurity(HomeostatError, ValueError):
    """A certificate or key can't be used; the message names the file and the cure."""


@dataclass(frozen=True, slots=True)
class ChannelSecurity:
    """How a client shows who it is, and how it knows the server.

    TLS is spoken if ``ca_file`` is given. ``certificate_file`` and ``key_file`` are the client's
    own, for servers that ask for one.
    """

    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            raise UnusableSecurity("a client's certificate and its key are given both, or neither")
        if self.certificate_file is not None and self.ca_file is None:
            raise UnusableSecurity(
                "a client's certificate needs TLS: name the authority that signed the server's too"
            )

    @staticmethod
    def from_environment(environment: Mapping[str, str] | None = None) -> "ChannelSecurity":
        """What ``HOMEOSTAT_TOKEN``, ``HOMEOSTAT_TLS_CA_FILE``, ``HOMEOSTAT_TLS_CERTIFICATE_FILE``
        and ``HOMEOSTAT_TLS_KEY_FILE`` say; empty means absent."""
        told = os.environ if environment is None else environment

        def path(name: str) -> Path | None:
            return Path(told[name]) if told.get(name) else None

        return ChannelSecurity(
            token=told.get(TOKEN_VARIABLE) or None,
            ca_file=path(CA_VARIABLE),
            certificate_file=path(CERTIFICATE_VARIABLE),
            key_file=path(KEY_VARIABLE),
        )

    def credentials(self) -> grpc.ChannelCredentials | None:
        """For TLS, read from the files now; None for a plain channel."""
        if self.ca_file is None:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_content(self.ca_file),
            private_key=_content(self.key_file) if self.key_file else None,
            certificate_chain=_content(self.certificate_file) if self.certificate_file else None,
        )

    def interceptors(self) -> list[grpc.aio.ClientInterceptor]:
        """Show the token with every call; none without one."""
        if self.token is None:
            return []
        value = f"Bearer {self.token}"
        return [_UnaryUnary(value), _UnaryStream(value), _StreamUnary(value), _StreamStream(value)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableSecurity(f"{path} can't be read: {error.strerror}") from error


def open_channel(
    address: str,
    security: ChannelSecurity | None = None,
    *,
    options: Sequence[tuple[str, Any]] = CHANNEL_OPTIONS,
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> grpc.aio.Channel:
    """A channel to "host:port"; without ``security``, what the environment says. Close it.

    UnusableSecurity if a token would go to another machine without TLS, unless the environment
    says ``HOMEOSTAT_ALLOW_CLEAR_TOKEN=1``.
    """
    security = ChannelSecurity.from_environment() if security is None else security
    _require_private(address, security)
    wraps = [*interceptors, *security.interceptors()]
    credentials = security.credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=list(options), interceptors=wraps)
    return grpc.aio.secure_channel(address, credentials, options=list(options), interceptors=wraps)


def _require_private(address: str, security: ChannelSecurity) -> None:
    is_told = security.token is not None and security.ca_file is None
    if is_told and not _is_this_machine(address) and os.environ.get(CLEAR_VARIABLE) != "1":
        raise UnusableSecurity(
            f"{address}: the token would go there in clear, for everybody on the way to read; "
            f"cure: TLS ({CA_VARIABLE}, or PEER_CA_FILE of a service), or {CLEAR_VARIABLE}=1 where "
            "the network is private"
        )


def _is_this_machine(address: str) -> bool:
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.removeprefix("dns:///").rpartition(":")[0].strip("[]")
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class _Bearer:
    """Adds the token; not call credentials, which a plain channel (loopback) would refuse."""

    def __init__(self, value: str) -> None:
        self._value = value

    async def _call(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        if metadata.get("authorization") is None:
            metadata.add("authorization", self._value)
        details = grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )
        return await continuation(details, request)


class _UnaryUnary(_Bearer, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await self._call(continuation, details, request)


class _UnaryStream(_Bearer, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await self._call(continuation, details, request)


class _StreamUnary(_Bearer, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await self._call(continuation, details, requests)


class _StreamStream(_Bearer, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await self._call(continuation, details, requests)
