"""Holds what no other tool looks at: no registry addresses, no machine's paths, no large files.

Looks at every file that git tracks or would add. Ends with 1 and one line per finding.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGEST_BYTES = 1_500_000

# Where packages come from is the machine's business: a mirror must work as well as the original.
# Written in pieces, so that this file passes its own check.
_REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("python" + "hosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("repo", "maven", "apache", "org"),
        ("repo1", "maven", "org"),
        ("maven", "google", "com"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("rubygems", "org"),
        ("npm", "pkg", "github", "com"),
    )
)
REGISTRY = re.compile("|".join(re.escape(host) for host in _REGISTRIES))
# A path of somebody's machine: a home folder, a scratch folder, a working folder.
MACHINE_PATH = re.compile(r"(?<![\w.$}~*-])/(?:home/[a-z]|Users/[A-Za-z]|root/|work/|tmp/[\w-])")
# Paths inside a container image are not of a machine.
MAY_NAME_PATHS = ("deploy/docker/", "compose.yaml", "tools/check_repository.py")
LOCKS_WITH_ADDRESSES = {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock", "yarn.lock"}


def tracked_files() -> list[Path]:
    """Files that are committed, or would be by `git add`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def findings(path: Path) -> Iterator[str]:
    """What is wrong with one file."""
    name = str(path.relative_to(ROOT))
    if path.stat().st_size > LARGEST_BYTES:
        yield f"{name}: {path.stat().st_size:,} bytes; at most {LARGEST_BYTES:,} are committed"
    if path.name in LOCKS_WITH_ADDRESSES:
        yield f"{name}: a lock file with addresses; pin with hashed requirements instead"
    content = path.read_bytes()
    if b"\0" in content:
        return
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        yield from (f"{name}:{number}: {what}" for what in _wrong_in(line, name))


def _wrong_in(line: str, name: str) -> Iterator[str]:
    if found := REGISTRY.search(line):
        yield f"the package registry's host name {found.group()}"
    if not name.startswith(MAY_NAME_PATHS) and (found := MACHINE_PATH.search(line)):
        yield f"a path of one machine: {found.group()}..."


def main() -> None:
    found = [finding for path in tracked_files() for finding in findings(path)]
    print("\n".join(found))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
