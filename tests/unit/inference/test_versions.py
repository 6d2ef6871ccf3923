"""The copy of versions on our own disk is a help, never a reason not to start."""

import hashlib
import threading
from pathlib import Path

import pytest

from homeostat.registry.v1.registry_pb2 import Version
from homeostat_inference.edges.versions import VersionCache

MODEL = b"a model"
VERSION = Version(model_name="m", version=1, model_sha256=hashlib.sha256(MODEL).hexdigest())


def test_what_was_kept_is_found(tmp_path: Path) -> None:
    cache = VersionCache(tmp_path)
    cache.keep(VERSION, MODEL)
    cache.prune([("m", 1)])
    assert cache.find("m", 1) == (VERSION, MODEL)
    assert cache.has("m", 1)
    cache.prune([])
    assert not cache.has("m", 1)
    assert not list(tmp_path.glob("*.onnx"))


def test_what_was_half_written_when_the_process_ended_is_removed_at_the_start(
    tmp_path: Path,
) -> None:
    cache = VersionCache(tmp_path)
    cache.keep(VERSION, MODEL)
    for name in ("aa.onnx.new", "m@1.version.new"):
        (tmp_path / name).write_bytes(b"half")
    cache.clean()
    assert not list(tmp_path.glob("*.new"))
    assert cache.has("m", 1)


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
    cache.prune([("m", 1)])


def test_a_version_that_is_being_stored_is_not_taken_for_a_stray(tmp_path: Path) -> None:
    cache = VersionCache(tmp_path)
    is_over = threading.Event()

    def prune() -> None:
        while not is_over.is_set():
            cache.prune([("m", 1)])

    pruning = threading.Thread(target=prune)
    pruning.start()
    try:
        for _ in range(50):
            cache.prune([])
            cache.keep(VERSION, MODEL)
            assert cache.find("m", 1) is not None
    finally:
        is_over.set()
        pruning.join()
