"""What can be set from outside."""

from typing import Literal

from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from homeostat_kit.settings import ServiceSettings


class InferenceSettings(ServiceSettings):
    """Read from the environment, prefix HOMEOSTAT_INFERENCE_."""

    model_config = SettingsConfigDict(
        env_prefix="HOMEOSTAT_INFERENCE_", frozen=True, extra="ignore"
    )

    grpc_address: str = "127.0.0.1:50052"
    registry_address: str = "127.0.0.1:50051"
    # Without a ledger a segment is forgotten once the broker has it and it is older than the tail.
    ledger_address: str | None = "127.0.0.1:50053"
    # Clients' own ids leave this process only as hashes under this key.
    client_key_secret: SecretStr = SecretStr("for-development-only")
    # Which worker of this service it is: marks are its promises, the journal is its own.
    worker_slot: int = 0
    transport: Literal["native", "grpcio"] = "native"
    max_message_bytes: int = 16 * 1024 * 1024
    # What may wait per version before callers are told to come back.
    queue_rows: int = 20_000
    queue_bytes: int = 64 * 1024 * 1024
    # Runs that are expected to take longer go to a thread of their own.
    inline_run_seconds: float = 200e-6
    # Versions that are nobody's champion and stay loaded because somebody asked for them.
    pinned_versions: int = 4
    # durable: fdatasync before the answer; fast: after it.
    durability: Literal["durable", "fast"] = "durable"
    journal_segment_bytes: int = 16 * 1024 * 1024
    journal_quota_bytes: int = 4 * 1024**3
    # Kept after it was archived, for a broker that comes back empty.
    journal_tail_bytes: int = 64 * 1024 * 1024
    journal_tail_seconds: float = 600.0
    watermark_mode: Literal["auto", "explicit"] = "auto"
    # How late a row may be (auto), and how long without rows until the clock alone decides.
    watermark_bound_seconds: float = 5.0
    watermark_idle_seconds: float = 10.0
    watermark_interval_seconds: float = 0.25
    # Event times and known-at times further ahead are refused.
    future_bound_seconds: float = 86_400.0
    snapshot_interval_seconds: float = 3.0
