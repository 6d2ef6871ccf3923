"""Which HTTP status says what went wrong, and what is said beside it."""

import json

import grpc
import pytest

from homeostat_inference.domain.errors import (
    DeadlineExceeded,
    InferenceError,
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
from homeostat_inference.edges.http_server import Timeout, Unreadable
from homeostat_inference.edges.rest import WrongMethod, refused
from homeostat_inference.edges.versions import RegistryAway
from homeostat_kit.auth import Forbidden, Unauthenticated

STATUSES: dict[type[Exception], int] = {
    InvalidInput: 400,
    Unreadable: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotServed: 404,
    WrongMethod: 405,
    Timeout: 408,
    WrongMode: 409,
    Quarantined: 409,
    TooLarge: 413,
    Overloaded: 429,
    NotKept: 429,
    ModelFailed: 500,
    NotOffered: 501,
    Leaving: 503,
    RegistryAway: 503,
    DeadlineExceeded: 504,
}


@pytest.mark.parametrize("kind", STATUSES)
def test_an_error_has_its_status_and_its_text(kind: type[Exception]) -> None:
    answer = refused(kind("the cure"))
    assert answer.status == STATUSES[kind]
    assert "the cure" in json.loads(answer.body)["error"]
    assert ("Retry-After" in answer.headers) == (answer.status in (429, 503))


def test_every_error_of_the_domain_is_in_the_table() -> None:
    assert set(InferenceError.__subclasses__()) <= set(STATUSES)


def test_a_text_that_nobody_foresaw_is_not_told() -> None:
    answer = refused(ValueError("postgresql://user:secret@host"))
    assert (answer.status, json.loads(answer.body)) == (500, {"error": "internal error"})


def test_when_to_come_back_is_told_in_whole_seconds() -> None:
    error = Overloaded("later")
    for seconds, told in ((0.02, "1"), (1.0, "1"), (2.3, "3")):
        error.retry_after_seconds = seconds
        assert refused(error).headers["Retry-After"] == told


def test_what_the_keeper_refused_is_passed_on() -> None:
    nothing = grpc.aio.Metadata()
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.NOT_FOUND, nothing, nothing, details="unknown model"
    )
    answer = refused(error)
    assert (answer.status, json.loads(answer.body)) == (404, {"error": "unknown model"})
