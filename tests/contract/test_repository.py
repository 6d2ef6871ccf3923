"""The repository keeps its own promises: requirements, documents, makefile, checks."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = sorted((ROOT / "requirements").rglob("*.txt"))
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/**/*.md")]
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def requirement_blocks(text: str) -> list[str]:
    """Each requirement with the lines that belong to it."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [line for line in joined.splitlines() if line and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.stem)
def test_every_requirement_is_pinned_and_hashed(path: Path) -> None:
    blocks = requirement_blocks(path.read_text())
    assert blocks
    bare = [block for block in blocks if "--hash=sha256:" not in block or "==" not in block]
    assert not bare


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.stem)
def test_no_requirement_says_where_it_comes_from(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert "index-url" not in text
    assert "find-links" not in text


def versions(path: Path) -> dict[str, str]:
    """Package to pin."""
    return {
        block.split("==")[0]: block.split()[0] for block in requirement_blocks(path.read_text())
    }


# Other people's clients have environments of their own.
_APART = ("kserve",)


@pytest.mark.parametrize(
    "path", [each for each in REQUIREMENTS if each.stem not in _APART], ids=lambda path: path.stem
)
def test_what_runs_is_what_was_tested(path: Path) -> None:
    """Every set is cut from the development set, in the same versions."""
    only_here = {"pip", "uv"}  # they install the rest
    pins = {name: pin for name, pin in versions(path).items() if name not in only_here}
    assert pins.items() <= versions(ROOT / "requirements" / "dev.txt").items()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_documents_resolve(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    targets = {target.partition("#")[0] for target in LINK.findall(text)}
    local = {target for target in targets if target and "://" not in target}
    missing = sorted(target for target in local if not (path.parent / target).exists())
    assert not missing


def test_decisions_are_numbered_without_gaps() -> None:
    names = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


def test_the_repository_holds_no_addresses_paths_or_large_files() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        [sys.executable, "tools/check_repository.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_make_lists_its_targets() -> None:
    environment = {**os.environ, "MAKEFLAGS": ""}
    shown = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout
    for target in ("setup", "demo", "test", "check", "up", "down"):
        assert f"make {target} " in shown


def test_a_second_set_up_does_nothing(tmp_path: Path) -> None:
    """The stamp decides alone: this environment has no pip, and nothing misses it."""
    for name in ("requirements", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    spec = importlib.util.spec_from_file_location("set_up", tmp_path / "tools" / "set_up.py")
    assert spec is not None and spec.loader is not None
    set_up = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(set_up)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / ".venv" / "homeostat-dev.json").write_text(json.dumps(set_up._key("dev")))

    for profile in ("dev", "run"):  # dev holds what run needs
        command = [sys.executable, str(tmp_path / "tools" / "set_up.py"), profile]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b""

    (tmp_path / "requirements" / "dev.txt").write_text("changed")
    assert not set_up._is_current("dev")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names it so")
def test_lightgbm_can_have_an_openmp_library_from_the_environment_alone(tmp_path: Path) -> None:
    """On a bare machine `libgomp.so.1` is a renamed copy of the one in scikit-learn's wheel."""
    script = f"""
import ctypes, sys
sys.path.insert(0, {str(ROOT / "tools")!r})
import provide_openmp as it
from pathlib import Path
it.COPY = Path({str(tmp_path)!r}) / "openmp" / it.NAME
it.LOADER = Path({str(tmp_path)!r}) / "loader.pth"
it.provide()
exec(it.LOADER.read_text())
assert ctypes.CDLL(str(it.COPY)).omp_get_max_threads() >= 1
print(it.NAME.encode() + b"\\0" in it.COPY.read_bytes())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "True", done.stderr
