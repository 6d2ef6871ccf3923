"""The reference page of hostile requests, from the corpus that the tests send."""

from tests.hostile.requests import HOSTILE_REQUESTS, HostileRequest

_LEAD = """# Hostile requests

What ModelInfer answers to requests made to do harm. Each line is sent to a running server of each
transport by `tests/integration/inference/test_hostile_requests.py`, in this order, with a good
request after each; the server has to stay up, in the same processes. The requests themselves stand
in `tests/hostile/requests.py`. A status text has at most 2,000 characters.

| name | what | answer | on grpcio, where it differs |
|---|---|---|---|
"""


def requests_page() -> str:
    """docs/reference/hostile-requests.md, without the note on top."""
    return _LEAD + "".join(map(_row, HOSTILE_REQUESTS))


def _row(each: HostileRequest) -> str:
    differs = f"{each.on_grpcio}: {each.why_different}" if each.on_grpcio else ""
    return f"| {each.name} | {each.what} | {each.code} | {differs} |\n"
