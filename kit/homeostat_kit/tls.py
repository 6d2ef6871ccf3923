"""TLS for servers: certificates that are read again when their files change."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from homeostat_kit.watched import Watched


class UnusableCertificate(ValueError):
    """A certificate or key can't be used; the message names the file and the cure."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A server's certificate (with its chain) and key, PEM. With ``client_ca`` clients must show
    a certificate that this authority signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        mine = (self.certificate, self.key)
        return (*mine, self.client_ca) if self.client_ca else mine


def grpc_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """For a gRPC server; new connections get what the files hold then. UnusableCertificate if they
    can't be used now."""
    watched = Watched(files.paths, lambda: _configuration(files), unusable=UnusableCertificate)
    handed_out = watched.now()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal handed_out
        if watched.now() is handed_out:
            return None
        handed_out = watched.now()
        return handed_out

    return grpc.dynamic_ssl_server_credentials(
        handed_out,
        changed,  # type: ignore[arg-type]  # None means unchanged
        require_client_authentication=files.client_ca is not None,
    )


def ssl_context(files: TlsFiles) -> tuple[ssl.SSLContext, Callable[[], None]]:
    """For an HTTP server, and what to call now and then to take over changed files: from then on
    new connections get the new certificate. An authority of clients that is taken out of its file
    is trusted until a restart. UnusableCertificate if the files can't be used now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    watched = Watched(files.paths, lambda: _load(context, files), unusable=UnusableCertificate)

    def look() -> None:
        watched.now()

    return context, look


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    # In a context of its own first: one that took the certificate and not its key is of no use.
    require_usable(files)
    with _telling(files):
        _fill(context, files)
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    # gRPC would take a key of another certificate and then fail every connection without a word.
    require_usable(files)
    with _telling(files):
        return grpc.ssl_server_certificate_configuration(
            [(files.key.read_bytes(), files.certificate.read_bytes())],
            root_certificates=files.client_ca.read_bytes() if files.client_ca else None,
        )


def require_usable(files: TlsFiles) -> None:
    """UnusableCertificate if they don't belong together, or can't be read."""
    with _telling(files):
        _fill(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files)


def _fill(context: ssl.SSLContext, files: TlsFiles) -> None:
    context.load_cert_chain(files.certificate, files.key, password=_no_password)
    if files.client_ca is not None:
        context.load_verify_locations(files.client_ca)


@contextmanager
def _telling(files: TlsFiles) -> Iterator[None]:
    """Files may be replaced at any moment, between two looks too."""
    try:
        yield
    except (OSError, ValueError) as error:
        listed = ", ".join(str(each) for each in files.paths)
        raise UnusableCertificate(
            f"certificate and key can't be used: {error} ({listed}); "
            "cure: PEM files that belong together, the key without a passphrase"
        ) from error


def _no_password() -> str:
    """OpenSSL would ask on the terminal."""
    raise ValueError("the key has a passphrase")
