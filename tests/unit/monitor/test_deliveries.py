"""Deliveries: signatures, pauses, addresses; who hears of what."""

import base64
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Verifier

from homeostat_monitor.domain.alerts.deliveries import (
    Answer,
    UnusableSecret,
    keys_of,
    outcome_of,
    signed_headers,
)
from homeostat_monitor.domain.alerts.hosts import AllowedHosts, BadHosts

KEY = base64.b64encode(bytes(range(32))).decode()
DATE = "Mon, 23 Nov 2026 12:00:00 GMT"


def outcome(answer: Answer, *, tries: int = 1, age: float = 0.0, jitter: float = 0.5):
    return outcome_of(
        answer, tries=tries, age_seconds=age, give_up_seconds=259_200.0, jitter=jitter
    )


def test_pauses_grow_from_seconds_to_hours_and_no_further() -> None:
    pauses = [outcome(Answer(500), tries=each).retry_seconds for each in range(1, 12)]
    assert pauses[:3] == [5.0, 15.0, 45.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 21_600.0


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 10_000))
def test_a_pause_is_never_short_and_never_without_end(jitter: float, tries: int) -> None:
    found = outcome(Answer(None, "away"), tries=tries, jitter=jitter)
    assert 3.75 <= found.retry_seconds <= 27_000


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("120", 120.0),
        ("Mon, 23 Nov 2026 12:10:00 GMT", 600.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 5.0),
        ("99999999999", 86_400.0),
        ("-5", 5.0),
        ("soon", 5.0),
        ("", 5.0),
        ("9" * 400, 86_400.0),
    ],
)
def test_what_a_receiver_asks_for_is_honoured_within_a_day(said: str, seconds: float) -> None:
    assert outcome(Answer(429, retry_after=said, date=DATE)).retry_seconds == seconds


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_only_2xx_is_a_delivery(status: int) -> None:
    assert outcome(Answer(status)).is_delivered


@pytest.mark.parametrize("status", [100, 301, 302, 308, 400, 401, 404, 410, 500, None])
def test_everything_else_is_none(status: int | None) -> None:
    assert not outcome(Answer(status, "away" if status is None else "")).is_delivered


def test_after_three_days_it_is_given_up() -> None:
    assert outcome(Answer(500), tries=20, age=250_000.0).is_given_up
    assert not outcome(Answer(500), tries=1, age=0.0).is_given_up


@pytest.mark.parametrize(
    "text",
    ["", "\n# nothing\n", "secret", "whsec_", "whsec_YQ==", KEY, "whsec_!!!", f"whsec_{KEY}\n" * 9],
)
def test_a_file_that_holds_no_key_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(UnusableSecret) as caught:
        keys_of(text, "pager")
    assert KEY not in str(caught.value)
    assert "cure" in str(caught.value)


@given(st.binary(max_size=200), st.integers(1, 3))
def test_what_is_signed_holds_by_somebody_elses_code(body: bytes, count: int) -> None:
    secrets = ["whsec_" + base64.b64encode(bytes([each]) * 24).decode() for each in range(count)]
    text = "{}" if not body else '{"a":"' + body.hex() + '"}'
    import time  # noqa: PLC0415

    headers = signed_headers(
        keys_of("\n".join(secrets), "s"), "msg_1", math.floor(time.time()), text.encode()
    )
    for secret in secrets:
        Verifier(secret).verify(text, dict(headers))


@pytest.mark.parametrize(
    ("hosts", "url", "address", "may"),
    [
        ("hooks.example.com", "https://hooks.example.com/", "10.0.0.7", True),
        ("hooks.example.com", "https://hooks.example.com/", "169.254.169.254", False),
        ("*.example.com", "https://a.example.com/", "10.0.0.7", False),
        ("*.example.com", "https://a.example.com/", "127.0.0.1", False),
        ("*.example.com", "https://a.example.com/", "93.184.215.14", True),
        ("*", "https://a.example.com/", "::ffff:10.0.0.7", False),
        ("*", "https://a.example.com/", "64:ff9b::a00:7", False),
        ("*", "https://a.example.com/", "2002:a00:7::1", False),
        ("*", "https://a.example.com/", "::1", False),
        ("*", "https://a.example.com/", "no address", False),
        ("localhost", "http://localhost:8080/", "127.0.0.1", True),
    ],
)
def test_a_name_may_stand_for_what_the_operator_meant(
    hosts: str, url: str, address: str, may: bool
) -> None:
    assert AllowedHosts.parse(hosts).may_reach(url, address) is may


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/latest", "https://10.0.0.7/", "https://[::1]/", "https://127.0.0.1/"],
)
def test_under_a_wildcard_an_internal_address_is_refused_when_it_is_set(url: str) -> None:
    assert AllowedHosts.parse("*, http://*").refusal(url) is not None


def test_a_port_that_the_operator_named_is_the_only_one() -> None:
    hosts = AllowedHosts.parse("hooks.example.com:8443")
    assert hosts.refusal("https://hooks.example.com:8443/") is None
    assert hosts.refusal("https://hooks.example.com/") is not None


@pytest.mark.parametrize("text", ["a/b", "*a.example.com", "a.*.com", "http://", "a:99999"])
def test_a_list_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadHosts):
        AllowedHosts.parse(text)
