"""What can be set, by environment variables HOMEOSTAT_REGISTRY_*."""

from pydantic_settings import SettingsConfigDict

from homeostat_kit.settings import ServiceSettings

_MIB = 1024 * 1024


class RegistrySettings(ServiceSettings):
    """The registry's settings; defaults work on a laptop."""

    model_config = SettingsConfigDict(env_prefix="HOMEOSTAT_REGISTRY_", frozen=True, extra="ignore")

    grpc_address: str = "127.0.0.1:50051"

    # Larger uploads are refused.
    model_limit_bytes: int = 256 * _MIB
    reference_limit_bytes: int = 256 * _MIB

    # Each may hold as much on disk as the two limits allow, and waits its turn with the judge.
    most_registrations_at_once: int = 32

    # A promotion's event time may lie so far ahead of the clock, no further.
    future_bound_seconds: float = 86_400.0

    # The gate: fewer hold-out rows prove nothing, and how often it may err (one-sided).
    min_holdout_rows: int = 300
    gate_error_probability: float = 0.05

    # What the judge of a model file may use: address space, CPU and wall time.
    admission_memory_bytes: int = 2048 * _MIB
    admission_cpu_seconds: int = 20
    admission_wall_seconds: float = 30.0
