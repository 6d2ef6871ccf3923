"""What a jailed process can't do. Each claim runs in a process of its own."""

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="no call filter for this machine"
)

_JAIL = """
import ctypes, os, resource, signal, socket, threading
from homeostat_registry.admission import jail
libc, kept = ctypes.CDLL(None, use_errno=True), os.dup(1)
jail.leave_network()
jail.limit(jail.Limits(memory_bytes=1 << 30, cpu_seconds=5))
assert jail.drop_privileges()
assert jail.close_doors()

def call(number, *arguments):
    # Past libc.
    if libc.syscall(number, *map(ctypes.c_long, arguments)) == -1:
        raise OSError(ctypes.get_errno(), str(number))

try:
    {attempt}
except (OSError, MemoryError, ValueError) as error:
    os.write(kept, type(error).__name__.encode())
else:
    os.write(kept, b"done")
"""


def outcome(attempt: str, folder: Path | None = None) -> str:
    """What the jailed attempt ended with."""
    return run(_JAIL.format(attempt=attempt), folder)


def run(script: str, folder: Path | None = None) -> str:
    """What a process of its own printed."""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        start_new_session=True,
    )
    return ended.stdout or f"exit code {ended.returncode}: {ended.stderr[-300:]}"


@pytest.mark.parametrize(
    "attempt",
    [
        "open('/etc/hostname')",
        "open('left-behind', 'w')",
        "os.unlink('/nowhere')",
        "os.mkdir('left-behind')",
        "socket.socket()",
        "socket.socketpair()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.kill(os.getppid(), 0)",
        "os.chmod('/nowhere', 0)",
    ],
)
def test_every_door_is_closed(attempt: str, tmp_path: Path) -> None:
    assert outcome(attempt, tmp_path) == "PermissionError"
    assert list(tmp_path.iterdir()) == []


# Numbers on x86-64 and arm64; None where a machine has no such call.
_DOORS: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "creat": (85, None),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "truncate": (76, 45),
    "ftruncate": (77, 46), "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None),
    "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "link": (86, None), "linkat": (265, 37), "symlinkat": (266, 36), "mknodat": (259, 33),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None),
    "fchownat": (260, 54), "setxattr": (188, 5), "utimensat": (280, 88), "chdir": (80, 49),
    "chroot": (161, 51), "pivot_root": (155, 41), "mount": (165, 40), "umount2": (166, 39),
    "fsopen": (430, 430), "fsmount": (432, 432), "fsconfig": (431, 431), "fspick": (433, 433),
    "move_mount": (429, 429), "open_tree": (428, 428), "mount_setattr": (442, 442),
    "swapon": (167, 224), "swapoff": (168, 225), "quotactl": (179, 60), "acct": (163, 89),
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "listen": (50, 201), "accept4": (288, 242), "sendto": (44, 206), "sendmsg": (46, 211),
    "sendmmsg": (307, 269), "recvfrom": (45, 207), "recvmsg": (47, 212),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_setup": (206, 0), "io_submit": (209, 2),
    "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438), "setpgid": (109, 154), "setsid": (112, 157),
    "setpriority": (141, 140), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274), "ioprio_set": (251, 30), "wait4": (61, 260), "waitid": (247, 95),
    "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setresuid": (117, 147), "setresgid": (119, 149), "setgroups": (116, 159),
    "setfsuid": (122, 151), "setfsgid": (123, 152), "capset": (126, 91), "unshare": (272, 97),
    "setns": (308, 268), "seccomp": (317, 277), "prctl": (157, 167), "personality": (135, 92),
    "setrlimit": (160, 164), "prlimit64": (302, 261), "landlock_create_ruleset": (444, 444),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180), "mq_unlink": (241, 181), "pipe2": (293, 59),
    "fcntl": (72, 25), "ioctl": (16, 29), "dup3": (292, 24), "splice": (275, 76),
    "vmsplice": (278, 75), "tee": (276, 77), "sendfile": (40, 71), "copy_file_range": (326, 285),
    "fanotify_init": (300, 262), "inotify_init1": (294, 26), "eventfd2": (290, 19),
    "signalfd4": (289, 74), "timerfd_create": (283, 85), "timer_create": (222, 107),
    "setitimer": (38, 103),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "reboot": (169, 142), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "syslog": (103, 116), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "settimeofday": (164, 170), "adjtimex": (159, 171), "sethostname": (170, 161),
    "setdomainname": (171, 162), "vhangup": (153, 58), "iopl": (172, None), "ioperm": (173, None),
    "modify_ldt": (154, None), "lookup_dcookie": (212, 18), "nfsservctl": (180, 42),
    "mbind": (237, 235), "move_pages": (279, 239), "migrate_pages": (256, 238),
    "set_mempolicy": (238, 237), "remap_file_pages": (216, 234), "clone3": (435, 435),
}  # fmt: skip
_COLUMN = 0 if platform.machine() == "x86_64" else 1


def test_every_call_that_does_more_than_compute_is_closed() -> None:
    """Past libc, with arguments that would be wrong wherever a call got through."""
    numbers = {name: both[_COLUMN] for name, both in _DOORS.items() if both[_COLUMN] is not None}
    script = (
        _JAIL.partition("try:")[0]
        + f"""
found = {{}}
for name, number in {numbers!r}.items():
    try:
        call(number, *[-1] * 6)
    except OSError as error:
        if error.errno in (1, 38):
            continue
    found[name] = number
os.write(kept, repr(found).encode())
"""
    )
    assert run(script) == "{}"


@pytest.mark.parametrize(
    "attempt",
    [
        # The new limit's pointer has a lower half of zeros.
        "call({'x86_64': 302, 'aarch64': 261}[os.uname().machine], 0, 7, 1 << 32, 0)",
        "call({'x86_64': 234, 'aarch64': 131}[os.uname().machine], os.getppid(), os.getppid(), 0)",
        # The parent's end is no longer ours.
        "call({'x86_64': 157, 'aarch64': 167}[os.uname().machine], 1, 0, 0, 0, 0)",
    ],
)
def test_allowed_calls_take_certain_arguments_only(attempt: str) -> None:
    assert outcome(attempt) == "PermissionError"


def test_a_crash_still_ends_the_process() -> None:
    assert outcome("os.abort()").startswith(f"exit code {-signal.SIGABRT}")


def test_no_thread_is_left_outside() -> None:
    script = (
        """
import threading
def wait():
    go.wait()
    try:
        open('/etc/hostname')
    except OSError as error:
        os.write(kept, type(error).__name__.encode())
go = threading.Event()
early = threading.Thread(target=wait)
early.start()
"""
        + _JAIL.partition("try:")[0]
        + """
go.set()
early.join()
"""
    )
    assert run(script) == "PermissionError"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_root_becomes_nobody_before_the_doors_close(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(mode=0o600)
    script = """
import os
from homeostat_registry.admission import jail
jail.leave_network()
assert jail.drop_privileges()
found = [os.getresuid(), os.getresgid(), os.getgroups()]
lines = open('/proc/thread-self/status').read().splitlines()
found += [line.split()[1].strip('0') for line in lines if line[:6] in ('CapPrm', 'CapEff')]
for attempt in (lambda: open('secret'), lambda: os.setuid(0)):
    try:
        attempt()
    except PermissionError:
        found.append('refused')
print(*found)
"""
    nobody = (65534,) * 3
    assert run(script, tmp_path).split("\n")[0] == f"{nobody} {nobody} []   refused refused"


def test_memory_is_limited() -> None:
    assert outcome("bytearray(2 << 30)") == "MemoryError"


def test_limits_cannot_be_raised_again() -> None:
    attempt = "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))"
    assert outcome(attempt) in ("PermissionError", "ValueError")


def test_threads_and_reading_limits_still_work() -> None:
    attempt = (
        "resource.getrlimit(resource.RLIMIT_CPU); "
        "each = threading.Thread(target=int); each.start(); each.join()"
    )
    assert outcome(attempt) == "done"
