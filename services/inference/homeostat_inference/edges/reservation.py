"""The server's port, which several processes listen on."""

import socket
from dataclasses import dataclass


@dataclass(slots=True)
class Reservation:
    """The server's port, held for the workers: each of them binds it for itself."""

    address: str
    _socket: socket.socket

    @staticmethod
    def of(address: str) -> "Reservation":
        """OSError if somebody else listens there. Port 0 takes a free one."""
        host, _, port = address.rpartition(":")
        bare = host.strip("[]") or "0.0.0.0"  # noqa: S104 - as the address says
        family, _, _, _, place = socket.getaddrinfo(
            bare, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as stranger:
            # Without SO_REUSEPORT, which would let us in beside a stranger who has it too.
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stranger.bind(place)
            number = stranger.getsockname()[1]
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((place[0], number, *place[2:]))
        return Reservation(f"{host}:{number}", held)

    def close(self) -> None:
        """Others may have it."""
        self._socket.close()
