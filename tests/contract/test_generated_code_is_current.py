"""The committed contracts' code is what `make proto` makes of `proto/`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def generated_below(folder: Path) -> dict[str, str]:
    """Relative path to text of every generated file."""
    found = folder.glob("homeostat/**/*_pb2*.py*")
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in found
        if path.suffix in {".py", ".pyi"}
    }


def test_generated_code_is_current(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / "tools" / "generate_contracts.py"), str(tmp_path)], check=True
    )
    fresh, committed = generated_below(tmp_path), generated_below(ROOT / "sdk")
    assert fresh, "nothing was generated"
    assert committed.keys() == fresh.keys(), "run `make proto`"
    stale = [name for name, text in fresh.items() if committed[name] != text]
    assert not stale, f"run `make proto`: {stale}"
