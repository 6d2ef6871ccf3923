"""What inference can be told from outside."""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from homeostat_kit.settings import ServiceSettings

_MIB = 1024 * 1024


class InferenceSettings(ServiceSettings):
    """Environment prefix HOMEOSTAT_INFERENCE_."""

    model_config = SettingsConfigDict(
        env_prefix="HOMEOSTAT_INFERENCE_", frozen=True, extra="ignore"
    )

    grpc_address: str = "127.0.0.1:50052"
    registry_address: str = Field(
        default="127.0.0.1:50051", description="The registry's gRPC server."
    )
    ledger_address: str | None = Field(
        default="127.0.0.1:50053",
        description="Asked what the journal may forget; without it, what the broker has.",
    )
    client_key_secret: SecretStr = Field(
        default=SecretStr("homeostat-on-a-laptop"),
        description="Clients' own ids leave this process only as hashes under this key.",
    )
    worker_slot: int = Field(
        default=0, ge=0, description="Which worker this is: its journal and its marks are its own."
    )
    transport: Literal["native", "grpcio"] = Field(
        default="native", description="What answers ModelInfer: pygrpc-native, or grpcio alone."
    )
    max_message_bytes: int = Field(
        default=16 * _MIB, gt=0, description="Longer requests are refused."
    )
    queue_rows: int = Field(default=20_000, gt=0, description="Rows that may wait per version.")
    queue_bytes: int = Field(
        default=64 * _MIB, gt=0, description="Bytes of requests that may wait per version."
    )
    inline_run_seconds: float = Field(
        default=200e-6,
        ge=0,
        description="Runs expected to take longer go to a thread of their own.",
    )
    pinned_versions: int = Field(
        default=4,
        gt=0,
        description="Versions kept loaded because somebody named them in a request.",
    )
    durability: Literal["durable", "fast"] = Field(
        default="durable",
        description="fdatasync before the answer (durable), or within 0.1 s after it.",
    )
    journal_segment_bytes: int = Field(
        default=16 * _MIB, gt=0, description="Size of a journal file."
    )
    journal_quota_bytes: int = Field(
        default=4096 * _MIB,
        gt=0,
        description="When the journal holds so much, requests are refused.",
    )
    journal_tail_bytes: int = Field(
        default=64 * _MIB,
        ge=0,
        description="Kept after it was archived, for a broker that lost all.",
    )
    journal_tail_seconds: float = Field(
        default=600.0,
        ge=0,
        description="The same by age, while the journal is below half its quota.",
    )
    watermark_mode: Literal["auto", "explicit"] = Field(
        default="auto",
        description="Who promises that nothing earlier follows: the clock, or a caller.",
    )
    watermark_bound_seconds: float = Field(
        default=5.0, ge=0, description="auto: how far behind the newest event time a row may be."
    )
    watermark_idle_seconds: float = Field(
        default=10.0, gt=0, description="auto: without rows for so long, the clock alone decides."
    )
    watermark_interval_seconds: float = Field(
        default=0.25, gt=0, description="auto: how often a mark is made."
    )
    future_bound_seconds: float = Field(
        default=86_400.0,
        ge=0,
        description="Event times and known-at times further ahead are refused.",
    )
    snapshot_interval_seconds: float = Field(
        default=3.0, gt=0, description="How often the registry is asked, beside its topic."
    )
