"""What the ledger can be told from outside."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from homeostat_kit.settings import ServiceSettings

_DAY = 86_400


class LedgerSettings(ServiceSettings):
    """Environment prefix HOMEOSTAT_LEDGER_."""

    model_config = SettingsConfigDict(env_prefix="HOMEOSTAT_LEDGER_", frozen=True, extra="ignore")

    grpc_address: str = "127.0.0.1:50053"
    client_key_secret: SecretStr = Field(
        default=SecretStr("homeostat-on-a-laptop"),
        description="The same as inference's: clients' own ids are stored as its keyed hashes.",
    )
    parked_retention_seconds: int = Field(
        default=90 * _DAY,
        gt=0,
        description="Truth without a prediction is given up when the outcomes' watermark is so far "
        "past its known-at.",
    )
    event_time_ahead_seconds: int = Field(
        default=366 * _DAY, ge=0, description="Event times and marks later than this are refused."
    )
    known_at_ahead_seconds: int = Field(
        default=_DAY, ge=0, description="Truth known later than this from now is refused."
    )
    cache_bytes: int = Field(
        default=128 * 1024 * 1024, ge=0, description="Decoded rows kept for cutting data sets."
    )
    poll_records: int = Field(default=500, gt=0, description="Records that one poll takes at most.")
    outbox_retained_rows: int = Field(
        default=100_000,
        gt=0,
        description="Sent joined blocks that are kept for a broker that loses them.",
    )
