"""The nursery: a process that has imported everything and does nothing, so that a fork of it is a
worker in some milliseconds.

It has one thread and no connections, which makes the fork safe. It is told what to fork over a
socket, hands back a descriptor of the new process, and tells how each one ended. When its parent
dies, the kernel ends it and its children.
"""

import asyncio
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from homeostat_kit.logs import get_logger

_PR_SET_PDEATHSIG = 1
_MESSAGE_BYTES = 256 * 1024
_MAX_DESCRIPTORS = 64
log = get_logger("homeostat_inference.nursery")

# What a forked process does: what it was told, and its descriptors. It returns its exit status.
Play = Callable[[Mapping[str, Any], Sequence[int]], int]


@dataclass(slots=True)
class Child:
    """A process that the nursery forked."""

    pid: int
    # Of the process itself: signals sent through it never reach another with the same number.
    descriptor: int
    # Its wait status, once it has ended.
    ended: "asyncio.Future[int]" = field(repr=False)

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing if it has ended."""
        try:
            signal.pidfd_send_signal(self.descriptor, number)
        except OSError:
            return


class NurseryDied(Exception):
    """Nothing can be forked any longer: the service has to be started anew."""


class Nursery:
    """The keeper's end."""

    def __init__(self, process_id: int, ours: socket.socket) -> None:
        self.process_id = process_id
        self._socket = ours
        self._loop: asyncio.AbstractEventLoop
        self._children: dict[int, Child] = {}
        self._asked: dict[int, asyncio.Future[Child]] = {}
        self._number = 0
        # Set when it is gone, whatever the reason.
        self.died = asyncio.Event()

    @classmethod
    def start(cls, prepare: Callable[[], None], play: Play) -> "Nursery":
        """Forks it off. To be called while this process has one thread and no event loop.

        ``prepare`` runs once in the nursery (imports), ``play`` in each process forked by it.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        threads = len(list(Path("/proc/self/task").iterdir()))
        if threads != 1:
            # Whatever another thread holds at this moment, the nursery would hold for ever.
            log.warning("forked_beside_threads", threads=threads)
        sys.stdout.flush()
        sys.stderr.flush()
        process_id = os.fork()
        if process_id:
            theirs.close()
            return cls(process_id, ours)
        status = 70
        try:
            ours.close()
            die_with(parent)
            # Ctrl-C in a terminal reaches the whole group: the keeper decides who leaves when.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            prepare()
            # What is there now is shared with every child: the collector must not touch it.
            gc.collect()
            gc.freeze()
            status = _run(theirs, play)
        finally:
            os._exit(status)

    def attach(self) -> None:
        """From now on the running loop hears what the nursery tells."""
        self._loop = asyncio.get_running_loop()
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket.fileno(), self._hear)

    async def fork(self, told: Mapping[str, Any], descriptors: Sequence[int]) -> Child:
        """A new process that plays what it is ``told``; NurseryDied if there can be none."""
        if self.died.is_set():
            raise NurseryDied("the nursery has died")
        self._number += 1
        number = self._number
        asked: asyncio.Future[Child] = self._loop.create_future()
        self._asked[number] = asked
        message = json.dumps({"number": number, "told": dict(told)}).encode()
        try:
            # The socket is empty but for what is under way: a few messages.
            socket.send_fds(self._socket, [message], list(descriptors))
        except OSError as error:
            self._asked.pop(number, None)
            raise NurseryDied(f"the nursery does not hear: {error.strerror}") from error
        return await asked

    def close(self) -> None:
        """Ends it, and what it forked."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        try:
            os.kill(self.process_id, signal.SIGKILL)
            os.waitpid(self.process_id, 0)
        except OSError:
            return

    def _hear(self) -> None:
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(
                    self._socket, _MESSAGE_BYTES, _MAX_DESCRIPTORS
                )
            except BlockingIOError:
                return
            except OSError:
                message, descriptors = b"", []
            if not message:
                self._lose()
                return
            self._take(json.loads(message), descriptors)

    def _take(self, told: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        if "born" in told:
            child = Child(told["born"], descriptors[0], self._loop.create_future())
            self._children[child.pid] = child
            asked = self._asked.pop(told["number"])
            if not asked.done():
                asked.set_result(child)
        elif "refused" in told:
            self._asked.pop(told["number"]).set_exception(OSError(told["refused"]))
        else:
            child = self._children.pop(told["ended"])
            child.ended.set_result(told["status"])

    def _lose(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        log.error("nursery_died")
        for asked in self._asked.values():
            asked.set_exception(NurseryDied("the nursery has died"))
        self._asked.clear()
        self.died.set()


def die_with(parent: int) -> None:
    """From now on this process is killed when ``parent``, who forked it, dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # It died before the kernel knew.
        os._exit(70)


def _run(keeper: socket.socket, play: Play) -> int:
    """The nursery's life."""
    poll = select.poll()
    poll.register(keeper, select.POLLIN)
    children: dict[int, int] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in children:
                poll.unregister(descriptor)
                _tell_end(keeper, descriptor, children.pop(descriptor))
                continue
            message, descriptors, _, _ = socket.recv_fds(keeper, _MESSAGE_BYTES, _MAX_DESCRIPTORS)
            if not message:
                return 0
            born = _bear(keeper, json.loads(message), descriptors, play)
            if born is not None:
                children[born[0]] = born[1]
                poll.register(born[0], select.POLLIN)


def _tell_end(keeper: socket.socket, descriptor: int, pid: int) -> None:
    os.close(descriptor)
    _, status = os.waitpid(pid, 0)
    keeper.send(json.dumps({"ended": pid, "status": status}).encode())


def _bear(
    keeper: socket.socket, asked: Mapping[str, Any], descriptors: Sequence[int], play: Play
) -> tuple[int, int] | None:
    nursery = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        told = {"number": asked["number"], "refused": f"no process: {error.strerror}"}
        keeper.send(json.dumps(told).encode())
        for each in descriptors:
            os.close(each)
        return None
    if pid == 0:
        _live(nursery, keeper, asked["told"], descriptors, play)
    for each in descriptors:
        os.close(each)
    descriptor = os.pidfd_open(pid)
    told = {"number": asked["number"], "born": pid}
    socket.send_fds(keeper, [json.dumps(told).encode()], [descriptor])
    return descriptor, pid


def _live(
    nursery: int,
    keeper: socket.socket,
    told: Mapping[str, Any],
    descriptors: Sequence[int],
    play: Play,
) -> None:
    status = 70
    try:
        die_with(nursery)
        keeper.close()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        status = play(told, descriptors)
    except BaseException:
        log.exception("process_failed", told=str(told.get("role")))
    finally:
        sys.stdout.flush()
        # Nothing that the nursery had set up for its own end may run here.
        os._exit(status)
