"""The Open Inference Protocol over HTTP, and the truth beside it."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

import grpc
from google.protobuf import json_format

from homeostat.inference.v1.truth_pb2 import RecordOutcomesRequest, RecordOutcomesResponse
from homeostat.inference.v2.open_inference_pb2 import ModelInferResponse
from homeostat_inference.app.inventory import LOADING_IS_THE_REGISTRYS, Inventory
from homeostat_inference.domain.errors import InvalidInput, NotOffered, NotServed, TooLarge
from homeostat_inference.domain.json_messages import as_json
from homeostat_inference.domain.json_tensors import dumps, read_json, read_request, write_response
from homeostat_inference.edges.errors import status_of
from homeostat_inference.edges.http_server import (
    Answer,
    Asked,
    Bench,
    HttpServer,
    Timeout,
    Unreadable,
)
from homeostat_inference.edges.lane import Lane
from homeostat_inference.edges.roles import INFERENCE_SERVICE, TRUTH_SERVICE
from homeostat_kit.auth import Forbidden
from homeostat_kit.grpc_server import Security, is_loopback
from homeostat_kit.logs import get_logger

HEADER_LENGTH = "Inference-Header-Content-Length"
TIMEOUT = "X-Request-Timeout"
_BINARY = "application/octet-stream"
_MAX_TIMEOUT_SECONDS = 3600.0
_STATUS: Mapping[grpc.StatusCode, int] = MappingProxyType(
    {
        grpc.StatusCode.INVALID_ARGUMENT: 400,
        grpc.StatusCode.UNAUTHENTICATED: 401,
        grpc.StatusCode.PERMISSION_DENIED: 403,
        grpc.StatusCode.NOT_FOUND: 404,
        grpc.StatusCode.FAILED_PRECONDITION: 409,
        grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
        grpc.StatusCode.UNIMPLEMENTED: 501,
        grpc.StatusCode.UNAVAILABLE: 503,
        grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    }
)
# What HTTP has a status of its own for.
_STATUS_OF: Mapping[type[Exception], int] = MappingProxyType(
    {Unreadable: 400, Timeout: 408, TooLarge: 413}
)
_HEADERS: Mapping[int, Mapping[str, str]] = MappingProxyType(
    {
        401: {"WWW-Authenticate": "Bearer"},
        429: {"Retry-After": "1"},
        503: {"Retry-After": "1"},
    }
)
log = get_logger("homeostat_inference.rest")

Record = Callable[[RecordOutcomesRequest], Awaitable[RecordOutcomesResponse]]


class WrongMethod(Exception):
    """The path is served by another method than the one that was used."""

    def __init__(self, allowed: str) -> None:
        super().__init__(f"expected the method {allowed}")
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class RestRules:
    """Limits."""

    max_body_bytes: int
    # Of the JSON alone: read into Python it takes up to thirty times as much.
    max_json_bytes: int
    held_bytes: int
    default_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Rest:
    """Answers HTTP requests by the same parts as gRPC."""

    inventory: Inventory
    lane: Lane
    record: Record
    is_ready: Callable[[], bool]
    rules: RestRules
    security: Security
    bench: Bench = field(default_factory=Bench)
    # Only this machine reaches it.
    is_local: bool = False

    async def open(self, address: str, *, reuse_port: bool = False) -> HttpServer:
        """Listens on "host:port"; OSError if it is taken."""
        mine = replace(self, is_local=is_loopback(address))
        server = HttpServer(
            mine.require,
            mine.respond,
            refused,
            self.bench,
            max_body_bytes=self.rules.max_body_bytes,
            held_bytes=self.rules.held_bytes,
        )
        await server.start(address, self.security, reuse_port=reuse_port)
        return server

    def require(self, head: Asked) -> None:
        """Raises what is wrong with a head: a body may be long, and is anybody's until then."""
        self._require_own_page(head.headers)
        need = _need(_parts(head.path))
        if need is None:
            raise _nothing_at(head)
        if head.method != need.http_method and (head.method, need.http_method) != ("HEAD", "GET"):
            raise WrongMethod(need.http_method)
        guard = self.security.guard
        if guard is not None and need.call:
            guard.check(need.call, head.headers.get("Authorization"))

    async def respond(self, asked: Asked) -> Answer:
        """Answers what `require` let pass; raises what is wrong."""
        match _parts(asked.path):
            case ["v2", "models", model, "infer"]:
                return await self._infer(asked, model, "")
            case ["v2", "models", model, "versions", version, "infer"]:
                return await self._infer(asked, model, version)
            case ["v2", "homeostat", "outcomes"]:
                return await self._record(asked)
            case ["v2", "repository", "index"]:
                return self._index(asked)
            case ["v2", "repository", *_]:
                raise NotOffered(LOADING_IS_THE_REGISTRYS)
            case ["v2", *rest]:
                return self._look(asked, rest)
        raise _nothing_at(asked)

    def _look(self, asked: Asked, parts: list[str]) -> Answer:
        match parts:
            case []:
                return _found(as_json(self.inventory.server()))
            case ["health", what]:
                is_true = what == "live" or self.is_ready()
                return _told({what: is_true}, is_true=is_true)
            case ["models"]:
                return _found({"models": self.inventory.model_names})
            case ["models", "stats"]:
                return _found(as_json(self.inventory.statistics("", "")))
            case ["models", model, "versions", version, *rest]:
                return self._look_at(asked, model, version, rest)
            case ["models", model, *rest]:
                return self._look_at(asked, model, "", rest)
        raise _nothing_at(asked)

    def _look_at(self, asked: Asked, model: str, version: str, what: list[str]) -> Answer:
        match what:
            case []:
                return _found(as_json(self.inventory.model(model, version)))
            case ["ready"]:
                is_ready = self.inventory.is_ready(model, version)
                return _told({"name": model, "ready": is_ready}, is_true=is_ready)
            case ["config"]:
                found = self.inventory.config(model, version)
                return _found(as_json(found.config))
            case ["stats"]:
                return _found(as_json(self.inventory.statistics(model, version)))
        raise _nothing_at(asked)

    def _index(self, asked: Asked) -> Answer:
        told = read_json(asked.body) if asked.body else {}
        found = self.inventory.index(is_ready_only=told.get("ready") is True)
        return _found([as_json(each) for each in found.models])

    async def _infer(self, asked: Asked, model: str, version: str) -> Answer:
        text, tail = self._split(asked)
        told_seconds = _timeout(asked.headers)
        request = await self.bench.do(
            lambda: read_request(read_json(text), tail, model, version), len(asked.body)
        )
        seconds = min(
            told_seconds or self.rules.default_timeout_seconds,
            _parameter_seconds(request.message) or _MAX_TIMEOUT_SECONDS,
        )
        answered = await self.lane.ask(request.message.SerializeToString(), seconds)
        response = ModelInferResponse.FromString(answered)
        header, tails = await self.bench.do(
            lambda: write_response(response, request.wanted), len(answered)
        )
        if not tails:
            return Answer(header)
        return Answer(
            b"".join((header, *tails)),
            content_type=_BINARY,
            headers={HEADER_LENGTH: str(len(header))},
        )

    def _split(self, asked: Asked) -> tuple[bytes, memoryview]:
        """The JSON, and the bytes behind it."""
        told = asked.headers.get(HEADER_LENGTH)
        length = len(asked.body)
        if told is not None:
            if not (told.isascii() and told.isdecimal()) or not 0 < int(told[:20]) <= length:
                raise InvalidInput(
                    f"{HEADER_LENGTH}: expected the length of the JSON, from 1 to {length} "
                    f"(the body's), got {told[:32]!r}"
                )
            length = int(told[:20])
        if length > self.rules.max_json_bytes:
            raise TooLarge(
                f"expected JSON of at most {self.rules.max_json_bytes} bytes, got {length}; "
                "send tensors as binary data, or over gRPC"
            )
        return asked.body[:length], memoryview(asked.body)[length:]

    async def _record(self, asked: Asked) -> Answer:
        text, _ = self._split(asked)
        request = await self.bench.do(lambda: _outcomes(text), len(text))
        return _found(as_json(await self.record(request)))

    def _require_own_page(self, headers: Mapping[str, str]) -> None:
        """A page of somebody else's that is open in a browser must not predict, read, or tell
        truths.

        Where nothing but being on this machine lets callers in, the name that was called must be
        this machine's: one that its owner lets lead here would be its own origin, and browsers
        tell no origin of a page's requests to its own.
        """
        is_open = self.is_local and self.security.guard is None
        host = headers.get("Host", "")
        # Every browser names it.
        if is_open and host and not _is_local_name(host):
            raise Forbidden(
                f"{host[:128]!r} is no name of this machine: expected localhost or 127.0.0.1 in "
                "the header Host; set tokens_file to be reached by other names"
            )
        if "Origin" in headers and not _is_own(headers["Origin"], host, is_open=is_open):
            raise Forbidden("requests of pages from other origins are not answered")


@dataclass(frozen=True, slots=True)
class _Need:
    """What a path asks of a request. ``call``: whose role it needs; nothing where all may."""

    http_method: str
    call: str


_LOOKS: Mapping[str, str] = MappingProxyType(
    {
        "": "ModelMetadata",
        "ready": "ModelReady",
        "config": "ModelConfig",
        "stats": "ModelStatistics",
    }
)


def _parts(path: str) -> list[str]:
    return [unquote(each) for each in path.strip("/").split("/")]


def _need(parts: list[str]) -> _Need | None:
    """None where there is nothing."""
    if parts == ["v2", "homeostat", "outcomes"]:
        return _Need("POST", f"/{TRUTH_SERVICE}/RecordOutcomes")
    if parts in (["v2", "health", "live"], ["v2", "health", "ready"]):
        return _Need("GET", "")
    posted = _posted(parts)
    name = posted or _looked_at(parts)
    return _Need("POST" if posted else "GET", f"/{INFERENCE_SERVICE}/{name}") if name else None


def _posted(parts: list[str]) -> str:
    match parts:
        case ["v2", "models", _, "infer"] | ["v2", "models", _, "versions", _, "infer"]:
            return "ModelInfer"
        case ["v2", "repository", "index"]:
            return "RepositoryIndex"
        case ["v2", "repository", "models", _, "load" | "unload"]:
            return "RepositoryModelLoad"
    return ""


def _looked_at(parts: list[str]) -> str:
    match parts:
        case ["v2"]:
            return "ServerMetadata"
        case ["v2", "models"]:
            return "RepositoryIndex"
        case ["v2", "models", "stats"]:
            return "ModelStatistics"
        case ["v2", "models", _, "versions", _, *what] | ["v2", "models", _, *what]:
            return _LOOKS.get("/".join(what), "")
    return ""


def _nothing_at(asked: Asked) -> NotServed:
    return NotServed(f"there is nothing at {asked.path[:128]!r}; see /v2")


def _outcomes(text: bytes) -> RecordOutcomesRequest:
    try:
        return json_format.ParseDict(
            read_json(text), RecordOutcomesRequest(), max_recursion_depth=8
        )
    except (json_format.ParseError, SystemError) as error:
        # The latter is what half a surrogate pair in a field's name leads to.
        raise InvalidInput(f"expected outcomes: {str(error)[:500]}") from None


def _is_local_name(host: str) -> bool:
    """Of a header Host, perhaps with a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _is_own(origin: str, host: str, *, is_open: bool) -> bool:
    try:
        told = urlsplit(origin)
    except ValueError:
        return False
    return told.netloc == host and (not is_open or _is_local_name(host))


def _timeout(headers: Mapping[str, str]) -> float | None:
    told = headers.get(TIMEOUT)
    if told is None:
        return None
    try:
        seconds = float(told)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _MAX_TIMEOUT_SECONDS:
        raise InvalidInput(
            f"{TIMEOUT}: expected seconds, more than 0 and at most {_MAX_TIMEOUT_SECONDS:g}, "
            f"got {told[:32]!r}"
        )
    return seconds


def _parameter_seconds(message: Any) -> float | None:
    """Triton's clients send their timeout as a parameter, in microseconds."""
    if "timeout" not in message.parameters:
        return None
    told = message.parameters["timeout"]
    microseconds = told.int64_param or told.uint64_param
    return microseconds / 1e6 if microseconds > 0 else None


def _found(document: object) -> Answer:
    return Answer(dumps(document))


def _told(document: Mapping[str, Any], *, is_true: bool) -> Answer:
    """The protocol says no by a status of the four hundreds."""
    return Answer(dumps(document), status=200 if is_true else 400)


def refused(error: Exception) -> Answer:
    """The answer to a request that raised; texts of errors that nobody foresaw stay here."""
    status, text, headers = _refusal(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and text == "internal error":
        log.error("http_request_failed", error=repr(error))
    return Answer(dumps({"error": text}), status=status, headers=headers)


def _refusal(error: Exception) -> tuple[int, str, Mapping[str, str]]:
    if isinstance(error, WrongMethod):
        return 405, str(error), {"Allow": error.allowed}
    status = _STATUS_OF.get(type(error))
    if status is not None:
        return status, str(error), {}
    if isinstance(error, grpc.aio.AioRpcError):
        code, text = error.code(), error.details() or ""
    else:
        code, text = status_of(error)
    status = _STATUS.get(code, 500)
    seconds = getattr(error, "retry_after_seconds", None)
    if seconds is not None:
        # Whole seconds are all that this header knows.
        return status, text, {"Retry-After": str(max(1, math.ceil(seconds)))}
    return status, text, _HEADERS.get(status, {})
