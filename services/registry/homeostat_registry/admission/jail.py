"""Limits that a process puts on itself before it touches a stranger's file. Linux only."""

import contextlib
import ctypes
import os
import platform
import resource
import struct
from dataclasses import dataclass

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 1, 15, 38
_SIGKILL = 9
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_THREAD = 0x10000000, 0x40000000, 0x10000
_SECCOMP_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
# The second personality of x86-64 numbers its calls from here.
_X32 = 0x40000000
_CAPABILITY_VERSION = 0x20080522
_NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Limits:
    """What one judgement may use."""

    memory_bytes: int
    cpu_seconds: int
    open_files: int = 16


@dataclass(frozen=True, slots=True)
class _Machine:
    audit_arch: int
    # Which column of the tables below.
    column: int


_MACHINES = {"x86_64": _Machine(0xC000003E, 0), "aarch64": _Machine(0xC00000B7, 1)}

# What computing needs: memory, threads, clocks, descriptors that are open already, one's own
# signals and limits. Numbers on x86-64 and arm64; None where a machine has no such call.
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "readv": (19, 65), "write": (1, 64), "writev": (20, 66), "lseek": (8, 62),
    "close": (3, 57), "fstat": (5, 80), "newfstatat": (262, 79),
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216),
    "brk": (12, 214), "madvise": (28, 233), "membarrier": (324, 283),
    "futex": (202, 98), "set_robust_list": (273, 99), "rseq": (334, 293),
    "set_tid_address": (218, 96), "arch_prctl": (158, None),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132), "restart_syscall": (219, 128),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153),
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getrlimit": (97, 163), "getrusage": (98, 165), "uname": (63, 160), "sysinfo": (99, 179),
    "getrandom": (318, 278), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
# Allowed with certain arguments only.
_CLONE, _PRLIMIT, _PRCTL, _TGKILL = (56, 220), (302, 261), (157, 167), (234, 131)
_SECCOMP = (317, 277)
# From here on calls are the same on all machines, and libc falls back where there are none.
_CLONE3 = 435


def leave_network() -> bool:
    """Moves into an empty network namespace where the system lets us; before any thread starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWNET | _CLONE_NEWUSER
    return bool(libc.unshare(flags) == 0)


def die_with_parent(parent: int) -> None:
    """The kernel kills us when the process ``parent`` that forked us ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def drop_privileges() -> bool:
    """Nobody's rights, and none of the capabilities that root or a namespace gave.

    False if we are root still, as in a namespace that knows no other user. The kernel then forgets
    whose end is ours: call ``die_with_parent`` again.
    """
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    header, none = struct.pack("Ii", _CAPABILITY_VERSION, 0), bytes(24)
    dropped = ctypes.CDLL(None, use_errno=True).capset(header, none) == 0
    return dropped and os.geteuid() != 0


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
    """Only calls that computing needs work after this, in every thread.

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
    number = _SECCOMP[machine.column]
    return bool(libc.syscall(number, _SECCOMP_SET_MODE_FILTER, _ALL_THREADS, header) == 0)


def _program(machine: _Machine) -> bytes:
    """A seccomp filter: what is listed, threads but no processes, signals to oneself only."""
    column = machine.column
    steps = [
        _step(_LOAD, 0, 0, _ARCH_AT),
        _step(_EQUAL, 1, 0, machine.audit_arch),
        _step(_RETURN, 0, 0, _KILL),
        _step(_LOAD, 0, 0, _NUMBER_AT),
        _step(_AT_LEAST, 0, 1, _X32),
        _step(_RETURN, 0, 0, _KILL),
    ]
    for numbers in _ALLOWED.values():
        number = numbers[column]
        if number is not None:
            steps += [_step(_EQUAL, 0, 1, number), _step(_RETURN, 0, 0, _ALLOW)]
    steps += _only_if(_CLONE[column], (_low(0), _ANY_BIT, _CLONE_THREAD))
    # A limit may be read, so the new one must be null; a pointer has two halves.
    steps += _only_if(_PRLIMIT[column], (_low(2), _EQUAL, 0), (_low(2) + 4, _EQUAL, 0))
    steps += _only_if(_PRCTL[column], (_low(0), _EQUAL, _PR_SET_NAME))
    # abort() ends us so.
    steps += _only_if(_TGKILL[column], (_low(0), _EQUAL, os.getpid()))
    steps += [
        _step(_AT_LEAST, 0, 1, _CLONE3),
        _step(_RETURN, 0, 0, _ERRNO | _ENOSYS),
        _step(_RETURN, 0, 0, _ERRNO | _EPERM),
    ]
    return b"".join(steps)


def _low(argument: int) -> int:
    """Where the lower half of an argument stands; both machines are little-endian."""
    return _ARGUMENTS_AT + 8 * argument


def _only_if(number: int, *checks: tuple[int, int, int]) -> list[bytes]:
    """Allows a call where all (offset, test, value) hold."""
    steps = []
    for left, (offset, test, value) in zip(reversed(range(len(checks))), checks, strict=True):
        steps += [_step(_LOAD, 0, 0, offset), _step(test, 0, 2 * left + 1, value)]
    steps += [_step(_RETURN, 0, 0, _ALLOW), _step(_RETURN, 0, 0, _ERRNO | _EPERM)]
    return [_step(_EQUAL, 0, len(steps), number), *steps]


def _step(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
