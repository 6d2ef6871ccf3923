"""Environments of the peers, each of its own below one folder; pinned, with hashes.

python -m benchmarks.serving.install    what `make bench-serving-peers` runs
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".bench"
_PINS = Path(__file__).parent / "peers"
# Environment: the pins that go into it, each with or without what it depends on.
ENVIRONMENTS: dict[str, tuple[tuple[str, bool], ...]] = {
    "mlserver": (("mlserver", True),),
    "kserve": (("kserve", True),),
    # Of the wheel only the server is used: what its Python layer depends on is left out.
    "triton": (("triton-server", False), ("triton-model", True)),
    "tritonclient": (("tritonclient", True),),
}
_SECONDS = 900


def python_of(environment: str) -> Path:
    """Its interpreter, installed or not."""
    return FOLDER / environment / "bin" / "python"


def site_packages(environment: str) -> Path:
    """Where its packages lie."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return FOLDER / environment / "lib" / version / "site-packages"


def install(names: Iterable[str] = ENVIRONMENTS) -> dict[str, str]:
    """Makes what is missing; why those are absent that could not be made."""
    absent = {}
    for name in names:
        try:
            _install(name)
        except (subprocess.SubprocessError, OSError) as error:
            said = getattr(error, "stderr", None) or str(error)
            absent[name] = str(said).strip()[-400:]
            print(f"{name} could not be installed: {absent[name]}", file=sys.stderr)
    return absent


def _install(name: str) -> None:
    stamp = FOLDER / name / "pins"
    key = _key(name)
    if stamp.exists() and stamp.read_text() == key:
        return
    print(f"installing {name} into {FOLDER.name}/{name} ...", file=sys.stderr)
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    FOLDER.mkdir(exist_ok=True)
    _run([sys.executable, "-m", "venv", "--without-pip", str(FOLDER / name)])
    uv = str(Path(sys.executable).parent / "uv")
    for pins, with_dependencies in ENVIRONMENTS[name]:
        command = [uv, "pip", "install", "--quiet", "--python", str(python_of(name))]
        command += ["--require-hashes", "-r", str(_PINS / f"{pins}.txt")]
        _run(command if with_dependencies else [*command, "--no-deps"])
    stamp.write_text(key)


def _key(name: str) -> str:
    files = [_PINS / f"{pins}.txt" for pins, _ in ENVIRONMENTS[name]]
    content = b"".join(each.read_bytes() for each in files)
    return hashlib.sha256(content + sys.version.encode()).hexdigest()


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)


if __name__ == "__main__":
    sys.exit(1 if install() else 0)
