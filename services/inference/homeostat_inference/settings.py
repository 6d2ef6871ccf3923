"""What inference can be told from outside."""

from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from homeostat_kit.settings import ServiceSettings

_MIB = 1024 * 1024
DEFAULT_SECRET = "homeostat-on-a-laptop"  # noqa: S105 - known to everybody, hence refused below


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
        description="Asked what the journal may forget; empty: what the broker has.",
    )
    client_key_secret: SecretStr = Field(
        default=SecretStr(DEFAULT_SECRET),
        description="Clients' own ids leave this process only as hashes under this key.",
    )
    server_name: str = Field(
        default="inference-0",
        min_length=1,
        max_length=128,
        description="Names this server among others: its promises about time are its own.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=32,
        description="Processes that answer requests; each has a journal of its own.",
    )
    worker_memory_bytes: int = Field(
        default=1024 * _MIB,
        ge=128 * _MIB,
        description="A worker that takes more is replaced once it has answered what it has; one "
        "that takes half as much again is killed.",
    )
    request_timeout_seconds: float = Field(
        default=10.0, gt=0, description="For requests that bring no deadline of their own."
    )
    run_limit_seconds: float = Field(
        default=5.0,
        gt=0,
        description="Runs of a model are ended after this long, or at a deadline.",
    )
    transport: Literal["native", "grpcio"] = Field(
        default="native",
        description="What answers ModelInfer: pygrpc-native, or grpcio alone (which speaks TLS).",
    )
    http_address: str | None = Field(
        default=None, description="Where the protocol is served over HTTP too; without it, nowhere."
    )
    http_json_bytes: int = Field(
        default=4 * _MIB,
        gt=0,
        description="Longer JSON is refused; tensors sent as binary data do not count.",
    )
    shadow_lag_seconds: float = Field(
        default=5.0,
        gt=0,
        description="Rows that shadows have not repeated after so long are given up: the server's "
        "promises about time wait for shadows no longer than this.",
    )
    shadow_lag_rows: int = Field(
        default=100_000, gt=0, description="The same by rows that wait for shadows."
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
    durability: Literal["durable", "fast", "sampled"] = Field(
        default="durable",
        description="fdatasync before the answer (durable), within 0.1 s after it (fast), or like "
        "fast and only a share of the requests (sampled).",
    )
    sample_share: float = Field(
        default=0.1, gt=0, le=1, description="sampled: of the requests, which share is kept."
    )
    journal_full: Literal["refuse", "shed"] = Field(
        default="refuse",
        description="A journal at its quota, or a disk that fails: requests are refused, or "
        "answered and not kept.",
    )
    journal_segment_bytes: int = Field(
        default=16 * _MIB, gt=0, description="Size of a journal file."
    )
    journal_quota_bytes: int = Field(
        default=4096 * _MIB,
        gt=0,
        description="A journal that holds so much is full; each worker has one.",
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
        default=0.5, gt=0, description="How often the registry is asked, beside its topic."
    )

    @field_validator("ledger_address")
    @classmethod
    def _empty_means_none(cls, address: str | None) -> str | None:
        """From the environment nothing else can say that there is no ledger."""
        return address or None

    @model_validator(mode="after")
    def _require_a_secret_where_others_come_in(self) -> Self:
        is_default = self.client_key_secret.get_secret_value() == DEFAULT_SECRET
        for address in (self.grpc_address, self.http_address):
            host = (address or "127.0.0.1:0").rpartition(":")[0].strip("[]")
            if is_default and not (host in ("localhost", "::1") or host.startswith("127.")):
                raise ValueError(
                    f"HOMEOSTAT_INFERENCE_CLIENT_KEY_SECRET has to be set where the server listens "
                    f"on {host or 'every address'}: under the default everybody could make "
                    "clients' keys"
                )
        return self

    @model_validator(mode="after")
    def _require_a_transport_with_tls(self) -> Self:
        if self.tls_certificate_file is not None and self.transport == "native":
            raise ValueError(
                "TLS is spoken by the other transport alone: set "
                "HOMEOSTAT_INFERENCE_TRANSPORT=grpcio, or leave TLS to a proxy in front"
            )
        return self
