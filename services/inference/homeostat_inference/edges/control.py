"""What keeper and worker say to each other: small messages over a socket pair.

Each message is a length and a JSON object that names its kind. Either end that reads something else
treats the other as dead.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_LENGTH = struct.Struct("<I")
# A plan of thousands of versions is far smaller.
_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the keeper wants a new process to be."""

    slot: int
    address: str
    # None: no HTTP.
    http_address: str | None
    keeper_address: str
    # The one before is still there: the board is its own until the slot is handed over.
    is_successor: bool = False

    def told(self) -> dict[str, Any]:
        """For the nursery."""
        return {"role": "worker", **asdict(self)}

    @staticmethod
    def of(told: Mapping[str, Any]) -> "Assignment":
        """What `told` gave."""
        return Assignment(
            told["slot"],
            told["address"],
            told["http_address"],
            told["keeper_address"],
            told["is_successor"],
        )


@dataclass(frozen=True, slots=True)
class TellPlan:
    """Keeper: serve this. ``plan`` is a ServingPlan in JSON."""

    plan: str


@dataclass(frozen=True, slots=True)
class AskMark:
    """Keeper: a caller promised this; keep it behind everything that was answered before."""

    number: int
    mark_us: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Keeper: the version that was needed is not to be had."""

    model_name: str
    version: int
    reason: str
    # Whether it may be had later: the registry is away.
    is_away: bool


@dataclass(frozen=True, slots=True)
class TellHealth:
    """Keeper: what health says of the server's own name; nothing if all is well."""

    degraded_reasons: list[str]
    # Something is being lost or refused.
    is_losing: bool
    is_ready: bool


@dataclass(frozen=True, slots=True)
class Take:
    """Keeper: the slot is yours, with its journal and its board. ``mark_us``: what callers have
    promised."""

    mark_us: int | None


@dataclass(frozen=True, slots=True)
class Leave:
    """Keeper: answer what is in hand, then end."""

    # Another worker listens already: nobody is to notice.
    is_followed: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """Worker: it has loaded what it is to serve, and listens; calls wait until it has a slot."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Worker: it listens."""

    port: int
    # 0: no HTTP.
    http_port: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Worker: the version is warm. Expected times of a run, in seconds."""

    model_name: str
    version: int
    load_seconds: float
    first_row_seconds: float
    further_row_seconds: float


@dataclass(frozen=True, slots=True)
class Dropped:
    """Worker: the version is not loaded any longer."""

    model_name: str
    version: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Worker: the version can't be loaded."""

    model_name: str
    version: int
    error: str
    load_seconds: float


@dataclass(frozen=True, slots=True)
class Applied:
    """Worker: requests are routed by this plan as far as it is loaded."""

    plan_number: int
    # Every champion of the plan is loaded, or can't be.
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Need:
    """Worker: a request named this version, which is not in the plan."""

    model_name: str
    version: int


@dataclass(frozen=True, slots=True)
class Marked:
    """Worker: the mark is kept, or why not."""

    number: int
    error: str


Message = (
    TellPlan
    | AskMark
    | Refuse
    | TellHealth
    | Take
    | Leave
    | Prepared
    | Ready
    | Loaded
    | Dropped
    | Failed
    | Applied
    | Need
    | Marked
)
_KINDS: dict[str, Any] = {
    each.__name__: each
    for each in (
        TellPlan, AskMark, Refuse, TellHealth, Take, Leave, Prepared, Ready, Loaded, Dropped,
        Failed, Applied, Need, Marked,
    )
}  # fmt: skip


class Garbled(Exception):
    """The other end said something that is no message."""


class Control:
    """One end of the channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, ours: socket.socket) -> "Control":
        """On a connected stream socket, which it takes over."""
        ours.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=ours))

    def send(self, message: Message) -> None:
        """Returns at once; nothing happens if the other end is gone."""
        body = json.dumps({"kind": type(message).__name__, **asdict(message)}).encode()
        if not self._writer.is_closing():
            self._writer.write(_LENGTH.pack(len(body)) + body)

    async def receive(self) -> Message | None:
        """The next message, None when the other end has gone; Garbled if it is none."""
        try:
            (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if size > _MAX_BYTES:
                raise Garbled(f"a message of {size} bytes")
            told = json.loads(await self._reader.readexactly(size))
            message: Message = _KINDS[told.pop("kind")](**told)
        except (asyncio.IncompleteReadError, OSError):
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Garbled(repr(error)) from error
        return message

    async def flush(self) -> None:
        """Returns when what was sent has left this process, or the other end is gone."""
        try:
            await self._writer.drain()
        except OSError:
            return

    def close(self) -> None:
        """The other end hears of it."""
        self._writer.close()
