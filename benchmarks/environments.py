"""Environments of peers, each of its own below one folder; pinned, with hashes."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".bench"
_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Environments:
    """``pins``: the folder of requirement files; ``contents``: environment to what goes into it,
    each with or without what it depends on."""

    pins: Path
    contents: Mapping[str, Sequence[tuple[str, bool]]]

    def install(self, names: Iterable[str] | None = None) -> dict[str, str]:
        """Makes what is missing of those (of all); why some are absent that could not be made."""
        absent = {}
        for name in self.contents if names is None else names:
            try:
                self._install(name)
            except (subprocess.SubprocessError, OSError) as error:
                said = getattr(error, "stderr", None) or str(error)
                absent[name] = str(said).strip()[-400:]
                print(f"{name} could not be installed: {absent[name]}", file=sys.stderr)
        return absent

    def _install(self, name: str) -> None:
        stamp = FOLDER / name / "pins"
        key = self._key(name)
        if stamp.exists() and stamp.read_text() == key:
            return
        print(f"installing {name} into {FOLDER.name}/{name} ...", file=sys.stderr)
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        FOLDER.mkdir(exist_ok=True)
        _run([sys.executable, "-m", "venv", "--without-pip", str(FOLDER / name)])
        uv = str(Path(sys.executable).parent / "uv")
        for pins, with_dependencies in self.contents[name]:
            command = [uv, "pip", "install", "--quiet", "--python", str(python_of(name))]
            command += ["--require-hashes", "-r", str(self.pins / f"{pins}.txt")]
            _run(command if with_dependencies else [*command, "--no-deps"])
        stamp.write_text(key)

    def _key(self, name: str) -> str:
        files = [self.pins / f"{pins}.txt" for pins, _ in self.contents[name]]
        content = b"".join(each.read_bytes() for each in files)
        return hashlib.sha256(content + sys.version.encode()).hexdigest()


def python_of(environment: str) -> Path:
    """Its interpreter, installed or not."""
    return FOLDER / environment / "bin" / "python"


def site_packages(environment: str) -> Path:
    """Where its packages lie."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return FOLDER / environment / "lib" / version / "site-packages"


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
