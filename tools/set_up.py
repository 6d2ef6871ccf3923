"""Makes `.venv` from a bare Python: hashed requirements, then the project itself, editable.

Run by `make setup` (profile dev) and `make setup-run` (profile run: what the demo needs). A second
run is instant: a stamp holds the hash of all that went in. uv installs, and takes the index,
certificates and proxies that pip is configured with; where uv fails, pip itself does the work.

Only the standard library, and syntax that Python 3.7 still reads, so that an old one can say so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    sys.exit("Homeostat's set-up needs Linux or macOS (on Windows: WSL).")

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
REQUIREMENTS = ROOT / "requirements"
BUILD = REQUIREMENTS / "build.txt"
PROFILES = {"run": ("run.txt",), "dev": ("dev.txt",)}
OLDEST, TOO_NEW = (3, 11), (3, 15)
NAMES = ("python3.11", "python3.12", "python3.13", "python3.14", "python3")


def main() -> None:
    """Sets the profile up that the first argument names."""
    profile = sys.argv[1] if len(sys.argv) > 1 else "dev"
    if profile not in PROFILES:
        sys.exit(f"usage: set_up.py [{'|'.join(PROFILES)}]")
    _with_a_fitting_python()
    with BUILD.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once: the second finds it done
        if not _is_current(profile):
            _set_up(profile)


def _with_a_fitting_python() -> None:
    """Hands over to a Python that has wheels, if this one is too old or too new."""
    if OLDEST <= sys.version_info[:2] < TOO_NEW:
        return
    for name in NAMES:
        path = shutil.which(name)
        if path and OLDEST <= _version_of(path) < TOO_NEW:
            os.execv(path, [path, *sys.argv])  # noqa: S606
    mine = ".".join(map(str, sys.version_info[:2]))
    goal = os.environ.get("HOMEOSTAT_MAKE_GOAL", "setup")
    sys.exit(
        f"Homeostat needs Python 3.11 to 3.14; this is {mine}, and no other was found on PATH.\n"
        f"Cure: install Python 3.11, or name one: make {goal} PYTHON=/path/to/python3.11"
    )


def _version_of(python: str) -> tuple[int, ...]:
    """The (major, minor) of an interpreter; (0, 0) when it does not start (a pyenv shim)."""
    code = "import sys; print(*sys.version_info[:2])"
    found = subprocess.run([python, "-c", code], capture_output=True, check=False)
    return tuple(int(part) for part in found.stdout.split()) if found.returncode == 0 else (0, 0)


def _is_current(profile: str) -> bool:
    """Whether the environment holds this profile: dev holds run's packages, pinned alike."""
    wider = [profile, "dev"] if profile == "run" else [profile]
    return VENV_PYTHON.exists() and any(_stamp_of(name) == _key(name) for name in wider)


def _stamp_file(profile: str) -> Path:
    return VENV / f"homeostat-{profile}.json"


def _stamp_of(profile: str) -> dict[str, str] | None:
    try:
        stamp: dict[str, str] = json.loads(_stamp_file(profile).read_text())
    except (OSError, ValueError):
        return None
    return stamp


def _key(profile: str) -> dict[str, str]:
    """What the environment is made of; the folder, since scripts in it hold its path."""
    digest = hashlib.sha256()
    for path in (BUILD, *(REQUIREMENTS / name for name in PROFILES[profile])):
        digest.update(path.read_bytes())
    digest.update((ROOT / "pyproject.toml").read_bytes())
    return {"root": str(ROOT), "requirements": digest.hexdigest()}


def _set_up(profile: str) -> None:
    _make_venv()
    print(f"set-up: packages of requirements/{profile}.txt ...", flush=True)
    _run([*_pip(), "install", "-q", "--require-hashes", "--no-deps", "-r", str(BUILD)])
    arguments = ["--no-deps", "--no-build-isolation"]
    for name in PROFILES[profile]:
        _install(["--require-hashes", *arguments, "-r", str(REQUIREMENTS / name)])
    _install([*arguments, "-e", str(ROOT)])
    _run([str(VENV_PYTHON), str(ROOT / "tools" / "provide_openmp.py")])
    _stamp_file(profile).write_text(json.dumps(_key(profile)))
    print("set-up: done", flush=True)


def _make_venv() -> None:
    """Makes `.venv`; anew when it is broken or was made in another folder."""
    stamps = [stamp for stamp in map(_stamp_of, PROFILES) if stamp]
    moved = any(stamp.get("root") != str(ROOT) for stamp in stamps)
    if not moved and VENV_PYTHON.exists() and OLDEST <= _version_of(str(VENV_PYTHON)) < TOO_NEW:
        return
    print("set-up: virtual environment in .venv ...", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=False)
    if made.returncode != 0:
        shutil.rmtree(str(VENV), ignore_errors=True)
        sys.exit("Python's venv module is missing or broken; on Debian: apt install python3-venv")


def _pip() -> list[str]:
    return [str(VENV_PYTHON), "-m", "pip", "--disable-pip-version-check"]


def _install(arguments: list[str]) -> None:
    """Installs with uv; with pip where uv does not get on (an index that only pip can read)."""
    uv = [str(VENV / "bin" / "uv"), "pip", "install", "-q", "--python", str(VENV_PYTHON)]
    # Services start in under two seconds only from compiled files, the first time too.
    command = [*uv, "--compile-bytecode", *arguments]
    if subprocess.run(command, env=_uv_environment(), check=False).returncode != 0:
        print("set-up: uv failed, pip takes over ...", flush=True)
        _run([*_pip(), "install", "-q", *arguments])


def _run(command: list[str]) -> None:
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        sys.exit(f"set-up: failed ({code}): {' '.join(command[:6])}")


def _uv_environment() -> dict[str, str]:
    """The environment for uv: what pip is configured with, under uv's names; uv's own win."""
    pip = _pip_configuration()
    wanted = {
        "UV_DEFAULT_INDEX": pip.get("index-url"),
        "UV_INDEX": " ".join(pip.get("extra-index-url", "").split()),
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "UV_NO_INDEX": "1" if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else "",
        "SSL_CERT_FILE": pip.get("cert"),
        "SSL_CLIENT_CERT": pip.get("client-cert"),
        "ALL_PROXY": pip.get("proxy"),
        # Versions and hashes are pinned: whichever index has them will do, as with pip.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        # A cache on another file system cannot be linked from; the warning would help nobody.
        "UV_LINK_MODE": "copy" if not _same_file_system() else "",
    }
    if os.environ.get("UV_INDEX_URL"):
        wanted.pop("UV_DEFAULT_INDEX")
    return {**{name: value for name, value in wanted.items() if value}, **os.environ}


def _same_file_system() -> bool:
    home = Path(os.environ.get("XDG_CACHE_HOME", str(Path.home())))
    with contextlib.suppress(OSError):
        return home.stat().st_dev == VENV.stat().st_dev
    return False


def _pip_configuration() -> dict[str, str]:
    """Option to value, of pip's files and environment; a command's own section wins."""
    listed = subprocess.run([*_pip(), "config", "list"], stdout=subprocess.PIPE, check=False)
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in listed.stdout.decode(errors="replace").splitlines():
            name, _, value = line.partition("=")
            if name.startswith(section + "."):
                text = value.strip().strip("'\"").replace("\\n", " ")
                found[name[len(section) + 1 :]] = text
    return found


if __name__ == "__main__":
    main()
