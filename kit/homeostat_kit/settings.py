"""The settings that every service shares; each service adds its own and its environment prefix."""

from pathlib import Path

from pydantic import SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from homeostat.channels import ChannelSecurity
from homeostat_kit.tls import TlsFiles


class ServiceSettings(BaseSettings):
    """Read once, in ``main``; a subclass gives its ``env_prefix`` in ``model_config``."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    # host:port of one or more brokers, separated by commas.
    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    # A database and a role of this service's own.
    database_url: SecretStr = SecretStr("postgresql://homeostat@127.0.0.1:5432/homeostat")
    # Where this service's gRPC server listens.
    grpc_address: str = "127.0.0.1:50051"
    # What the service keeps on disk.
    data_folder: Path = Path(".homeostat")
    # host:port or URL of an OTLP gRPC collector; None builds no telemetry objects at all.
    otlp_endpoint: str | None = None
    # DEBUG, INFO, WARNING or ERROR; JSON lines on standard output.
    log_level: str = "INFO"

    # The server's certificate with its chain, PEM; with it, TLS is spoken and nothing else.
    tls_certificate_file: Path | None = None
    # The certificate's key, PEM, without a passphrase.
    tls_key_file: Path | None = None
    # Clients must show a certificate that this authority signed (mTLS), PEM.
    tls_client_ca_file: Path | None = None
    # Who may call what: see `homeostat token new`; without it everybody may everything.
    tokens_file: Path | None = None
    # Who signed the other services' certificates, PEM; with it, they are called over TLS.
    peer_ca_file: Path | None = None
    # What this service shows where the others ask for a client's certificate, PEM.
    peer_certificate_file: Path | None = None
    # That certificate's key, PEM.
    peer_key_file: Path | None = None
    # The token that this service shows to the others.
    peer_token: SecretStr | None = None

    @model_validator(mode="after")
    def _belongs_together(self) -> "ServiceSettings":
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file are set both, or neither")
        if self.tls_client_ca_file is not None and self.tls_certificate_file is None:
            raise ValueError("tls_client_ca_file needs tls_certificate_file and tls_key_file")
        self.peers  # noqa: B018 - raises what is wrong with it
        return self

    @property
    def tls(self) -> TlsFiles | None:
        """The server's certificate; None without TLS."""
        if self.tls_certificate_file is None or self.tls_key_file is None:
            return None
        return TlsFiles(self.tls_certificate_file, self.tls_key_file, self.tls_client_ca_file)

    @property
    def peers(self) -> ChannelSecurity:
        """How the other services are called."""
        return ChannelSecurity(
            token=self.peer_token.get_secret_value() if self.peer_token else None,
            ca_file=self.peer_ca_file,
            certificate_file=self.peer_certificate_file,
            key_file=self.peer_key_file,
        )
