"""Who calls, and whether they may: bearer tokens with roles, checked before every method."""

import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import grpc

from homeostat.tokens import Role, TokenEntry, UnusableTokens, digest_of, read_tokens
from homeostat_kit.watched import Watched

_SCHEME = "bearer "
_HEALTH = "/grpc.health.v1.Health/"
_REFLECTION = "/grpc.reflection."

_caller: ContextVar[str | None] = ContextVar("homeostat_caller", default=None)


class Unauthenticated(Exception):
    """No token, or one that is not in the file."""


class Forbidden(Exception):
    """The token lacks the role that the message names."""


def caller_name() -> str | None:
    """The name of the token behind the call in hand; None where no tokens are asked for."""
    return _caller.get()


# Full method path to the role that it needs; None where everybody may.
Roles = Mapping[str, Role | None]
_OPEN = "open"


def roles_of(service: str, **methods: Iterable[str]) -> dict[str, Role | None]:
    """A table for `Guard`: role=["Method", ...] of the service with this full name; the methods
    named under ``open`` ask for no token."""
    return {
        f"/{service}/{method}": None if role == _OPEN else Role(role)
        for role, names in methods.items()
        for method in names
    }


class Guard:
    """Says who may call what. A method that is in no table is for admins alone; health is open."""

    def __init__(self, tokens_file: Path, roles: Roles) -> None:
        """UnusableTokens if the file is none; later changes of it are taken over in a second."""
        self._roles = dict(roles)
        self._tokens = Watched(
            [tokens_file], lambda: _by_digest(tokens_file), unusable=UnusableTokens
        )

    def check(self, method: str, authorization: str | bytes | None) -> str | None:
        """The caller's name; None where the method is open. Unauthenticated or Forbidden."""
        if method.startswith(_HEALTH):
            return None
        role = Role.READ if method.startswith(_REFLECTION) else self._roles.get(method, Role.ADMIN)
        if role is None:
            return None
        entry = self._entry(authorization)
        if not entry.may(role):
            raise Forbidden(
                f"the token {entry.name!r} lacks the role {role.value!r}, which {method} needs"
            )
        return entry.name

    def _entry(self, authorization: str | bytes | None) -> TokenEntry:
        told = (
            authorization.decode("latin-1") if isinstance(authorization, bytes) else authorization
        )
        if not told or not told[: len(_SCHEME)].lower() == _SCHEME:
            raise Unauthenticated(
                "expected `authorization: Bearer TOKEN`; "
                "`homeostat token new` makes a token, HOMEOSTAT_TOKEN gives it to our clients"
            )
        digest = digest_of(told[len(_SCHEME) :].strip())
        # Found by a hash that nobody can steer; compared once more without telling by its time.
        entry = self._tokens.now().get(digest)
        if entry is None or not hmac.compare_digest(entry.digest, digest):
            raise Unauthenticated("the token is not known here")
        return entry


def _by_digest(tokens_file: Path) -> Mapping[bytes, TokenEntry]:
    return {each.digest: each for each in read_tokens(tokens_file)}


class Guarding(grpc.aio.ServerInterceptor):
    """Puts a guard before every method of a server, of unknown ones too."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        try:
            name = self._guard.check(
                handler_call_details.method, _authorization(handler_call_details)
            )
        except Unauthenticated as error:
            return _refusing(grpc.StatusCode.UNAUTHENTICATED, str(error))
        except Forbidden as error:
            return _refusing(grpc.StatusCode.PERMISSION_DENIED, str(error))
        # A call is a task of its own, so the name stays with it.
        _caller.set(name)
        return await continuation(handler_call_details)


def _authorization(details: grpc.HandlerCallDetails) -> str | bytes | None:
    for name, value in details.invocation_metadata or ():
        if name == "authorization":
            return value
    return None


def _refusing(code: grpc.StatusCode, text: str) -> Any:
    """Of the widest kind: it answers before it has read a message, so none is waited for."""

    async def refuse(_: Any, context: Any) -> None:
        await context.abort(code, text)

    return grpc.stream_stream_rpc_method_handler(refuse)
