"""Limits that a process puts on itself before it touches a stranger's file. Linux only."""

import ctypes
import os
import platform
import resource
import struct
from dataclasses import dataclass

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SIGKILL = 9
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_THREAD = 0x10000000, 0x40000000, 0x10000
_SECCOMP_MODE_FILTER = 2
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _FIRST_ARGUMENT_AT, _THIRD_ARGUMENT_AT = 0, 4, 16, 32
# The second personality of x86-64 numbers its calls from here.
_X32 = 0x40000000


@dataclass(frozen=True, slots=True)
class Limits:
    """What one judgement may use."""

    memory_bytes: int
    cpu_seconds: int
    open_files: int = 16


@dataclass(frozen=True, slots=True)
class _Machine:
    audit_arch: int
    denied: tuple[int, ...]
    clone: int
    prlimit: int


# Opening, changing or removing files, sockets, new programs, other processes, mounts, keys, kernel.
_EVERYWHERE = (424, 425, 426, 427, 428, 429, 430, 434, 437, 438)
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        (
            2, 41, 42, 43, 44, 46, 49, 50, 53, 57, 58, 59, 62, 76, 77, 82, 83, 84, 85, 86, 87, 88,
            90, 91, 92, 93, 94, 101, 133, 155, 160, 161, 165, 166, 175, 248, 249, 250, 257, 258,
            259, 260, 263, 264, 265, 266, 268, 272, 288, 298, 308, 310, 311, 313, 316, 319, 321,
            322, 323, *_EVERYWHERE,
        ),
        clone=56,
        prlimit=302,
    ),
    "aarch64": _Machine(
        0xC00000B7,
        (
            33, 34, 35, 36, 37, 38, 39, 40, 41, 45, 46, 51, 52, 53, 54, 55, 56, 97, 105, 117, 129,
            164, 198, 199, 200, 201, 202, 203, 206, 211, 217, 218, 219, 221, 241, 242, 268, 270,
            271, 273, 276, 279, 280, 281, 282, *_EVERYWHERE,
        ),
        clone=220,
        prlimit=261,
    ),
}  # fmt: skip
_CLONE3 = 435


def leave_network() -> bool:
    """Moves into an empty network namespace where the system lets us; before any thread starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWNET | _CLONE_NEWUSER
    return bool(libc.unshare(flags) == 0)


def die_with_parent() -> None:
    """The kernel kills us when the process that forked us ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)


def limit(limits: Limits) -> None:
    """Memory, CPU, files; no file can grow and no core is dumped."""
    for kind, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def close_doors() -> bool:
    """No call that opens files, makes sockets or starts programs works after this.

    False on a machine whose call numbers are not known here: then the limits alone hold.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    program = _program(machine)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) == 0)


def _program(machine: _Machine) -> bytes:
    """A seccomp filter: deny by number, threads but no processes, limits may only be read."""
    denied = _step(_RETURN, 0, 0, _ERRNO | _EPERM)
    steps = [
        _step(_LOAD, 0, 0, _ARCH_AT),
        _step(_EQUAL, 1, 0, machine.audit_arch),
        _step(_RETURN, 0, 0, _KILL),
        _step(_LOAD, 0, 0, _NUMBER_AT),
        _step(_AT_LEAST, 0, 1, _X32),
        _step(_RETURN, 0, 0, _KILL),
    ]
    for number in machine.denied:
        steps += [_step(_EQUAL, 0, 1, number), denied]
    # glibc falls back to clone, whose flags can be looked at.
    steps += [_step(_EQUAL, 0, 1, _CLONE3), _step(_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    steps += [
        _step(_EQUAL, 0, 3, machine.clone),
        _step(_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        _step(_ANY_BIT, 5, 0, _CLONE_THREAD),
        denied,
        _step(_EQUAL, 0, 3, machine.prlimit),
        _step(_LOAD, 0, 0, _THIRD_ARGUMENT_AT),
        _step(_EQUAL, 1, 0, 0),
        denied,
        _step(_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(steps)


def _step(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
