"""Free ports on loopback that no outgoing connection can take from us between two starts."""

import random
import socket
from collections.abc import Collection
from pathlib import Path

LOOPBACK = "127.0.0.1"

# A client that keeps dialling a dead server on a port of the ephemeral range can, on loopback,
# be given that very port as its own and connect to itself; so ours come from below that range.
_LOWEST = 20_000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_EPHEMERAL_START = 32_768
_TRIES = 200


def choose_port(preferred: int = 0, *, taken: Collection[int] = ()) -> int:
    """`preferred` if it is free (0: no preference), else a free port that is not in `taken`."""
    if preferred and preferred not in taken and is_free(preferred):
        return preferred
    for _ in range(_TRIES):
        port = random.SystemRandom().randrange(_LOWEST, max(_ephemeral_start(), _LOWEST + 1_000))
        if port not in taken and is_free(port):
            return port
    return _any_free_port()


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port"."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def _ephemeral_start() -> int:
    try:
        return int(_EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _USUAL_EPHEMERAL_START


def _any_free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
