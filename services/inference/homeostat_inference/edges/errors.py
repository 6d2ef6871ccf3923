"""Which status code says what went wrong."""

from collections.abc import Mapping
from types import MappingProxyType

import grpc

from homeostat_inference.domain.errors import (
    DeadlineExceeded,
    InvalidInput,
    Leaving,
    ModelFailed,
    NotKept,
    NotOffered,
    NotServed,
    Overloaded,
    Quarantined,
    TooLarge,
    WrongMode,
)
from homeostat_inference.edges.versions import RegistryAway
from homeostat_kit.auth import Forbidden, Unauthenticated

# A status text travels in a header, and clients end the connection over one of more than 8 KiB.
_TEXT_CHARACTERS = 2000

CODES: Mapping[type[Exception], grpc.StatusCode] = MappingProxyType(
    {
        NotServed: grpc.StatusCode.NOT_FOUND,
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


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Code and text for the caller; errors that nobody foresaw keep their text to themselves."""
    code = CODES.get(type(error))
    if code is None:
        return grpc.StatusCode.INTERNAL, "internal error"
    return code, str(error)[:_TEXT_CHARACTERS]
