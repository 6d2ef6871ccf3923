"""The settings that every service shares; each service adds its own and its environment prefix."""

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


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
