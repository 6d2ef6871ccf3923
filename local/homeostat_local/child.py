"""One supervised process: started, watched, started again, and stopped."""

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from homeostat_kit.logs import get_logger
from homeostat_local.endpoints import ProcessRecord, State
from homeostat_local.logs import open_log
from homeostat_local.processes import Command, end_group, spawn, start_mark
from homeostat_local.restarts import Backoff

STOP_SECONDS = 10.0
_WATCH_SECONDS = 0.05
_PROBE_SECONDS = 0.03

_log = get_logger(__name__)


class Child:
    """Keeps one command running until it is told to stop; `changed` hears every change of state."""

    def __init__(
        self,
        name: str,
        address: str,
        *,
        command: Callable[[], Command],
        answers: Callable[[], Awaitable[bool]],
        data_folder: Path,
        changed: Callable[[], None],
        http_address: str | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.http_address = http_address
        self.ready = asyncio.Event()
        self._command = command
        self._answers = answers
        self._data_folder = data_folder
        self._changed = changed
        self._backoff = Backoff()
        self._leaving = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._process: subprocess.Popen[bytes] | None = None
        self._stop_signal = signal.SIGTERM
        self._mark: str | None = None
        self._state = State.STARTING
        self._started_at = 0.0
        self._start_seconds: float | None = None
        self._restarts = 0

    @property
    def pid(self) -> int | None:
        """The running process; None between two lives."""
        return None if self._process is None else self._process.pid

    def record(self) -> ProcessRecord:
        """What is known of it now."""
        return ProcessRecord(
            address=self.address, pid=self.pid, mark=self._mark, state=self._state,
            started_at=self._started_at, start_seconds=self._start_seconds, restarts=self._restarts,
            was_ready=self.ready.is_set(), http_address=self.http_address,
        )  # fmt: skip

    async def run(self) -> None:
        """Starts the process, and starts it again whenever it dies, until `stop`."""
        self._ended.clear()
        try:
            while not self._leaving.is_set():
                started = time.monotonic()
                why = await self._live(started)
                if not self._leaving.is_set():
                    await self._pause(why, time.monotonic() - started)
        finally:
            self._enter(State.STOPPED)
            self._ended.set()

    async def stop(self) -> bool:
        """Asks the process to leave and kills it ten seconds later; True if it left by itself."""
        self._leaving.set()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self._stop_signal)
        try:
            await asyncio.wait_for(self._gone(), STOP_SECONDS)
        except TimeoutError:
            _log.warning("child_killed", name=self.name, seconds=STOP_SECONDS)
            self.kill()
            await self._gone()
            return False
        return True

    def kill(self) -> None:
        """Ends the process at once; without `stop` it is started again."""
        if self._process is not None:
            self._process.kill()

    async def _live(self, started: float) -> str:
        """One life of the process; why it is over. A disk that is full counts as a death."""
        try:
            process = self._start()
        except OSError as error:
            return str(error)
        await self._until_answers(process, started)
        await _end_of(process)
        self._bury(process)
        return f"code {process.returncode}"

    async def _gone(self) -> None:
        await self._ended.wait()
        # Still there only where `run` was cut short.
        if self._process is not None:
            await _end_of(self._process)

    def _start(self) -> subprocess.Popen[bytes]:
        command = self._command()
        self._stop_signal = command.stop_signal
        with open_log(self._data_folder, self.name) as output:
            self._process = spawn(command, output)
        self._mark = start_mark(self._process.pid)
        self._started_at, self._start_seconds = time.time(), None
        self._enter(State.STARTING)
        return self._process

    async def _until_answers(self, process: subprocess.Popen[bytes], started: float) -> None:
        while process.poll() is None and not self._leaving.is_set():
            if await self._answers():
                self._start_seconds = round(time.monotonic() - started, 3)
                _log.info("child_ready", name=self.name, start_seconds=self._start_seconds)
                self.ready.set()
                self._enter(State.READY)
                return
            await asyncio.sleep(_PROBE_SECONDS)

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        end_group(process.pid)
        _log.info("child_ended", name=self.name, pid=process.pid, code=process.returncode)
        self._process, self._mark = None, None

    async def _pause(self, why: str, lived_seconds: float) -> None:
        delay = self._backoff.delay_after(lived_seconds)
        self._restarts += 1
        self._enter(State.WAITING)
        _log.warning("child_died", name=self.name, why=why, again_in_seconds=delay)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._leaving.wait(), delay)

    def _enter(self, state: State) -> None:
        self._state = state
        self._changed()


async def _end_of(process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:  # noqa: ASYNC110 - the kernel tells only by asking
        await asyncio.sleep(_WATCH_SECONDS)
