"""The embedded default needs no root: tests that run as root repeat the start as nobody."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65_534
# Through `env`, since setpriv itself may still enter folders that are closed to nobody.
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--", "env")

SCRIPT = """
import os, sys
from pathlib import Path
from homeostat_local.stack import running_stack
assert os.geteuid() != 0
command = (sys.executable, "-m", "tests.support.standin_service", "ledger")
for _ in range(2):
    folder = Path(sys.argv[1])
    with running_stack(folder, services=["ledger"], commands={"ledger": command}) as stack:
        print("ready", stack.pid("database"))
"""


@pytest.fixture
def folder_of_nobody() -> Iterator[Path]:
    """Not below tmp_path: pytest closes its folders to others."""
    folder = Path(mkdtemp(prefix="homeostat-"))
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def import_path() -> str:
    """Where our packages and their needs are, for an interpreter outside this environment."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    roots = project["tool"]["setuptools"]["packages"]["find"]["where"]
    needs = [path for path in sys.path if path.endswith("site-packages")]
    return os.pathsep.join([str(ROOT), *(str(ROOT / each) for each in roots), *needs])


def python_for_nobody(environment: dict[str, str]) -> str:
    """An interpreter that nobody may run and that finds our packages; skips if there is none."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        attempt = [*AS_NOBODY, python, "-c", "import numpy, grpc_health, psutil, homeostat_local"]
        try:
            done = subprocess.run(attempt, env=environment, capture_output=True, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return python
    pytest.skip(f"no {version} that other users may run, or a virtual environment closed to them")


def test_an_ordinary_user_starts_stops_and_starts_again(folder_of_nobody: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": import_path(), "HOME": "/nonexistent"}
    command = [sys.executable]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("running as root without setpriv (util-linux)")
        command = [*AS_NOBODY, python_for_nobody(environment)]
    done = subprocess.run(
        [*command, "-B", "-c", SCRIPT, str(folder_of_nobody)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ready") == 2
