"""Runs every check (what `make check` runs), says how each went, and fails when one failed."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
TOOLS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tools").glob("*.py"))]

# name: command. The name selects: make check ARGS="types imports"
CHECKS: dict[str, list[str]] = {
    "format": [str(BIN / "ruff"), "format", "--check", "."],
    "lint": [str(BIN / "ruff"), "check", "--quiet", "--output-format", "concise", "."],
    "types": [str(BIN / "mypy"), "--no-error-summary"],
    "types-of-tools": [str(BIN / "mypy"), "--no-error-summary", *TOOLS],
    "imports": [str(BIN / "lint-imports")],
    "contracts": [str(BIN / "buf"), "lint", "proto"],
    "contracts-format": [str(BIN / "buf"), "format", "proto", "--diff", "--exit-code"],
    "contracts-breaking": [
        *(str(BIN / "buf"), "breaking", "proto", "--against", "proto/baseline.binpb")
    ],
    "environment": [str(BIN / "uv"), "pip", "check", "--quiet", "--python", sys.executable],
    "repository": [sys.executable, "tools/check_repository.py"],
}


def passes(name: str) -> bool:
    """Runs one check; prints its output only when it failed."""
    began = time.monotonic()
    done = subprocess.run(
        CHECKS[name],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    word = "ok" if done.returncode == 0 else "FAILED"
    print(f"{name:20} {word:7} {time.monotonic() - began:5.1f} s", flush=True)
    if done.returncode != 0:
        print(done.stdout.rstrip(), flush=True)
    return done.returncode == 0


def main() -> None:
    names = sys.argv[1:] or list(CHECKS)
    if unknown := set(names) - set(CHECKS):
        sys.exit(f"no such check: {', '.join(sorted(unknown))}; there are: {', '.join(CHECKS)}")
    failed = [name for name in names if not passes(name)]
    if failed:
        sys.exit(f"FAILED: {', '.join(failed)}")


if __name__ == "__main__":
    main()
