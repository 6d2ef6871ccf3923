"""KServe's client in an environment of its own: it brings a server's packages along."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "kserve.txt"
FOLDER = ROOT / ".venv-kserve"


@pytest.fixture(scope="session")
def kserve_python() -> Path:
    """The interpreter to run KServe's client with; made when it is first needed, in seconds."""
    stamp = FOLDER / "stamp"
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    python = FOLDER / "bin" / "python"
    if stamp.exists() and stamp.read_text() == digest and python.exists():
        return python
    shutil.rmtree(FOLDER, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    wanted = ["--require-hashes", "--no-deps", "-r", str(LOCK)]
    uv = Path(sys.executable).parent / "uv"
    if not _succeeds([str(uv), "pip", "install", "-q", "--python", str(python), *wanted]) and (
        not _succeeds([str(python), "-m", "pip", "install", "-q", *wanted])
    ):
        pytest.skip("KServe's client can't be installed here: no package index is reached")
    stamp.write_text(digest)
    return python


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
