"""Pins the requirements (what `make lock` runs): hashes for every platform, no index address.

`dev.txt` is resolved first, from every extra of the project and `dev.in`; the others are cut from
it, so that one package never has two versions here. Each service has its own, for its image.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("registry", "inference", "ledger", "monitor", "retrainer")
LOCKS = {
    "dev.txt": ["pyproject.toml", "--extra", "all", "requirements/dev.in"],
    "run.txt": ["pyproject.toml", "--extra", "all", "-c", "requirements/dev.txt"],
    "build.txt": ["requirements/build.in", "-c", "requirements/dev.txt"],
    # An environment of its own (tests/support/kserve.py): nothing of it has to fit the others.
    "kserve.txt": ["requirements/kserve.in"],
    **{
        f"services/{name}.txt": ["pyproject.toml", "--extra", name, "-c", "requirements/dev.txt"]
        for name in SERVICES
    },
}


def compile_command(name: str, *, upgrade: bool) -> list[str]:
    """The uv command that pins one file."""
    return [
        str(Path(sys.executable).parent / "uv"),
        *("pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
        *("--generate-hashes", "--no-emit-index-url", "--no-emit-find-links"),
        *("--no-annotate",) * name.startswith("services/"),
        *("--custom-compile-command", "make lock"),
        *(["--upgrade"] if upgrade else []),
        *LOCKS[name],
        *("-o", f"requirements/{name}"),
    ]


def main() -> None:
    for name in LOCKS:
        subprocess.run(compile_command(name, upgrade="--upgrade" in sys.argv), cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
