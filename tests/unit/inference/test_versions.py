"""The copy of versions on our own disk is a help, never a reason not to start."""

import hashlib
from pathlib import Path

import pytest

from homeostat.registry.v1.registry_pb2 import Version
from homeostat_inference.edges.versions import Champion, VersionCache

MODEL = b"a model"
VERSION = Version(model_name="m", version=1, model_sha256=hashlib.sha256(MODEL).hexdigest())


def test_what_was_kept_is_found(tmp_path: Path) -> None:
    cache = VersionCache(tmp_path)
    cache.keep(VERSION, MODEL)
    cache.keep_champions({"m": Champion(1, 2)})
    assert cache.find("m", 1) == (VERSION, MODEL)
    assert cache.champions() == {"m": Champion(1, 2)}


@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff", b"\n\x7fm", MODEL])
@pytest.mark.parametrize("suffix", [".version", ".onnx"])
def test_a_corrupt_file_counts_as_absent(tmp_path: Path, suffix: str, content: bytes) -> None:
    cache = VersionCache(tmp_path)
    cache.keep(VERSION, MODEL)
    (path,) = tmp_path.glob(f"*{suffix}")
    if path.read_bytes() == content:
        return
    path.write_bytes(content)
    assert cache.find("m", 1) is None
    cache.keep_champions({"m": Champion(1, 2)})


@pytest.mark.parametrize(
    "content", ["", "null", "[1]", "3", '{"m": 1}', '{"m": [1]}', '{"m": [null, 2]}', '{"m": "xy"}']
)
def test_corrupt_champions_count_as_absent(tmp_path: Path, content: str) -> None:
    (tmp_path / "champions.json").write_text(content)
    assert VersionCache(tmp_path).champions() == {}
