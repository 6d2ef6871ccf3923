"""Certificates for tests, made by the openssl program: an authority, and who it signed."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

_DAYS = "2"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates; its own is what others trust."""

    folder: Path
    pair: Pair

    @property
    def certificate(self) -> Path:
        """What others trust."""
        return self.pair.certificate

    def signs(self, name: str, *, host: str = "localhost") -> Pair:
        """A certificate for ``host`` and 127.0.0.1, for servers and clients."""
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.cnf"
        extensions.write_text(
            f"subjectAltName=DNS:{host},IP:127.0.0.1\n"
            "extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n"
        )
        _openssl("req", *_new_key(pair.key), "-subj", f"/CN={name}", "-out", str(request))
        _openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.pair.certificate)),
            *("-CAkey", str(self.pair.key), "-CAcreateserial", "-days", _DAYS),
            *("-extfile", str(extensions), "-out", str(pair.certificate)),
        )
        return pair


def an_authority(folder: Path, name: str = "authority") -> Authority:
    """A new one, whose files stand in ``folder``."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    _openssl(
        *("req", "-x509", *_new_key(pair.key), "-days", _DAYS, "-subj", f"/CN={name}"),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-out", str(pair.certificate)),
    )
    return Authority(folder, pair)


def _new_key(path: Path) -> tuple[str, ...]:
    return (
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-keyout", str(path)),
    )


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
