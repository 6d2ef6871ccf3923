"""Free ports on loopback, each given once."""

from homeostat_local.ports import choose_port

_given: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, nor an outgoing connection may be given.

    A server of the tests binds it moments later, and again after it was killed; no other call
    answers the same one.
    """
    port = choose_port(taken=_given)
    _given.add(port)
    return port
