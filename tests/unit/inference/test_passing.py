"""What goes with a call that is passed on."""

from homeostat_inference.edges.passing import _passable


def test_what_a_caller_sends_along_is_passed_on_but_for_what_each_connection_says_itself() -> None:
    own = [("te", "trailers"), ("grpc-timeout", "1S"), (":path", "/"), ("user-agent", "x")]
    theirs = [("tenant-id", "7"), ("test", "1"), ("traceparent", "00-1"), ("user-agent-kind", "x")]
    assert _passable([*own, *theirs]) == tuple(theirs)
