"""Which status code says what went wrong."""

from collections.abc import Mapping
from types import MappingProxyType

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration

from homeostat_inference.domain.errors import (
    DeadlineExceeded,
    InvalidInput,
    Leaving,
    ModelFailed,
    NotKept,
    NotOffered,
    NotServed,
    NotServedYet,
    Overloaded,
    Quarantined,
    TooLarge,
    WrongMode,
)
from homeostat_inference.domain.parts import varint
from homeostat_inference.edges.versions import RegistryAway
from homeostat_kit.auth import Forbidden, Unauthenticated

# A status text travels in a header, and clients end the connection over one of more than 8 KiB.
_TEXT_CHARACTERS = 2000

CODES: Mapping[type[Exception], grpc.StatusCode] = MappingProxyType(
    {
        NotServed: grpc.StatusCode.NOT_FOUND,
        NotServedYet: grpc.StatusCode.UNAVAILABLE,
        InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
        Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
        TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
        NotKept: grpc.StatusCode.RESOURCE_EXHAUSTED,
        WrongMode: grpc.StatusCode.FAILED_PRECONDITION,
        Quarantined: grpc.StatusCode.FAILED_PRECONDITION,
        Leaving: grpc.StatusCode.UNAVAILABLE,
        RegistryAway: grpc.StatusCode.UNAVAILABLE,
        Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
        Forbidden: grpc.StatusCode.PERMISSION_DENIED,
        DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
        NotOffered: grpc.StatusCode.UNIMPLEMENTED,
        ModelFailed: grpc.StatusCode.INTERNAL,
    }
)


# google.rpc.Status with one google.rpc.RetryInfo, in the header that clients look for it.
_DETAILS_KEY = "grpc-status-details-bin"
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
Metadata = tuple[tuple[str, bytes], ...]


def trailing_of(error: Exception) -> Metadata:
    """What is sent beside the status: when it may be worth while to try again, if that is known."""
    seconds = getattr(error, "retry_after_seconds", None)
    if seconds is None:
        return ()
    # Under load one error is told to very many.
    known: Metadata | None = error.__dict__.get(_DETAILS_KEY)
    if known is None:
        known = error.__dict__[_DETAILS_KEY] = _details(error, seconds)
    return known


def _details(error: Exception, seconds: float) -> Metadata:
    code, text = status_of(error)
    delay = Duration()
    delay.FromNanoseconds(int(seconds * 1e9))
    info = Any(type_url=_RETRY_INFO, value=_field(1, delay.SerializeToString()))
    status = (
        bytes((0x08, code.value[0]))
        + _field(2, text.encode())
        + _field(3, info.SerializeToString())
    )
    return ((_DETAILS_KEY, status),)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a serialized message."""
    return bytes((number << 3 | 2,)) + varint(len(content)) + content


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Code and text for the caller; errors that nobody foresaw keep their text to themselves."""
    code = CODES.get(type(error))
    if code is None:
        return grpc.StatusCode.INTERNAL, "internal error"
    return code, str(error)[:_TEXT_CHARACTERS]
