"""Files that are whole or absent, and secrets that only their owner reads."""

import os
import secrets
from pathlib import Path

_SECRET_BYTES = 32


def write_atomically(path: Path, text: str, *, mode: int = 0o644, durable: bool = False) -> None:
    """Replaces the file in one step; a reader sees the old text or the new, never a part.

    Durable also holds against a loss of power.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def secret(data_folder: Path, name: str) -> str:
    """The secret of this name, made at its first use and kept under the data folder (0600)."""
    folder = data_folder / "secrets"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name
    if not path.exists():
        write_atomically(path, secrets.token_hex(_SECRET_BYTES), mode=0o600, durable=True)
    return path.read_text()
