"""What the ledger can be told from outside."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from homeostat_kit.settings import ServiceSettings


class LedgerSettings(ServiceSettings):
    """Environment prefix HOMEOSTAT_LEDGER_."""

    model_config = SettingsConfigDict(env_prefix="HOMEOSTAT_LEDGER_", frozen=True, extra="ignore")

    grpc_address: str = "127.0.0.1:50053"
    # The same as inference has: clients' own ids are stored as keyed hashes.
    client_key_secret: SecretStr = SecretStr("homeostat-on-a-laptop")
    # Parked truth is given up when the outcomes' watermark is so far past its known-at.
    parked_retention_seconds: int = Field(default=90 * 86_400, gt=0)
    # Later times than this from now are refused.
    event_time_ahead_seconds: int = Field(default=366 * 86_400, ge=0)
    known_at_ahead_seconds: int = Field(default=86_400, ge=0)
    # Decoded rows that are kept for cutting data sets.
    cache_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    # How many records one poll may take.
    poll_records: int = Field(default=500, gt=0)
    # Sent joined blocks that are kept for a broker that loses them.
    outbox_retained_rows: int = Field(default=100_000, gt=0)
