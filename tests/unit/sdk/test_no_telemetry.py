"""onnxruntime reports nothing to its maker from any process of ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import os
import numpy  # has threads of its own
import {package}
threads = len(os.listdir("/proc/self/task"))
import onnxruntime
print(len(os.listdir("/proc/self/task")) - threads)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
@pytest.mark.parametrize(
    "package",
    [
        "homeostat",
        "homeostat_kit.logs, homeostat.ids",
        "homeostat_inference.main",
        "homeostat_retrainer.main",
        "homeostat.model_file",
    ],
)
def test_onnxruntime_starts_no_reporting_thread_and_leaves_no_files(
    package: str, tmp_path: Path
) -> None:
    kept = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    ended = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(package=package)],
        env={**kept, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout.strip() == "0", ended.stdout
    assert list(tmp_path.rglob("*onnxruntime*")) == []
